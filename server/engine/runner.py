"""The model thread: plan, forward, choose tokens, tell; and what others may ask of it.

All shared state stands behind one lock, which is never held while the model computes, so a call from the
event loop waits for microseconds. Knows nothing of asyncio, HTTP or folders' meaning.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from server.config import EngineSettings
from server.engine.catalogue import AdapterFolder
from server.engine.forward import Part
from server.engine.kv import KVBudget
from server.engine.lora import LoraPair, read_adapter
from server.engine.runtime import Runtime
from server.engine.sampling import Choice
from server.engine.scheduler import PlannedPart, Scheduler
from server.engine.sequence import Row
from server.engine.slots import Slot, SlotState, SlotTable
from server.errors import AdapterError, AdapterInUse, AdapterInvalid, EngineDown, EngineError
from server.types import EngineHealth, FinishReason, GenerationDone, TokenDelta, TokenLogprob, Usage

log = logging.getLogger("tailor.engine")

_RETRY_S = 1.0       # between tries to bring a failed model back while nobody asks
_STUCK_S = 120.0     # a step that takes longer is reported as failed


class Runner:
    """Call `serve` on the model thread; everything else is safe from any thread."""

    def __init__(self, runtime: Runtime, settings: EngineSettings) -> None:
        self._runtime = runtime
        self._changed = threading.Condition()
        self._slots = SlotTable(settings.max_loras)
        self._scheduler = Scheduler(
            settings,
            KVBudget(settings.kv_bytes, runtime.bytes_per_token),
            self._slots,
            self._start_reading,
            chunked=runtime.path.chunked,
        )
        self._reader = ThreadPoolExecutor(1, "tailor-adapters")
        self._arrived: list[tuple[Slot, dict[str, LoraPair] | AdapterError]] = []
        self._stopping = False
        self._failure = ""
        self._step_began: float | None = None

    # ── what others ask ──────────────────────────────────────────────────────────────────────────

    def submit(self, row: Row) -> None:
        """Raises EngineBusy, EngineDown."""
        with self._changed:
            if self._stopping:
                raise EngineDown("the engine is shutting down")
            self._scheduler.submit(row)
            self._changed.notify()

    def cancel(self, row: Row) -> None:
        """The row is gone before the model's next step; nothing more is emitted for it."""
        with self._changed:
            row.cancelled = True
            self._changed.notify()

    def load(self, folder: AdapterFolder) -> Future[None]:
        """Done when the adapter is in a slot. Raises AdapterInUse at once when no slot can be freed."""
        done: Future[None] = Future()
        with self._changed:
            now = time.monotonic()
            slot = self._slots.reserve(folder, now)
            if slot is None:
                used = ", ".join(sorted(f"{held.folder.name}@{held.folder.version}" for held in self._slots))
                raise AdapterInUse(f"all {self._slots.capacity} adapter slots are in use by running answers ({used}): "
                                   "wait for one to end, or raise engine.max_loras")
            if slot.state is SlotState.LOADED:
                done.set_result(None)
                return done
            slot.waiters.append(done)
            if not slot.reading:
                slot.reading = True
                self._start_reading(slot)
        return done

    def unload(self, wanted: Callable[[AdapterFolder], bool]) -> tuple[int, int]:
        """Drops the matching slots that nobody uses: (how many, how many stay because they are in use)."""
        with self._changed:
            matching = [slot for slot in self._slots if wanted(slot.folder)]
            free = [slot for slot in matching if not slot.users and slot.state is SlotState.LOADED]
            for slot in free:
                self._slots.drop(slot)
            return len(free), len(matching) - len(free)

    def loaded(self) -> list[tuple[AdapterFolder, SlotState, int, float]]:
        """(folder, state, rows that use it, last use by the monotonic clock) of each slot."""
        with self._changed:
            return [(slot.folder, slot.state, slot.users, slot.last_used) for slot in self._slots]

    def holds(self, folder: AdapterFolder) -> bool:
        """Whether exactly these files are in a slot, or on their way."""
        with self._changed:
            return self._slots.holding(folder) is not None

    def free_slots(self) -> int:
        with self._changed:
            return self._slots.capacity - len(self._slots)

    def health(self) -> EngineHealth:
        with self._changed:
            running, waiting = len(self._scheduler.running), len(self._scheduler.waiting)
            reason = self._failure
            if self._stopping:
                reason = "the engine has been stopped"
            began = self._step_began
            if began is not None and time.monotonic() - began > _STUCK_S:
                reason = f"the model's current step has taken {time.monotonic() - began:.0f} s"
        return EngineHealth(not reason, running, waiting, reason)

    def stop(self) -> None:
        """`serve` returns after the current step."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def check_integrity(self) -> None:
        """Raises ValueError when the state contradicts itself."""
        with self._changed:
            self._scheduler.check_integrity()

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────

    def serve(self) -> None:
        """Runs until `stop`. A step that fails takes its rows along, never the thread."""
        with torch.inference_mode():
            while not self._stopping:
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001  the thread's outermost edge: anything a model raises
                    self._fail(error)
        self._reader.shutdown(wait=True, cancel_futures=True)
        with self._changed:
            self._end_rows((*self._scheduler.waiting, *self._scheduler.running), "the engine has been stopped")
            for slot in self._slots:
                self._drop_failed(slot, EngineDown("the engine has been stopped"))

    def _turn(self) -> None:
        self._install()
        with self._changed:
            parts = self._scheduler.plan(time.monotonic())
            if not parts:
                if not (self._arrived or self._stopping):
                    self._changed.wait(_RETRY_S if self._failure or self._scheduler.waiting else None)
                if not self._failure:
                    return
            self._step_began = time.monotonic()
        if parts:
            self._step(parts)
        elif not self._stopping:
            self._runtime.path.run([Part((0,), self._runtime.path.new_cache(1), None, True)])
        with self._changed:
            self._step_began = None
            if self._failure:
                log.info("the model works again")
            self._failure = ""

    def _step(self, parts: list[PlannedPart]) -> None:
        path = self._runtime.path
        work, wanted = [], []
        for part in parts:
            row = part.row
            if row.cache is None:
                row.cache = path.new_cache(row.tokens_reserved)
            last = len(part.tokens) >= row.prefill_left
            weights = row.slot.weights if row.slot is not None else None
            work.append(Part(part.tokens, row.cache, weights, last))
            if last:
                wanted.append(row)
        logits = path.run(work)
        for part in parts:
            part.row.computed += len(part.tokens)
        self._choose(wanted, logits)

    def _fail(self, error: Exception) -> None:
        log.error("the model's step failed", exc_info=error)
        reason = f"the model failed ({type(error).__name__}: {str(error)[:200]})"
        with self._changed:
            self._step_began = None
            self._failure = reason
            self._end_rows(tuple(self._scheduler.running), f"{reason}; try again")

    def _end_rows(self, rows: Iterable[Row], reason: str) -> None:
        for row in rows:
            self._scheduler.finish(row, time.monotonic())
            row.emit(EngineDown(reason))

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────

    def _choose(self, rows: list[Row], logits: torch.Tensor) -> None:
        if not rows:
            return
        if all(row.sampler.plain_greedy for row in rows) and bool(torch.isfinite(logits.amax())):
            choices = [Choice(int(token)) for token in logits.argmax(dim=-1).tolist()]
            for row, choice in zip(rows, choices, strict=True):
                row.sampler.note(choice.token)
                self._advance(row, choice)
            return
        values = logits.float().cpu().numpy()
        for row, own in zip(rows, values, strict=True):
            if row.cancelled:
                continue
            try:
                choice = row.sampler.choose(np.array(own))
            except EngineError as error:
                self._finish(row)
                row.emit(error)
            else:
                self._advance(row, choice)

    def _advance(self, row: Row, choice: Choice) -> None:
        """Takes a new token in; tells what can be shown, and ends the row where it must end."""
        row.answer.append(choice.token)
        row.first_token = row.first_token or time.monotonic()
        if row.cancelled:
            return
        if choice.token in self._runtime.tokenizer.stop_ids:
            self._end(row, FinishReason.STOP)
            return
        row.unshown += 1
        if row.logprobs:
            row.unshown_logprobs.append(self._logprob(choice))
        self._tell(row, row.text.push(choice.token))
        if row.text.stopped or (row.mask is not None and row.mask.complete):
            self._end(row, FinishReason.STOP)
        elif len(row.answer) >= row.max_tokens:
            self._end(row, FinishReason.LENGTH)

    def _tell(self, row: Row, text: str) -> None:
        if text:
            row.emit(TokenDelta(text, row.unshown, tuple(row.unshown_logprobs)))
            row.unshown = 0
            row.unshown_logprobs = []

    def _end(self, row: Row, reason: FinishReason) -> None:
        self._tell(row, row.text.flush())
        self._finish(row)
        now = time.monotonic()
        row.emit(GenerationDone(reason, Usage(
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.answer),
            cached_tokens=0,
            queue_s=row.admitted - row.submitted,
            ttft_s=row.first_token - row.submitted,
            total_s=now - row.submitted,
        )))

    def _finish(self, row: Row) -> None:
        with self._changed:
            self._scheduler.finish(row, time.monotonic())

    def _logprob(self, choice: Choice) -> TokenLogprob:
        decode = self._runtime.tokenizer.decode
        top = tuple((decode([token]), value) for token, value in choice.top)
        return TokenLogprob(decode([choice.token]), choice.logprob or 0.0, top)

    # ── adapters ─────────────────────────────────────────────────────────────────────────────────

    def _start_reading(self, slot: Slot) -> None:
        self._reader.submit(self._read, slot)

    def _read(self, slot: Slot) -> None:
        """On the reader's thread."""
        result: dict[str, LoraPair] | AdapterError
        try:
            result = read_adapter(slot.folder.path, self._runtime.target)[1]
        except AdapterInvalid as error:
            result = error
        except Exception as error:  # a worker's outermost edge: a row must never wait for ever
            log.error("reading an adapter failed", exc_info=error)
            result = AdapterInvalid(f"the adapter {slot.folder.name} cannot be read: {error}")
        with self._changed:
            self._arrived.append((slot, result))
            self._changed.notify()

    def _install(self) -> None:
        """Between steps: what was read moves to the device."""
        with self._changed:
            arrived, self._arrived = self._arrived, []
        for slot, result in arrived:
            if isinstance(result, AdapterError):
                with self._changed:
                    self._drop_failed(slot, result)
                continue
            weights = self._runtime.layers.prepare(slot.id, result, self._runtime.like)
            with self._changed:
                self._slots.fill(slot, weights)
                for waiter in slot.waiters:
                    waiter.set_result(None)
                slot.waiters = []
                log.info("adapter %s@%s is loaded", slot.folder.name, slot.folder.version)

    def _drop_failed(self, slot: Slot, error: Exception) -> None:
        for row in (*self._scheduler.waiting, *self._scheduler.running):
            if row.slot is slot:
                self._scheduler.finish(row, time.monotonic())
                row.emit(type(error)(str(error)))
        self._slots.fail(slot)
        for waiter in slot.waiters:
            waiter.set_exception(type(error)(str(error)))
        slot.waiters = []

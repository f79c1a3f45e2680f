"""The model thread: plan, forward, choose tokens, tell; and what others may ask of it.

All shared state stands behind one lock, which is never held while the model computes, so a call from the
event loop waits for microseconds. Knows nothing of asyncio, HTTP or folders' meaning.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch

from server.config import EngineSettings
from server.engine.adapters.manager import AdapterRack
from server.engine.adapters.slots import Slot
from server.engine.cache.kv import KVBudget, rounded
from server.engine.cache.prefix import BlockPool, PrefixIndex, block_bytes
from server.engine.forward.chunk import Part
from server.engine.runtime import Runtime
from server.engine.sampling.sampler import Choice, choose_tokens
from server.engine.scheduling.batch_window import Gathering
from server.engine.scheduling.prefill_budget import Pace
from server.engine.scheduling.row import Row, RowState
from server.engine.scheduling.scheduler import Departure, Plan, PlannedPart, Scheduler
from server.engine.stats import EngineStats
from server.errors import EngineBusy, EngineDown, EngineError
from server.types import EngineHealth, FinishReason, GenerationDone, TokenDelta, TokenLogprob, Usage

log = logging.getLogger("tailor.engine")

_RETRY_S = 1.0       # between tries to bring a failed model back while nobody asks
_STUCK_S = 120.0     # a step that takes longer is reported as failed


class Runner:
    """Call `serve` on the model thread; everything else is safe from any thread."""

    def __init__(self, runtime: Runtime, settings: EngineSettings, flush: Callable[[], None]) -> None:
        """`flush` is called after each step: what rows have emitted may go out."""
        self._runtime = runtime
        self._flush = flush
        self._settings = settings
        self._changed = threading.Condition()
        self.rack = AdapterRack(runtime.path.bank, runtime.target, settings, self._changed)
        arena = runtime.path.arena
        blocks = settings.prefix_bytes // block_bytes(arena.shape) if arena is not None else 0
        self._prefix = PrefixIndex(blocks)
        self._pool = BlockPool(arena.shape, blocks) if arena is not None and blocks else None
        self._eager = runtime.card.device != "cpu"
        self._budget = KVBudget(settings.kv_bytes, runtime.bytes_per_token, settings.max_batch, eager=self._eager)
        self._scheduler = Scheduler(
            settings, self._budget, self.rack.slots, self._prefix, self.rack.read, chunked=runtime.path.chunked
        )
        self._pace = Pace(settings.prefill_tokens)
        self.gathering = Gathering(self._changed, settings.max_batch)
        self._stopping = False
        self._failure = ""
        self._step_began: float | None = None
        self._counts: Counter[str] = Counter()
        self._step_s = 0.0

    # ── what others ask ──────────────────────────────────────────────────────────────────────────

    def submit(self, row: Row) -> None:
        """Raises EngineBusy, EngineDown."""
        with self._changed:
            if self._stopping:
                raise EngineDown("the engine is shutting down")
            try:
                self._scheduler.submit(row)
            except EngineBusy:
                self._counts["refused"] += 1
                raise
            self._changed.notify()

    def cancel(self, row: Row) -> None:
        """The row is gone before the model's next step; nothing more is emitted for it."""
        with self._changed:
            if row.state is not RowState.FINISHED and not row.cancelled:
                row.cancelled = True
                self._counts["cancelled"] += 1
            self._changed.notify()

    def health(self) -> EngineHealth:
        with self._changed:
            reason = self._failure
            if self._stopping:
                reason = "the engine has been stopped"
            began = self._step_began
            if began is not None and time.monotonic() - began > _STUCK_S:
                reason = f"the model's current step has taken {time.monotonic() - began:.0f} s"
            return EngineHealth(not reason, len(self._scheduler.running), len(self._scheduler.waiting), reason)

    def stats(self) -> EngineStats:
        with self._changed:
            settings, counts = self._settings, self._counts
            block = self._pool.block_bytes if self._pool is not None else 0
            return EngineStats(
                running=len(self._scheduler.running), max_batch=settings.max_batch,
                waiting=len(self._scheduler.waiting), max_waiting=settings.max_waiting,
                kv_bytes=self._budget.used * self._budget.bytes_per_token,
                max_kv_bytes=self._budget.total * self._budget.bytes_per_token,
                prefix_bytes=len(self._prefix) * block, max_prefix_bytes=self._prefix.capacity * block,
                adapters=len(self.rack.slots), max_adapters=settings.max_loras,
                adapter_bytes=self.rack.slots.bytes, max_adapter_bytes=settings.adapter_bytes,
                max_per_user=settings.max_per_user, max_tokens=settings.max_tokens,
                preempted=self._scheduler.preempted, step_s=self._step_s,
                **{name: counts[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "finished",
                                                   "cancelled", "failed", "refused", "steps", "restarts")},
            )

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
                self._flush()
        self.rack.close()
        with self._changed:
            self._end_rows((*self._scheduler.waiting, *self._scheduler.running), "the engine has been stopped")
            for slot in self.rack.slots:
                self._drop_failed(slot, EngineDown("the engine has been stopped"))
        self._flush()

    def _turn(self) -> None:
        began = time.monotonic()
        self._tidy()
        with self._changed:
            now = time.monotonic()
            plan = self._scheduler.plan(now, lambda writing: self._pace.room(writing, now - began))
            self._flush()
            if not (plan.parts or self._scheduler.departures):
                self._rest()
                if not self._failure:
                    return
            self._step_began = time.monotonic()
            departures = self._scheduler.take_departures()
        self._keep(departures)
        if plan.parts:
            self._step(plan)
        elif self._failure and not self._stopping:
            self._runtime.path.run([Part((0,), 0, 0)])
        with self._changed:
            self._step_began = None
            if self._failure:
                log.info("the model works again")
                self._counts["restarts"] += 1
            self._failure = ""

    def _rest(self) -> None:
        """With nothing to compute: until something happens. Holds the lock."""
        if self.rack.moving or self._stopping:
            return
        idle = not self._scheduler.waiting
        self._changed.wait(_RETRY_S if self._failure or not idle else None)
        if idle:
            self.gathering.wait(self._scheduler.waiting, lambda: self._stopping)

    def _tidy(self) -> None:
        """Between steps: rows that left are kept for others, adapters come and go."""
        with self._changed:
            self._scheduler.reap(time.monotonic())
            departures = self._scheduler.take_departures()
        self._keep(departures)
        for load in self.rack.clear():
            with self._changed:
                self._prefix.drop(load)
        for slot, error in self.rack.install(one=bool(self._scheduler.running)):  # one a step beside answers
            with self._changed:
                self._drop_failed(slot, error)

    def _keep(self, departures: Iterable[Departure]) -> None:
        for departure in departures:
            self._save(departure.load, departure.tokens, departure.place)
            self._runtime.path.forget(departure.place)

    def _save(self, load: int, tokens: Sequence[int], place: int) -> None:
        """The whole blocks of what a row has computed go to the prefix store."""
        arena = self._runtime.path.arena
        if self._pool is not None and arena is not None and arena.sound(place, len(tokens)):
            with self._changed:
                blocks = self._prefix.add(load, tokens)
            if blocks:
                self._pool.save(arena, place, blocks)

    def _step(self, plan: Plan) -> None:
        began = time.monotonic()
        self._arrange(plan)
        work, wanted = [], []
        for part in plan.parts:
            row = part.row
            last = len(part.tokens) == row.pending
            assert row.grant is not None  # narrows a type: it runs
            lora = row.slot.place if row.slot is not None else None
            work.append(Part(part.tokens, row.grant.place, row.computed, lora, last))
            if last:
                wanted.append(row)
        logits = self._runtime.path.run(work)
        for part in plan.parts:
            part.row.computed += len(part.tokens)
        self._choose(wanted, logits)
        self._flush()  # who reads need not wait for the store
        self._keep_prompts(plan.parts)  # of those that gave usable numbers
        took = time.monotonic() - began
        self._pace.note(took, [len(part.tokens) for part in plan.parts])
        self._counts["steps"] += 1
        self._step_s += took

    def _arrange(self, plan: Plan) -> None:
        """Memory for the step, and what the prefix store has of the rows that came."""
        arena = self._runtime.path.arena
        if arena is None:
            return
        with self._changed:
            room, live, compact = self._budget.room, self._budget.live(), self._budget.compact
            self._budget.compact = False
        places = rounded(max(live, default=0) + 1) + 1 if self._eager else self._settings.max_batch
        arena.fit(places, room, live, compact=compact)
        for arrival in plan.arrivals:
            arena.scrub(arrival.place, arrival.stale)
            if arrival.blocks and self._pool is not None:
                self._pool.load(arena, arrival.place, arrival.blocks)

    def _keep_prompts(self, parts: Iterable[PlannedPart]) -> None:
        for part in parts:
            row = part.row
            if len(part.tokens) > 1 and row.grant is not None:
                self._save(row.load, row.known[:row.computed], row.grant.place)

    def _fail(self, error: Exception) -> None:
        log.error("the model's step failed", exc_info=error)
        reason = f"the model failed in this step ({type(error).__name__}: {error})"
        with self._changed:
            self._step_began = None
            self._failure = reason
            self._prefix.clear()  # whatever the fault has touched
            self._counts["failed"] += len(self._scheduler.running)
            self._end_rows(tuple(self._scheduler.running), f"{reason}; try again")

    def _end_rows(self, rows: Iterable[Row], reason: str) -> None:
        for row in rows:
            self._scheduler.finish(row, time.monotonic(), keep=False)
            if not row.cancelled:
                row.emit(EngineDown(reason))

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────

    def _choose(self, rows: list[Row], logits: torch.Tensor) -> None:
        for row, choice in zip(rows, choose_tokens([row.sampler for row in rows], logits), strict=True):
            if row.cancelled:
                continue
            if isinstance(choice, EngineError):
                with self._changed:
                    self._scheduler.finish(row, time.monotonic(), keep=False)
                self._counts["failed"] += 1
                row.emit(choice)
            else:
                self._advance(row, choice)

    def _advance(self, row: Row, choice: Choice) -> None:
        """Takes a new token in; tells what can be shown, and ends the row where it must end."""
        row.known.append(choice.token)
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
        elif row.answered >= row.max_tokens:
            self._end(row, FinishReason.LENGTH)

    def _tell(self, row: Row, text: str) -> None:
        if text:
            row.emit(TokenDelta(text, row.unshown, tuple(row.unshown_logprobs)))
            row.unshown = 0
            row.unshown_logprobs = []

    def _end(self, row: Row, reason: FinishReason) -> None:
        self._tell(row, row.text.flush())
        now = time.monotonic()
        with self._changed:
            self._scheduler.finish(row, now)
        usage = Usage(prompt_tokens=len(row.prompt), completion_tokens=row.answered, cached_tokens=row.cached,
                      queue_s=row.admitted - row.submitted, ttft_s=row.first_token - row.submitted,
                      total_s=now - row.submitted)
        self._counts.update(finished=1, prompt_tokens=usage.prompt_tokens, cached_tokens=usage.cached_tokens,
                            completion_tokens=usage.completion_tokens)
        row.emit(GenerationDone(reason, usage))

    def _logprob(self, choice: Choice) -> TokenLogprob:
        decode = self._runtime.tokenizer.decode
        top = tuple((decode([token]), value) for token, value in choice.top)
        return TokenLogprob(decode([choice.token]), choice.logprob or 0.0, top)

    def _drop_failed(self, slot: Slot, error: Exception) -> None:
        for row in (*self._scheduler.waiting, *self._scheduler.running):
            if row.slot is slot:
                self._scheduler.finish(row, time.monotonic())
                row.emit(type(error)(str(error)))
        self.rack.slots.fail(slot, type(error)(str(error)))

"""The thread that owns the model: plan, forward, sample, emit; and what other threads may call.

All shared state is guarded by one lock, which is never held while the model computes, so a call from the
event loop waits for microseconds. Knows nothing of asyncio, HTTP or folders' meaning.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

import torch

from server.config import EngineSettings
from server.engine.adapters.manager import AdapterManager
from server.engine.adapters.slots import Slot
from server.engine.cache.memory import ArenaMemory, KVMemory
from server.engine.cache.pages import KVPages, PagedMemory
from server.engine.forward.chunk import RowChunk
from server.engine.runtime import Runtime
from server.engine.sampling.isolation import isolated
from server.engine.sampling.sampler import WATCHED, Choice, choose_tokens
from server.engine.scheduling.batch_window import BatchWindow
from server.engine.scheduling.prefill_budget import PrefillBudget
from server.engine.scheduling.row import Row, RowState
from server.engine.scheduling.scheduler import Plan, PlannedChunk, Scheduler
from server.engine.stats import EngineStats
from server.errors import EngineBusy, EngineDown, EngineError
from server.types import EngineHealth, FinishReason, GenerationDone, TokenDelta, TokenLogprob, Usage

log = logging.getLogger("tailor.engine")

_RETRY_S = 1.0  # between tries to bring a failed model back while there are no requests
_LEAST_CHUNK = 16  # prompt tokens of a step, below which chunks are not cut where a device has no memory
_STUCK_S = 120.0  # a step that takes longer is reported as failed


class ModelThread:
    """Call `serve` on the model thread; everything else is safe from any thread."""

    def __init__(self, runtime: Runtime, settings: EngineSettings, flush: Callable[[], None]) -> None:
        """`flush` is called after each step: what rows have emitted may go out."""
        self._runtime = runtime
        self._flush = flush
        self._settings = settings
        self._changed = threading.Condition()
        self.adapter_manager = AdapterManager(runtime.path.bank, runtime.target, settings, self._changed)
        self._memory = _memory(runtime, settings, self._changed)
        self._scheduler = Scheduler(
            settings,
            self._memory,
            self.adapter_manager.slots,
            self.adapter_manager.read,
            chunked=runtime.path.chunked,
        )
        self._prefill_budget = PrefillBudget(settings.prefill_tokens, fixed_cost=isinstance(runtime.path.kv, KVPages))
        self.batch_window = BatchWindow(self._changed, settings.max_batch)
        self._stopping = False
        self._failure = ""
        self._step_began: float | None = None
        self._counts: Counter[str] = Counter()
        self._step_s = 0.0

    # ── for any thread ───────────────────────────────────────────────────────────────────────────

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
            use = self._memory.use()
            return EngineStats(
                running=len(self._scheduler.running),
                max_batch=settings.max_batch,
                waiting=len(self._scheduler.waiting),
                max_waiting=settings.max_waiting,
                kv_bytes=use.rows,
                max_kv_bytes=use.max_rows,
                prefix_bytes=use.prefixes,
                max_prefix_bytes=use.max_prefixes,
                adapters=len(self.adapter_manager.slots),
                max_adapters=settings.max_loras,
                adapter_bytes=self.adapter_manager.slots.bytes,
                max_adapter_bytes=settings.adapter_bytes,
                max_per_user=settings.max_per_user,
                max_tokens=settings.max_tokens,
                preempted=self._scheduler.preempted,
                step_s=self._step_s,
                **{
                    name: counts[name]
                    for name in (
                        "prompt_tokens",
                        "cached_tokens",
                        "completion_tokens",
                        "finished",
                        "cancelled",
                        "failed",
                        "refused",
                        "steps",
                        "restarts",
                    )
                },
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
        """Runs until `stop`. A step that fails ends its rows, never the thread."""
        with torch.inference_mode():
            with self._changed:  # requests that came before the thread was ready start together, too
                self.batch_window.wait(self._scheduler.waiting, lambda: self._stopping)
            while not self._stopping:
                try:
                    self._loop_once()
                except Exception as error:  # noqa: BLE001  edge of the thread: a model may raise anything
                    self._fail(error)
                self._flush()
        self.adapter_manager.close()
        with self._changed:
            self._fail_rows((*self._scheduler.waiting, *self._scheduler.running), "the engine has been stopped")
            for slot in self.adapter_manager.slots:
                self._fail_load(slot, EngineDown("the engine has been stopped"))
        self._flush()

    def _loop_once(self) -> None:
        began = time.monotonic()
        self._between_steps()
        with self._changed:
            now = time.monotonic()
            plan = self._scheduler.plan(now, lambda decoding: self._prefill_budget.tokens(decoding, now - began))
            self._flush()
            if not (plan.chunks or self._memory.has_released):
                self._idle()
                if not self._failure:
                    return
            self._step_began = time.monotonic()
        self._memory.settle()
        if plan.chunks:
            self._step(plan)
        elif self._failure and not self._stopping:
            self._probe()
        with self._changed:
            self._step_began = None
            if self._failure:
                log.info("the model works again")
                self._counts["restarts"] += 1
            self._failure = ""

    def _idle(self) -> None:
        """Waits, with nothing to compute, until something happens. The caller holds the lock."""
        if self.adapter_manager.has_pending or self._stopping:
            return
        idle = not self._scheduler.waiting
        self._changed.wait(_RETRY_S if self._failure or not idle else None)
        if idle:
            self.batch_window.wait(self._scheduler.waiting, lambda: self._stopping)

    def _between_steps(self) -> None:
        """What released rows have computed may be shared, adapters are cleared and installed."""
        with self._changed:
            self._scheduler.remove_cancelled(time.monotonic())
        self._memory.settle()
        for load_id in self.adapter_manager.clear_dropped():
            with self._changed:
                self._memory.drop(load_id)
        for slot, error in self.adapter_manager.install(beside_answers=bool(self._scheduler.running)):
            with self._changed:
                self._fail_load(slot, error)

    def _step(self, plan: Plan) -> None:
        began = time.monotonic()
        self._memory.prepare()
        chunks, watched = [], []
        for chunk in plan.chunks:
            row = chunk.row
            last = len(chunk.tokens) == row.pending
            assert row.reservation is not None  # narrows a type: it runs
            stack_index = row.slot.stack_index if row.slot is not None else None
            needs_logits = last or self._memory.verifies
            where = row.reservation
            chunks.append(RowChunk(chunk.tokens, where.kv_slot, row.computed, stack_index, needs_logits, where.pages))
            if needs_logits:
                watched.append((row, last))
        try:
            logits = self._runtime.path.run(chunks)
        except torch.OutOfMemoryError as error:
            self._make_room(plan, error)
            return
        for chunk in plan.chunks:
            chunk.row.computed += len(chunk.tokens)
        self._choose(watched, logits)
        self._flush()  # readers need not wait for what is kept of prompts
        self._publish_prompts(plan.chunks)
        took = time.monotonic() - began
        self._prefill_budget.observe(took, [len(chunk.tokens) for chunk in plan.chunks])
        self._counts["steps"] += 1
        self._step_s += took

    def _make_room(self, plan: Plan, error: torch.OutOfMemoryError) -> None:
        """The device had no memory for what a step computes on the way: smaller chunks of prompts from now on, else one
        row fewer, which continues later. What was written of the step is written again. Raises the error where one
        row alone does not fit."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        prompt = sum(len(chunk.tokens) for chunk in plan.chunks if chunk.row.pending > 1)
        with self._changed:
            most = min(prompt, self._scheduler.prefill_tokens)  # of a model that takes prompts whole, one is longer
            if most > _LEAST_CHUNK:
                self._scheduler.prefill_tokens = self._prefill_budget.limit(max(_LEAST_CHUNK, most // 2))
                remedy = f"chunks of prompts have {self._scheduler.prefill_tokens} tokens at most from now on"
            elif len(self._scheduler.running) > 1:
                self._scheduler.preempt_last()
                self._scheduler.max_batch = max(1, len(self._scheduler.running))
                remedy = f"{self._scheduler.max_batch} answers run together at most from now on"
            else:
                raise error
        log.warning("the device has no memory left for a step: %s (%s)", remedy, str(error).splitlines()[0])

    def _probe(self) -> None:
        """A step of one token, to see whether the model works again."""
        kv_slot, pages = self._memory.prepare_probe()
        self._runtime.path.run([RowChunk((0,), kv_slot, 0, pages=pages)])

    def _publish_prompts(self, chunks: Iterable[PlannedChunk]) -> None:
        """Of rows that gave usable numbers."""
        for chunk in chunks:
            row = chunk.row
            if len(chunk.tokens) > 1 and row.reservation is not None:
                self._memory.publish(row.id, row.load_id, row.tokens[: row.computed])

    def _fail(self, error: Exception) -> None:
        log.error("the model's step failed", exc_info=error)
        reason = f"the model failed in this step ({type(error).__name__}; the server's log says why)"
        with self._changed:
            self._step_began = None
            self._failure = reason
            self._memory.clear()  # whatever the fault has touched
            self._counts["failed"] += len(self._scheduler.running)
            self._fail_rows(tuple(self._scheduler.running), f"{reason}; try again")

    def _fail_rows(self, rows: Iterable[Row], reason: str) -> None:
        for row in rows:
            self._scheduler.finish(row, time.monotonic(), keep=False)
            row.send(EngineDown(reason))

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────

    def _choose(self, rows: list[tuple[Row, bool]], logits: torch.Tensor) -> None:
        """Rows whose logits there are; the last token of a whole prompt or answer is followed by another one."""
        samplers = [row.sampler if last else WATCHED for row, last in rows]
        for (row, last), choice in zip(rows, choose_tokens(samplers, logits), strict=True):
            error: EngineError | None = None
            if isinstance(choice, EngineError):
                error = choice
            else:
                row.verified = row.computed
            if row.cancelled:
                continue
            if not isinstance(choice, EngineError) and last:
                error = isolated(self._advance, row, choice)
            if error is not None:
                with self._changed:
                    self._scheduler.finish(row, time.monotonic(), keep=False)
                self._counts["failed"] += 1
                row.send(error)

    def _advance(self, row: Row, choice: Choice) -> None:
        """Appends a new token; emits the text that is complete, and finishes the row where it must end."""
        row.tokens.append(choice.token)
        row.first_token_at = row.first_token_at or time.monotonic()
        if row.cancelled:
            return
        if choice.token in self._runtime.tokenizer.stop_ids:
            self._finish(row, FinishReason.STOP)
            return
        row.unsent_tokens += 1
        if row.logprobs:
            row.unsent_logprobs.append(self._logprob(choice))
        self._emit_delta(row, row.text.push(choice.token))
        if row.text.stopped or (row.mask is not None and row.mask.complete):
            self._finish(row, FinishReason.STOP)
        elif row.generated >= row.max_tokens:
            self._finish(row, FinishReason.LENGTH)

    def _emit_delta(self, row: Row, text: str) -> None:
        if text:
            row.emit(TokenDelta(text, row.unsent_tokens, tuple(row.unsent_logprobs)))
            row.unsent_tokens = 0
            row.unsent_logprobs = []

    def _finish(self, row: Row, reason: FinishReason) -> None:
        self._emit_delta(row, row.text.flush())
        now = time.monotonic()
        with self._changed:
            self._scheduler.finish(row, now)
        usage = Usage(
            prompt_tokens=len(row.prompt),
            completion_tokens=row.generated,
            cached_tokens=row.cached,
            queue_s=row.admitted_at - row.submitted_at,
            ttft_s=row.first_token_at - row.submitted_at,
            total_s=now - row.submitted_at,
        )
        self._counts.update(
            finished=1,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )
        row.emit(GenerationDone(reason, usage))

    def _logprob(self, choice: Choice) -> TokenLogprob:
        decode = self._runtime.tokenizer.decode
        top = tuple((decode([token]), value) for token, value in choice.top)
        return TokenLogprob(decode([choice.token]), choice.logprob or 0.0, top)

    def _fail_load(self, slot: Slot, error: Exception) -> None:
        for row in (*self._scheduler.waiting, *self._scheduler.running):
            if row.slot is slot:
                self._scheduler.finish(row, time.monotonic())
                row.send(type(error)(str(error)))
        self.adapter_manager.slots.fail(slot, type(error)(str(error)))


def _memory(runtime: Runtime, settings: EngineSettings, lock: threading.Condition) -> KVMemory:
    path = runtime.path
    if isinstance(path.kv, KVPages):
        return PagedMemory(path.kv, settings.max_batch, lock, keeps_prefixes=settings.prefix_bytes > 0)
    return ArenaMemory.of(
        path.kv,
        kv_bytes=settings.kv_bytes,
        prefix_bytes=settings.prefix_bytes,
        bytes_per_token=runtime.bytes_per_token,
        max_rows=settings.max_batch,
        release_slot=path.release,
        lock=lock,
    )

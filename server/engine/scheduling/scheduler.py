"""Chooses who waits, who runs, and which tokens go into the next step.

Knows nothing of text, HTTP, files or tensors. Not thread-safe: the caller holds the engine's lock.

The queue is fair between users, and first come, first served within one (`fair_queue.py`). Only a row that waits for
its adapter, or for a prompt that another row is computing, lets its user's later ones pass. Where running rows outgrow
memory, the one admitted last is preempted and is the next one again; what it has computed goes to the prefix store.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from server.config import EngineSettings
from server.engine.adapters.slots import Slot, SlotState, SlotTable
from server.engine.cache.kv import KV_GRANULARITY
from server.engine.cache.memory import KVMemory
from server.engine.cache.prefix import BLOCK_SIZE
from server.engine.scheduling.fair_queue import FairQueue
from server.engine.scheduling.row import Row, RowState
from server.errors import AdapterInvalid, EngineBusy
from server.types import Queued

_SLOT_PATIENCE_S = 2.0  # after it, later rows no longer take the slots that a waiting row needs
_MIN_CHUNK = 16
_PREFILL_WEIGHT = 3  # a row that waits for its first token counts as so many that wait for their next one
_OTHER_ADAPTER_TOKENS = 16  # a prompt of an adapter no other has in its step costs as much as so many more tokens
_MIN_SHARED_TOKENS = 2 * BLOCK_SIZE  # tokens another row computes now, for which an equal prompt is held back


@dataclass(frozen=True)
class PlannedChunk:
    row: Row
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    chunks: list[PlannedChunk] = field(default_factory=list)


class Scheduler:
    """`start_reading(slot)` is called once for each slot whose adapter must be read from disk; it must not block."""

    def __init__(
        self,
        settings: EngineSettings,
        memory: KVMemory,
        slots: SlotTable,
        start_reading: Callable[[Slot], None],
        *,
        chunked: bool,
    ) -> None:
        self._settings = settings
        self.max_batch = settings.max_batch  # of a device that turns out to have less memory, fewer …
        self.prefill_tokens = settings.prefill_tokens  # … and smaller chunks
        self._memory = memory
        self._slots = slots
        self._start_reading = start_reading
        self._chunked = chunked
        self.waiting = FairQueue()
        self.running: list[Row] = []
        self.preempted = 0
        self._turns = itertools.count(1)

    # ── submit and finish ────────────────────────────────────────────────────────────────────────

    def submit(self, row: Row) -> None:
        """Raises EngineBusy."""
        settings = self._settings
        own = sum(1 for other in (*self.waiting, *self.running) if other.user == row.user)
        if row.user is not None and own >= settings.max_per_user:
            raise EngineBusy(
                f"{own} of your answers are running or waiting, which is the most for one user "
                "(engine.max_per_user): wait for one to end or stop it"
            )
        capacity = settings.max_waiting + max(0, self.max_batch - len(self.running))
        if len(self.waiting) >= capacity:
            raise EngineBusy(
                f"{len(self.waiting)} answers are waiting, which is the most (engine.max_waiting): "
                "try again in a moment"
            )
        self.waiting.add(row)

    def finish(self, row: Row, now: float, *, keep: bool = True) -> None:
        """Takes a row out, wherever it is, and frees all it held. Does nothing the second time. `keep`: what
        it has computed is valid and may go to the prefix store."""
        if row.state is RowState.FINISHED:
            return
        if row.state is RowState.RUNNING:
            self._release(row, keep=keep)
        else:
            self.waiting.remove(row)
        row.state = RowState.FINISHED
        if row.slot is not None:
            self._slots.release(row.slot, now)
            row.slot = None

    def _release(self, row: Row, *, keep: bool) -> None:
        """Takes a row out of the running ones and frees its KV reservation."""
        self.running.remove(row)
        kept = row.verified if self._memory.verifies else row.computed
        self._memory.release(row.id, row.load_id, row.tokens[:kept] if keep else ())
        row.reservation = None

    def remove_cancelled(self, now: float) -> None:
        """Frees cancelled rows."""
        for row in (*self.waiting, *self.running):
            if row.cancelled:
                self.finish(row, now)

    # ── one step ─────────────────────────────────────────────────────────────────────────────────

    def plan(self, now: float, prefill_budget: Callable[[int], int] | None = None) -> Plan:
        """Admits waiting rows and fills a step: a token for each row that decodes, and prompts' chunks. These have
        `prefill_budget(rows that decode)` tokens together, the setting's where none decodes or where several short
        prompts wait, which are over soon. Rows of one adapter are neighbours, in rising order of its stack index, those
        of the base model first. What was released must have been settled."""
        if not self._grow_or_preempt():  # a slot may be reused once its released row has been settled
            self._admit(now)
        for position, row in enumerate(self.waiting, 1):
            if row.position != position:
                row.position = position
                row.send(Queued(position))
        chunks = [PlannedChunk(row, row.next_tokens(1)) for row in self.running if row.pending == 1]
        budget = self.prefill_tokens
        if prefill_budget is not None and chunks and not self._prefill_at_once(len(chunks)):
            budget = prefill_budget(len(chunks))
        chunks += self._prefill_chunks(budget)
        chunks.sort(key=lambda chunk: chunk.row.slot.stack_index if chunk.row.slot is not None else -1)
        return Plan(chunks)

    def _prefill_at_once(self, decoding: int) -> bool:
        """Whether rows that decode may wait for those that wait for their first token: there are several of these, and
        one step is enough for them all, or they are many and their prompts are short. In small chunks these cost more,
        and a row that starts late still decodes when the others, which could have shared its steps, have ended."""
        left = [row.pending for row in self.running if row.pending > 1]
        step = self.prefill_tokens
        many = _PREFILL_WEIGHT * len(left) >= decoding and sum(left) <= len(left) * step
        return len(left) > 1 and (many or sum(left) <= step)

    def _grow_or_preempt(self) -> bool:
        """Reserves memory for each running row's next token; whether a row had to be preempted for it."""
        preempted = False
        for row in sorted(self.running, key=lambda other: other.turn):
            while row.state is RowState.RUNNING and not self._grow(row):
                self.preempt_last()
                preempted = True
        return preempted

    def _grow(self, row: Row) -> bool:
        if row.reservation is None or len(row.tokens) <= row.reservation.tokens:
            return True
        return self._memory.grow(row.id, len(row.tokens))

    def preempt_last(self, *, keep: bool = True) -> None:
        """As where memory ends, of the rows that run. `keep` as in `finish`."""
        self._preempt(max(self.running, key=lambda other: other.turn), keep=keep)

    def _preempt(self, row: Row, *, keep: bool = True) -> None:
        """Back to the queue, with its answer so far, which it continues later."""
        self._release(row, keep=keep)
        self.preempted += 1
        row.state = RowState.WAITING
        row.computed = row.verified = row.position = 0
        self.waiting.add(row)

    def _admit(self, now: float) -> None:
        blocked: Row | None = None  # the first row that waits for a slot
        held_back = 0  # rows that wait for what another one computes
        for row in tuple(self.waiting):
            if len(self.running) >= self.max_batch:
                break
            if row.folder is not None and row.slot is None:
                starving = blocked is not None and now - blocked.submitted_at > _SLOT_PATIENCE_S
                if starving or not self._acquire_slot(row, now):
                    blocked = blocked or row
                    continue
                if row.state is RowState.FINISHED:
                    continue
            if row.slot is not None and row.slot.state is SlotState.LOADING:
                continue
            if self._computed_elsewhere(row):
                held_back += 1
                if len(self.running) + held_back >= self.max_batch:
                    break  # those held back will fill the batch
                continue
            room = min(len(row.tokens) + KV_GRANULARITY, self._memory.total)
            reservation = self._memory.reserve(row.id, row.load_id, row.tokens, room)
            if reservation is None:
                break  # later rows that are smaller must not pass it for ever
            self.waiting.take(row)
            row.state = RowState.RUNNING
            row.turn = row.turn or next(self._turns)
            row.reservation = reservation
            row.computed = row.verified = reservation.cached
            if not row.admitted_at:
                row.admitted_at = now
                row.cached = row.computed
            self.running.append(row)

    def _acquire_slot(self, row: Row, now: float) -> bool:
        """A row keeps its slot from here on, so that no other one's load can evict it. False: it must wait."""
        assert row.folder is not None  # narrows a type
        try:
            slot = self._slots.reserve(row.folder, row.adapter_bytes, now)
        except AdapterInvalid as error:
            self.finish(row, now)
            row.send(error)
            return True
        if slot is None:
            return False
        row.slot = slot
        self._slots.acquire(slot, now)
        if slot.state is SlotState.LOADING and not slot.reading:
            slot.reading = True
            self._start_reading(slot)
        return True

    def _computed_elsewhere(self, row: Row) -> bool:
        """Whether a running row is about to compute a good part of this row's prompt for others to share."""
        if not self._memory.keeps_prefixes:
            return False
        most = 0
        for other in self.running:
            if other.pending > 1 and other.load_id == row.load_id and other.computed < len(other.tokens) - 1:
                shared = _shared_prefix(row.tokens[:-1], other.tokens)
                if other.computed < shared:
                    most = max(most, shared)
        return most >= _MIN_SHARED_TOKENS and (
            most >= self._memory.cached(row.load_id, row.tokens[:-1]) + _MIN_SHARED_TOKENS
        )

    def _prefill_chunks(self, budget: int) -> list[PlannedChunk]:
        """The oldest prompt gets half of the budget and what the shortest ones leave, among which those of one adapter
        are taken together."""
        rows = [row for row in self.running if row.pending > 1]
        if not rows:
            return []
        if not self._chunked:
            return [PlannedChunk(rows[0], rows[0].next_tokens(rows[0].pending))]
        shares: dict[int, int] = {}
        oldest, *others = rows
        kept = min(oldest.pending, budget // 2 if others else budget)
        budget -= kept
        load_ids = {oldest.load_id}
        while budget and others:
            row = min(others, key=lambda other: other.pending + _OTHER_ADAPTER_TOKENS * (other.load_id not in load_ids))
            others.remove(row)
            share = min(row.pending, budget)
            if share == row.pending or share >= _MIN_CHUNK:
                shares[row.id] = share
                load_ids.add(row.load_id)
                budget -= share
        shares[oldest.id] = min(oldest.pending, kept + budget)
        return [PlannedChunk(row, row.next_tokens(shares[row.id])) for row in rows if row.id in shares]

    # ── integrity ────────────────────────────────────────────────────────────────────────────────

    def check_integrity(self) -> None:
        """Raises ValueError when rows, memory and slots contradict each other."""
        if self._memory.owners() != {row.id for row in self.running}:
            raise ValueError("memory is reserved by other rows than those that run")
        if len(self.running) > self._settings.max_batch:
            raise ValueError("more rows run than there is room for")
        users = Counter(row.slot.id for row in (*self.waiting, *self.running) if row.slot is not None)
        if any(slot.users < users[slot.id] for slot in self._slots):
            raise ValueError("a slot counts fewer users than rows hold it")
        for state, rows in ((RowState.WAITING, self.waiting), (RowState.RUNNING, self.running)):
            if any(row.state is not state for row in rows):
                raise ValueError(f"a row among those {state} is not")
        for row in self.running:
            if row.reservation is None or row.computed > row.reservation.tokens:
                raise ValueError(f"row {row.id} has computed more than it may hold")
        self._memory.check_integrity()
        self._slots.check_integrity()


def _shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens, in whole blocks, both begin with."""
    for begin in range(0, min(len(one), len(other)) // BLOCK_SIZE * BLOCK_SIZE, BLOCK_SIZE):
        if one[begin : begin + BLOCK_SIZE] != other[begin : begin + BLOCK_SIZE]:
            return begin
    return min(len(one), len(other)) // BLOCK_SIZE * BLOCK_SIZE

"""Chooses who waits, who runs, and which tokens go into the next step.

Knows nothing of text, HTTP, files or tensors. Not thread-safe: the caller holds the engine's lock.

Waiting is fair between users: a row's place is its arrival plus some seconds for each other row its user has
here, so that one user's tenth row waits behind another's first, and nobody waits for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from server.config import EngineSettings
from server.engine.kv import KVBudget
from server.engine.sequence import Row, RowState
from server.engine.slots import Slot, SlotState, SlotTable
from server.errors import EngineBusy
from server.types import Queued

_SECONDS_A_ROW = 10.0
_SLOT_PATIENCE_S = 2.0   # after it, later rows stop taking the slots a waiting row needs
_SMALLEST_CHUNK = 16


@dataclass(frozen=True)
class PlannedPart:
    row: Row
    tokens: tuple[int, ...]


class Scheduler:
    """`read(slot)` is called once for each slot whose adapter must be read from disk; it must not block."""

    def __init__(
        self,
        settings: EngineSettings,
        budget: KVBudget,
        slots: SlotTable,
        read: Callable[[Slot], None],
        *,
        chunked: bool,
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._slots = slots
        self._read = read
        self._chunked = chunked
        self.waiting: list[Row] = []
        self.running: list[Row] = []

    # ── coming and going ─────────────────────────────────────────────────────────────────────────

    def submit(self, row: Row) -> None:
        """Raises EngineBusy."""
        settings = self._settings
        own = sum(1 for other in (*self.waiting, *self.running) if other.user == row.user)
        if row.user is not None and own >= settings.max_per_user:
            raise EngineBusy(f"{own} of your answers are running or waiting, which is the most for one user "
                             "(engine.max_per_user): wait for one to end or stop it")
        places = settings.max_waiting + max(0, settings.max_batch - len(self.running))
        if len(self.waiting) >= places:
            raise EngineBusy(f"{len(self.waiting)} answers are waiting, which is the most (engine.max_waiting): "
                             "try again in a moment")
        row.order = row.submitted + _SECONDS_A_ROW * own
        self.waiting.append(row)
        self.waiting.sort(key=lambda other: (other.order, other.id))

    def finish(self, row: Row, now: float) -> None:
        """Takes a row out, wherever it is, and frees all it held. Does nothing the second time."""
        if row.state is RowState.FINISHED:
            return
        (self.waiting if row.state is RowState.WAITING else self.running).remove(row)
        row.state = RowState.FINISHED
        row.cache = None
        self._budget.release(row.id)
        if row.slot is not None:
            self._slots.let_go(row.slot, now)
            row.slot = None

    # ── one step ─────────────────────────────────────────────────────────────────────────────────

    def plan(self, now: float) -> list[PlannedPart]:
        """Frees cancelled rows, admits waiting ones, and fills a step: a token for each row that writes,
        and prompts' chunks. Rows of one adapter stand side by side, those of the base model first."""
        for row in (*self.waiting, *self.running):
            if row.cancelled:
                self.finish(row, now)
        self._admit(now)
        for position, row in enumerate(self.waiting, 1):
            if row.position != position:
                row.position = position
                row.emit(Queued(position))
        parts = [PlannedPart(row, row.next_tokens(1)) for row in self.running if not row.prefill_left]
        parts += self._prefill()
        return sorted(parts, key=lambda part: part.row.slot.id if part.row.slot is not None else 0)

    def _admit(self, now: float) -> None:
        blocked: Row | None = None  # the first row that waits for a slot
        for row in tuple(self.waiting):
            if len(self.running) >= self._settings.max_batch:
                break
            if row.folder is not None and row.slot is None:
                starving = blocked is not None and now - blocked.submitted > _SLOT_PATIENCE_S
                slot = None if starving else self._slots.reserve(row.folder, now)
                if slot is None:
                    blocked = blocked or row
                    continue
                self._claim(row, slot, now)
            if row.slot is not None and row.slot.state is SlotState.LOADING:
                continue
            if not self._budget.reserve(row.id, row.tokens_reserved):
                break  # later rows that are smaller must not pass it for ever
            self.waiting.remove(row)
            row.state = RowState.RUNNING
            row.admitted = now
            self.running.append(row)

    def _claim(self, row: Row, slot: Slot, now: float) -> None:
        """A row keeps its slot from here on, so that no other one's load can push it out."""
        row.slot = slot
        self._slots.hold(slot, now)
        if slot.state is SlotState.LOADING and not slot.reading:
            slot.reading = True
            self._read(slot)

    def _prefill(self) -> list[PlannedPart]:
        """The oldest prompt gets half of the room and what the shortest ones leave."""
        rows = [row for row in self.running if row.prefill_left]
        if not rows:
            return []
        if not self._chunked:
            return [PlannedPart(rows[0], rows[0].next_tokens(len(rows[0].prompt)))]
        room = self._settings.prefill_tokens
        shares: dict[int, int] = {}
        oldest, *others = rows
        kept = min(oldest.prefill_left, room // 2 if others else room)
        room -= kept
        for row in sorted(others, key=lambda other: other.prefill_left):
            share = min(row.prefill_left, room)
            if share and (share == row.prefill_left or share >= _SMALLEST_CHUNK):
                shares[row.id] = share
                room -= share
        shares[oldest.id] = min(oldest.prefill_left, kept + room)
        return [PlannedPart(row, row.next_tokens(shares[row.id])) for row in rows if row.id in shares]

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def check_integrity(self) -> None:
        """Raises ValueError when rows, memory and slots contradict each other."""
        if self._budget.owners() != {row.id for row in self.running}:
            raise ValueError("memory is held by other rows than those that run")
        if self._budget.used > self._budget.total or len(self.running) > self._settings.max_batch:
            raise ValueError("more runs than there is room for")
        users = Counter(row.slot.id for row in (*self.waiting, *self.running) if row.slot is not None)
        if any(slot.users < users[slot.id] for slot in self._slots):
            raise ValueError("a slot counts fewer users than rows hold it")
        for state, rows in ((RowState.WAITING, self.waiting), (RowState.RUNNING, self.running)):
            if any(row.state is not state for row in rows):
                raise ValueError(f"a row among those {state} is not")
        self._slots.check_integrity()

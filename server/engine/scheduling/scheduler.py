"""Chooses who waits, who runs, and which tokens go into the next step.

Knows nothing of text, HTTP, files or tensors. Not thread-safe: the caller holds the engine's lock.

Waiting is fair between users: a row's place is its arrival plus some seconds for each other row its user has
here, so that one user's tenth row waits behind another's first, and nobody waits for ever. Where running rows
outgrow memory, the last to come goes back to wait; what it has computed goes to the prefix store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from server.config import EngineSettings
from server.engine.adapters.slots import Slot, SlotState, SlotTable
from server.engine.cache.kv import GRAIN, KVBudget
from server.engine.cache.prefix import BLOCK, PrefixIndex
from server.engine.scheduling.row import Row, RowState
from server.errors import AdapterInvalid, EngineBusy
from server.types import Queued

_SECONDS_A_ROW = 10.0
_SLOT_PATIENCE_S = 2.0   # after it, later rows stop taking the slots a waiting row needs
_SMALLEST_CHUNK = 16
_WEIGHT_OF_WAITING = 3   # who sees nothing yet counts as so many who wait for their next token
_OTHER_ADAPTER = 16      # a prompt of an adapter no other has in its step costs as much as so many more tokens
_WORTH_WAITING = 2 * BLOCK   # tokens another row computes now, for which an equal prompt is held back


@dataclass(frozen=True)
class PlannedPart:
    row: Row
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Departure:
    """A row has left; the first `tokens` of the arena's `place` are what it computed."""

    load: int
    tokens: tuple[int, ...]
    place: int


@dataclass(frozen=True)
class Arrival:
    """A row has come to a place where an earlier one may have left `stale` tokens; `blocks` of the prefix
    store are its beginning."""

    place: int
    stale: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    parts: list[PlannedPart] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)


class Scheduler:
    """`read(slot)` is called once for each slot whose adapter must be read from disk; it must not block.

    `departures` collects what may be kept of rows that left; the model thread takes it before each plan."""

    def __init__(
        self,
        settings: EngineSettings,
        budget: KVBudget,
        slots: SlotTable,
        prefix: PrefixIndex,
        read: Callable[[Slot], None],
        *,
        chunked: bool,
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._slots = slots
        self._prefix = prefix
        self._read = read
        self._chunked = chunked
        self.waiting: list[Row] = []
        self.running: list[Row] = []
        self.departures: list[Departure] = []
        self.preempted = 0

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
        self._wait(row)

    def _wait(self, row: Row) -> None:
        self.waiting.append(row)
        self.waiting.sort(key=lambda other: (other.order, other.id))

    def finish(self, row: Row, now: float, *, keep: bool = True) -> None:
        """Takes a row out, wherever it is, and frees all it held. Does nothing the second time. `keep`: what
        it has computed is sound and may serve others."""
        if row.state is RowState.FINISHED:
            return
        if row.state is RowState.RUNNING:
            self._leave(row, keep=keep)
        else:
            self.waiting.remove(row)
        row.state = RowState.FINISHED
        if row.slot is not None:
            self._slots.let_go(row.slot, now)
            row.slot = None

    def _leave(self, row: Row, *, keep: bool) -> None:
        """Out of the running rows."""
        self.running.remove(row)
        if row.grant is not None:
            computed = tuple(row.known[:row.computed]) if keep else ()
            self.departures.append(Departure(row.load, computed, row.grant.place))
        self._budget.release(row.id)
        row.grant = None

    def reap(self, now: float) -> None:
        """Frees cancelled rows."""
        for row in (*self.waiting, *self.running):
            if row.cancelled:
                self.finish(row, now)

    def take_departures(self) -> list[Departure]:
        departures, self.departures = self.departures, []
        return departures

    # ── one step ─────────────────────────────────────────────────────────────────────────────────

    def plan(self, now: float, beside: Callable[[int], int] | None = None) -> Plan:
        """Admits waiting rows and fills a step: a token for each row that writes, and prompts' chunks. These have
        `beside(rows that write)` tokens together, the setting's where none writes or where several short prompts
        wait, which are over soon. Rows of one adapter stand side by side in rising order of its place, those of the
        base model first. `departures` must be empty."""
        crowded = self._make_room()
        arrivals = [] if crowded else self._admit(now)  # a place may be given away once it has been looked through
        for position, row in enumerate(self.waiting, 1):
            if row.position != position:
                row.position = position
                row.emit(Queued(position))
        parts = [PlannedPart(row, row.next_tokens(1)) for row in self.running if row.pending == 1]
        room = self._settings.prefill_tokens
        if beside is not None and parts and not self._burst(len(parts)):
            room = beside(len(parts))
        parts += self._prefill(room)
        parts.sort(key=lambda part: part.row.slot.place if part.row.slot is not None else -1)
        return Plan(parts, arrivals)

    def _burst(self, writing: int) -> bool:
        """Whether those who write may wait for those who wait for their first token: there are several, and one step
        does for them all, or they are many and their prompts are short. In small chunks these cost more, and who
        starts late writes on when the others, who could have shared its steps, have ended."""
        left = [row.pending for row in self.running if row.pending > 1]
        step = self._settings.prefill_tokens
        many = _WEIGHT_OF_WAITING * len(left) >= writing and sum(left) <= len(left) * step
        return len(left) > 1 and (many or sum(left) <= step)

    def _make_room(self) -> bool:
        """Gives each running row room for its next token; whether a row had to go back for it."""
        crowded = False
        for row in sorted(self.running, key=lambda other: (other.order, other.id)):
            while row.state is RowState.RUNNING and not self._grown(row):
                self._preempt(max(self.running, key=lambda other: (other.order, other.id)))
                crowded = True
        return crowded

    def _grown(self, row: Row) -> bool:
        if row.grant is None or len(row.known) <= row.grant.tokens:
            return True
        more = len(row.known) + len(row.known) // 4
        return self._budget.grow(row.id, more) or self._budget.grow(row.id, len(row.known))

    def _preempt(self, row: Row) -> None:
        """Back to wait, with its answer so far; it comes back where it was."""
        self._leave(row, keep=True)
        self.preempted += 1
        row.state = RowState.WAITING
        row.computed = row.position = 0
        self._wait(row)

    def _admit(self, now: float) -> list[Arrival]:
        arrivals: list[Arrival] = []
        blocked: Row | None = None  # the first row that waits for a slot
        held_back = 0               # rows that wait for what another one computes
        for row in tuple(self.waiting):
            if len(self.running) >= self._settings.max_batch:
                break
            if row.folder is not None and row.slot is None:
                starving = blocked is not None and now - blocked.submitted > _SLOT_PATIENCE_S
                if starving or not self._claim(row, now):
                    blocked = blocked or row
                    continue
                if row.state is RowState.FINISHED:
                    continue
            if row.slot is not None and row.slot.state is SlotState.LOADING:
                continue
            blocks = self._prefix.match(row.load, row.known[:-1])  # the last token's logits must be computed
            if self._computed_elsewhere(row, len(blocks) * BLOCK):
                held_back += 1
                if len(self.running) + held_back >= self._settings.max_batch:
                    break  # those held back will fill the batch
                continue
            grant = self._budget.reserve(row.id, min(len(row.known) + GRAIN, self._budget.total))
            if grant is None:
                break  # later rows that are smaller must not pass it for ever
            self.waiting.remove(row)
            row.state = RowState.RUNNING
            row.grant = grant
            row.computed = len(blocks) * BLOCK
            if not row.admitted:
                row.admitted = now
                row.cached = row.computed
            self.running.append(row)
            arrivals.append(Arrival(grant.place, grant.stale, tuple(blocks)))
        return arrivals

    def _claim(self, row: Row, now: float) -> bool:
        """A row keeps its slot from here on, so that no other one's load can push it out. False: it must wait."""
        assert row.folder is not None  # narrows a type
        try:
            slot = self._slots.reserve(row.folder, row.adapter_bytes, now)
        except AdapterInvalid as error:
            self.finish(row, now)
            row.emit(error)
            return True
        if slot is None:
            return False
        row.slot = slot
        self._slots.hold(slot, now)
        if slot.state is SlotState.LOADING and not slot.reading:
            slot.reading = True
            self._read(slot)
        return True

    def _computed_elsewhere(self, row: Row, have: int) -> bool:
        """Whether a running row is about to compute a good part of this row's prompt for the prefix store."""
        if not self._prefix.capacity:
            return False
        for other in self.running:
            if other.pending > 1 and other.load == row.load and other.computed < len(other.known) - 1:
                alike = _alike(row.known[:-1], other.known)
                if alike >= have + _WORTH_WAITING and other.computed < alike:
                    return True
        return False

    def _prefill(self, room: int) -> list[PlannedPart]:
        """The oldest prompt gets half of the room and what the shortest ones leave, among which those of one adapter
        are taken together."""
        rows = [row for row in self.running if row.pending > 1]
        if not rows:
            return []
        if not self._chunked:
            return [PlannedPart(rows[0], rows[0].next_tokens(rows[0].pending))]
        shares: dict[int, int] = {}
        oldest, *others = rows
        kept = min(oldest.pending, room // 2 if others else room)
        room -= kept
        loads = {oldest.load}
        while room and others:
            row = min(others, key=lambda other: other.pending + _OTHER_ADAPTER * (other.load not in loads))
            others.remove(row)
            share = min(row.pending, room)
            if share == row.pending or share >= _SMALLEST_CHUNK:
                shares[row.id] = share
                loads.add(row.load)
                room -= share
        shares[oldest.id] = min(oldest.pending, kept + room)
        return [PlannedPart(row, row.next_tokens(shares[row.id])) for row in rows if row.id in shares]

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def check_integrity(self) -> None:
        """Raises ValueError when rows, memory and slots contradict each other."""
        if self._budget.owners() != {row.id for row in self.running}:
            raise ValueError("memory is held by other rows than those that run")
        if len(self.running) > self._settings.max_batch:
            raise ValueError("more runs than there is room for")
        users = Counter(row.slot.id for row in (*self.waiting, *self.running) if row.slot is not None)
        if any(slot.users < users[slot.id] for slot in self._slots):
            raise ValueError("a slot counts fewer users than rows hold it")
        for state, rows in ((RowState.WAITING, self.waiting), (RowState.RUNNING, self.running)):
            if any(row.state is not state for row in rows):
                raise ValueError(f"a row among those {state} is not")
        for row in self.running:
            if row.grant is None or row.computed > row.grant.tokens:
                raise ValueError(f"row {row.id} has computed more than it may hold")
        self._budget.check_integrity()
        self._prefix.check_integrity()
        self._slots.check_integrity()


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens, in whole blocks, both begin with."""
    for begin in range(0, min(len(one), len(other)) // BLOCK * BLOCK, BLOCK):
        if one[begin:begin + BLOCK] != other[begin:begin + BLOCK]:
            return begin
    return min(len(one), len(other)) // BLOCK * BLOCK

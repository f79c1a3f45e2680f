"""Which adapters are in memory: a fixed number of slots and of bytes, each slot held by whoever uses it.

A slot that is in use is never freed; among the unused ones the least recently used leaves. Each load has a
fresh id, and a place in the model's stacks that the next load may take. Knows nothing of files or tensors, and
reads nothing. Not thread-safe: the caller locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum

from server.engine.adapters.folders import AdapterFolder
from server.errors import AdapterInvalid


class SlotState(Enum):
    LOADING = "loading"
    LOADED = "loaded"
    GONE = "gone"        # failed, or unloaded: not in the table any more


@dataclass(eq=False)
class Slot:
    """`users` are rows that run or are about to; `id` is never used twice."""

    id: int
    place: int
    folder: AdapterFolder
    bytes: int
    state: SlotState = SlotState.LOADING
    users: int = 0
    last_used: float = 0.0
    reading: bool = False                             # someone has been told to read the files
    waiters: list[Future[None]] = field(default_factory=list)   # told when the load ends, either way


class SlotTable:
    """`left`: slots whose weights must still be cleared away by whoever owns the stacks."""

    def __init__(self, capacity: int, max_bytes: int) -> None:
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.left: list[Slot] = []
        self._slots: dict[int, Slot] = {}
        self._next = 1

    def __iter__(self) -> Iterator[Slot]:
        return iter(tuple(self._slots.values()))

    def __len__(self) -> int:
        return len(self._slots)

    def holding(self, folder: AdapterFolder) -> Slot | None:
        """The slot with exactly these files."""
        return next((slot for slot in self._slots.values() if slot.folder.key == folder.key), None)

    @property
    def bytes(self) -> int:
        return sum(slot.bytes for slot in self._slots.values())

    def reserve(self, folder: AdapterFolder, size: int, now: float) -> Slot | None:
        """The slot of these files, or a new one in state LOADING; None while what is in use leaves no room.

        Raises AdapterInvalid where it could never fit.
        """
        slot = self.holding(folder)
        if slot is None:
            if size > self.max_bytes:
                raise AdapterInvalid(f"the adapter {folder.name} takes {size} bytes, and all adapters together may "
                                     f"take {self.max_bytes}: raise engine.adapter_bytes")
            while not self._room(size):
                unused = [held for held in self._slots.values() if self._may_leave(held)]
                if not unused:
                    return None
                self.drop(min(unused, key=lambda held: held.last_used))
            taken = {held.place for held in self._slots.values()}
            place = next(number for number in range(self.capacity) if number not in taken)
            slot = Slot(self._next, place, folder, size)
            self._next += 1
            self._slots[slot.id] = slot
        slot.last_used = now
        return slot

    def _room(self, size: int) -> bool:
        return len(self._slots) < self.capacity and self.bytes + size <= self.max_bytes

    def fill(self, slot: Slot) -> None:
        if slot.state is not SlotState.LOADING:
            raise ValueError(f"slot {slot.id}: expected {SlotState.LOADING}, got {slot.state}")
        slot.state = SlotState.LOADED
        for waiter in self._waiters(slot):
            waiter.set_result(None)

    def fail(self, slot: Slot, error: Exception) -> None:
        """The load went wrong: whoever held the slot holds it no more, and its waiters are told why."""
        slot.users = 0
        self.drop(slot)
        for waiter in self._waiters(slot):
            waiter.set_exception(error)

    @staticmethod
    def _waiters(slot: Slot) -> list[Future[None]]:
        """Those who still wait: the others have given up, and must not be told."""
        waiters, slot.waiters = slot.waiters, []
        return [waiter for waiter in waiters if waiter.set_running_or_notify_cancel()]

    def hold(self, slot: Slot, now: float) -> None:
        slot.users += 1
        slot.last_used = now

    def let_go(self, slot: Slot, now: float) -> None:
        if slot.state is SlotState.GONE:
            return  # its load failed, and all who waited for it are told
        if slot.users < 1:
            raise ValueError(f"slot {slot.id} is let go more often than it was held")
        slot.users -= 1
        slot.last_used = now

    def drop(self, slot: Slot) -> None:
        """Forgets the slot. Raises ValueError while it is used."""
        if slot.users:
            raise ValueError(f"slot {slot.id} is in use by {slot.users} rows")
        self._slots.pop(slot.id, None)
        slot.state = SlotState.GONE
        self.left.append(slot)

    @staticmethod
    def _may_leave(slot: Slot) -> bool:
        return slot.state is SlotState.LOADED and not slot.users

    def check_integrity(self) -> None:
        """Raises ValueError when the table contradicts itself."""
        if len(self._slots) > self.capacity:
            raise ValueError(f"{len(self._slots)} slots are held, and there are {self.capacity}")
        if len({slot.folder.key for slot in self._slots.values()}) != len(self._slots):
            raise ValueError("two slots hold the same files")
        if len({slot.place for slot in self._slots.values()}) != len(self._slots):
            raise ValueError("two slots share a place")
        if self.bytes > self.max_bytes:
            raise ValueError("adapters take more bytes than they may")
        if any(slot.users < 0 for slot in self._slots.values()):
            raise ValueError("a slot has fewer than no users")

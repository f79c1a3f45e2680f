"""Which adapters are in memory: a fixed number of slots and of bytes; the rows that use a slot are counted.

A slot that is in use is never freed; among the unused ones the least recently used is evicted. Each load has a
fresh id, and an index in the LoRA stacks that the next load may reuse. Knows nothing of files or tensors, and
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
    GONE = "gone"  # failed, or unloaded: not in the table any more


@dataclass(eq=False)
class Slot:
    """`users` are rows that run or are about to; `id` is that of the load and never used twice; `stack_index` is where
    the weights are in the LoRA stacks."""

    id: int
    stack_index: int
    folder: AdapterFolder
    bytes: int
    state: SlotState = SlotState.LOADING
    users: int = 0
    last_used: float = 0.0
    reading: bool = False  # the loader has been asked to read the files
    waiters: list[Future[None]] = field(default_factory=list)  # resolved when the load ends, either way


class SlotTable:
    """`dropped`: slots whose weights the owner of the stacks must still clear."""

    def __init__(self, capacity: int, max_bytes: int) -> None:
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.dropped: list[Slot] = []
        self._slots: dict[int, Slot] = {}
        self._next = 1

    def __iter__(self) -> Iterator[Slot]:
        return iter(tuple(self._slots.values()))

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, folder: AdapterFolder) -> Slot | None:
        """The slot with exactly these files."""
        return next((slot for slot in self._slots.values() if slot.folder.key == folder.key), None)

    @property
    def bytes(self) -> int:
        return sum(slot.bytes for slot in self._slots.values())

    def reserve(self, folder: AdapterFolder, size: int, now: float) -> Slot | None:
        """The slot of these files, or a new one in state LOADING; None while what is in use leaves no capacity.

        Raises AdapterInvalid where it could never fit.
        """
        slot = self.find(folder)
        if slot is None:
            if size > self.max_bytes:
                raise AdapterInvalid(
                    f"the adapter {folder.name} takes {size} bytes, and all adapters together may "
                    f"take {self.max_bytes}: raise engine.adapter_bytes"
                )
            while not self._fits(size):
                unused = [other for other in self._slots.values() if self._evictable(other)]
                if not unused:
                    return None
                self.drop(min(unused, key=lambda other: other.last_used))
            taken = {other.stack_index for other in self._slots.values()}
            stack_index = next(index for index in range(self.capacity) if index not in taken)
            slot = Slot(self._next, stack_index, folder, size)
            self._next += 1
            self._slots[slot.id] = slot
        slot.last_used = now
        return slot

    def _fits(self, size: int) -> bool:
        return len(self._slots) < self.capacity and self.bytes + size <= self.max_bytes

    def mark_loaded(self, slot: Slot) -> None:
        if slot.state is not SlotState.LOADING:
            raise ValueError(f"slot {slot.id}: expected {SlotState.LOADING}, got {slot.state}")
        slot.state = SlotState.LOADED
        for waiter in self._waiters(slot):
            waiter.set_result(None)

    def fail(self, slot: Slot, error: Exception) -> None:
        """The load failed: its users hold the slot no more, and its waiters get the error."""
        slot.users = 0
        self.drop(slot)
        for waiter in self._waiters(slot):
            waiter.set_exception(error)

    @staticmethod
    def _waiters(slot: Slot) -> list[Future[None]]:
        """Those that still wait: cancelled futures must not be resolved."""
        waiters, slot.waiters = slot.waiters, []
        return [waiter for waiter in waiters if waiter.set_running_or_notify_cancel()]

    def acquire(self, slot: Slot, now: float) -> None:
        slot.users += 1
        slot.last_used = now

    def release(self, slot: Slot, now: float) -> None:
        if slot.state is SlotState.GONE:
            return  # its load failed, and `fail` has taken its users off
        if slot.users < 1:
            raise ValueError(f"slot {slot.id} is released more often than it was acquired")
        slot.users -= 1
        slot.last_used = now

    def drop(self, slot: Slot) -> None:
        """Takes the slot out of the table. Raises ValueError while it is used."""
        if slot.users:
            raise ValueError(f"slot {slot.id} is in use by {slot.users} rows")
        self._slots.pop(slot.id, None)
        slot.state = SlotState.GONE
        self.dropped.append(slot)

    @staticmethod
    def _evictable(slot: Slot) -> bool:
        return slot.state is SlotState.LOADED and not slot.users

    def check_integrity(self) -> None:
        """Raises ValueError when the table contradicts itself."""
        if len(self._slots) > self.capacity:
            raise ValueError(f"{len(self._slots)} slots are taken, and there are {self.capacity}")
        if len({slot.folder.key for slot in self._slots.values()}) != len(self._slots):
            raise ValueError("two slots hold the same files")
        if len({slot.stack_index for slot in self._slots.values()}) != len(self._slots):
            raise ValueError("two slots share a stack index")
        if self.bytes > self.max_bytes:
            raise ValueError("adapters take more bytes than they may")
        if any(slot.users < 0 for slot in self._slots.values()):
            raise ValueError("a slot has fewer than no users")

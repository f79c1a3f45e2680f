"""Keys and values of running rows, and of beginnings that are kept for the next prompt: one interface, two ways.

`ArenaMemory` is the processor's: a row has one contiguous slot, kept beginnings are copied into blocks of their own
(`kv.py`, `prefix.py`). `PagedMemory` (`pages.py`) is a device's. Knows nothing of queues, text or models.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.engine.cache.kv import KVArena, KVBudget, KVReservation, next_power_of_two
from server.engine.cache.prefix import BLOCK_SIZE, BlockPool, PrefixIndex, block_bytes

_HEADROOM = 4  # a row that grows reserves a quarter more than it has, where that fits


@dataclass(frozen=True)
class MemoryUse:
    """In bytes: of running rows and of kept beginnings, and the most there may be of each."""

    rows: int
    max_rows: int
    prefixes: int
    max_prefixes: int


class KVMemory(Protocol):
    """The caller holds the engine's lock, but for what is marked as the model thread's: that takes it itself.

    `total`: tokens that one row may have at most; `verifies`: what a row computed is kept only as far as logits behind
    it were seen to be finite, so that each chunk's are needed."""

    verifies: bool

    @property
    def total(self) -> int: ...

    @property
    def keeps_prefixes(self) -> bool: ...

    @property
    def has_released(self) -> bool:
        """Whether `settle` has something to do."""

    def cached(self, load_id: int, tokens: Sequence[int]) -> int:
        """How many tokens of the beginning are kept, computed with that load of an adapter."""

    def reserve(self, owner: int, load_id: int, tokens: Sequence[int], room: int) -> KVReservation | None:
        """Room for so many tokens, of which `cached` are there once the step is prepared: the last of `tokens` is
        never one of them, since its logits are needed. None, and nothing reserved, where it does not fit now."""

    def grow(self, owner: int, tokens: int) -> bool:
        """False, and nothing changed, where it does not fit now."""

    def release(self, owner: int, load_id: int, tokens: Sequence[int]) -> None:
        """The row ends; `tokens` are those it has computed and that may be kept."""

    def drop(self, load_id: int) -> None:
        """Forgets all that was computed with that load of an adapter."""

    def clear(self) -> None:
        """Forgets all that is kept."""

    def owners(self) -> frozenset[int]: ...

    def use(self) -> MemoryUse: ...

    def check_integrity(self) -> None:
        """Raises ValueError where what is counted contradicts itself."""

    def settle(self) -> None:
        """On the model thread, before what was released is reserved anew: keeps what released rows have computed."""

    def prepare(self) -> None:
        """On the model thread, before a step: makes room for it, and puts cached beginnings in place. Raises
        RuntimeError where there is no memory."""

    def publish(self, owner: int, load_id: int, tokens: Sequence[int]) -> None:
        """On the model thread: what a running row has computed of its prompt may be shared from now on."""

    def prepare_probe(self) -> tuple[int, Sequence[int]]:
        """On the model thread, while no row runs: slot and pages that one token may be computed in."""


@dataclass(frozen=True)
class _Released:
    load_id: int
    tokens: tuple[int, ...]
    kv_slot: int


@dataclass
class ArenaMemory:
    """`arena` is None for models that keep their own cache: then rows are counted alone. `release_slot` is told of each
    row that has left, on the model thread."""

    arena: KVArena | None
    budget: KVBudget
    prefix: PrefixIndex
    max_rows: int
    release_slot: Callable[[int], None]
    lock: threading.Condition
    verifies: bool = False
    _released: list[_Released] = field(default_factory=list)
    _admitted: list[tuple[KVReservation, tuple[int, ...]]] = field(default_factory=list)  # and its kept blocks

    def __post_init__(self) -> None:
        self._pool = BlockPool(self.arena.shape, self.prefix.capacity) if self.arena and self.prefix.capacity else None

    @classmethod
    def of(
        cls,
        arena: KVArena | None,
        *,
        kv_bytes: int,
        prefix_bytes: int,
        bytes_per_token: int,
        max_rows: int,
        release_slot: Callable[[int], None],
        lock: threading.Condition,
    ) -> ArenaMemory:
        blocks = prefix_bytes // block_bytes(arena.shape) if arena is not None else 0
        budget = KVBudget(kv_bytes, bytes_per_token, max_rows)
        return cls(arena, budget, PrefixIndex(blocks), max_rows, release_slot, lock)

    @property
    def total(self) -> int:
        return self.budget.total

    @property
    def keeps_prefixes(self) -> bool:
        return self.prefix.capacity > 0

    @property
    def has_released(self) -> bool:
        return bool(self._released)

    def cached(self, load_id: int, tokens: Sequence[int]) -> int:
        return len(self.prefix.match(load_id, tokens)) * BLOCK_SIZE

    def reserve(self, owner: int, load_id: int, tokens: Sequence[int], room: int) -> KVReservation | None:
        blocks = self.prefix.match(load_id, tokens[:-1])
        reservation = self.budget.reserve(owner, room)
        if reservation is None:
            return None
        reservation.cached = len(blocks) * BLOCK_SIZE
        self._admitted.append((reservation, tuple(blocks)))
        return reservation

    def grow(self, owner: int, tokens: int) -> bool:
        return self.budget.grow(owner, tokens + tokens // _HEADROOM) or self.budget.grow(owner, tokens)

    def release(self, owner: int, load_id: int, tokens: Sequence[int]) -> None:
        reservation = self.budget.release(owner)
        if reservation is not None:
            self._released.append(_Released(load_id, tuple(tokens), reservation.kv_slot))

    def drop(self, load_id: int) -> None:
        self.prefix.drop(load_id)

    def clear(self) -> None:
        self.prefix.clear()

    def owners(self) -> frozenset[int]:
        return self.budget.owners()

    def use(self) -> MemoryUse:
        block = self._pool.block_bytes if self._pool is not None else 0
        token = self.budget.bytes_per_token
        return MemoryUse(
            self.budget.used * token, self.total * token, len(self.prefix) * block, self.prefix.capacity * block
        )

    def check_integrity(self) -> None:
        self.budget.check_integrity()
        self.prefix.check_integrity()

    # ── on the model thread ──────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        with self.lock:
            released, self._released = self._released, []
        for row in released:
            self._keep(row.load_id, row.tokens, row.kv_slot)
            self.release_slot(row.kv_slot)

    def prepare(self) -> None:
        with self.lock:
            admitted, self._admitted = self._admitted, []
            capacity, live, compact = self.budget.longest, self.budget.live(), self.budget.needs_compaction
            self.budget.needs_compaction = False
        if self.arena is None:
            return
        self.arena.fit(self.max_rows, capacity, live, compact=compact)
        for reservation, blocks in admitted:
            self.arena.scrub(reservation.kv_slot, reservation.stale_tokens)
            if blocks and self._pool is not None:
                self._pool.load(self.arena, reservation.kv_slot, blocks)

    def publish(self, owner: int, load_id: int, tokens: Sequence[int]) -> None:
        self._keep(load_id, tokens, self.budget.slot_of(owner))

    def _keep(self, load_id: int, tokens: Sequence[int], kv_slot: int) -> None:
        """The whole blocks of what a row has computed go to the prefix store."""
        if self._pool is None or self.arena is None or not self.arena.all_finite(kv_slot, len(tokens)):
            return
        with self.lock:
            blocks = self.prefix.add(load_id, tokens)
        if blocks:
            self._pool.save(self.arena, kv_slot, blocks)

    def prepare_probe(self) -> tuple[int, Sequence[int]]:
        if self.arena is not None:
            self.arena.fit(1, next_power_of_two(1), {})  # growing it may be what failed
            self.arena.scrub(0, 1)
        return 0, ()

"""Keys and values of running rows on a processor: the numbers (`KVBudget`) and the tensors (`KVArena`).

A row has a slot in the arena from admission to its end. Its reservation grows as it writes; what a slot has
touched counts as used until the arena is compacted. The budget knows nothing of tensors, the arena
nothing of rows. Shapes: keys [slots, kv heads, capacity, key dim], one tensor a layer.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

KV_GRANULARITY = 64  # tokens: reservations are whole multiples of it


class KVShape(NamedTuple):
    layers: int
    heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        return self.layers * self.heads * (self.key_dim + self.value_dim) * self.dtype.itemsize


def round_up(tokens: int) -> int:
    """To a multiple of `KV_GRANULARITY`."""
    return -(-tokens // KV_GRANULARITY) * KV_GRANULARITY


@dataclass(eq=False)
class KVReservation:
    """A row's part of the memory: how many tokens it may write, of which `cached` are there from the beginning. In an
    arena, a slot, and the `stale_tokens` that an earlier row may have left there; else pages, in the row's order."""

    kv_slot: int
    tokens: int
    stale_tokens: int = 0
    cached: int = 0
    pages: list[int] = field(default_factory=list)


class KVBudget:
    """How many tokens each row may write. Not thread-safe: the caller locks.

    A page of memory that was never written costs nothing, and a slot the most it has held since the last compaction.
    """

    def __init__(self, total_bytes: int, bytes_per_token: int, slots: int) -> None:
        self.total = total_bytes // max(bytes_per_token, 1) // KV_GRANULARITY * KV_GRANULARITY
        self.bytes_per_token = bytes_per_token
        self._reservations: dict[int, KVReservation] = {}
        self._free = set(range(slots))
        self._touched = [0] * slots
        self.needs_compaction = False  # set when old pages must be freed; who compacts clears it

    @property
    def used(self) -> int:
        """Tokens' worth of memory taken now."""
        return sum(self._touched)

    @property
    def longest(self) -> int:
        """Tokens of the longest reservation."""
        return max((reservation.tokens for reservation in self._reservations.values()), default=0)

    def reserve(self, owner: int, tokens: int) -> KVReservation | None:
        """None, and nothing reserved, where it does not fit now."""
        if owner in self._reservations:
            raise ValueError(f"row {owner} has reserved already")
        if not self._free:
            return None
        kv_slot = min(self._free)
        reservation = KVReservation(kv_slot, round_up(tokens), self._touched[kv_slot])
        if not self._take(reservation.kv_slot, reservation.tokens):
            return None
        self._free.remove(reservation.kv_slot)
        self._reservations[owner] = reservation
        return reservation

    def grow(self, owner: int, tokens: int) -> bool:
        """False, and nothing changed, where it does not fit now."""
        reservation = self._reservations[owner]
        if not self._take(reservation.kv_slot, round_up(tokens)):
            return False
        reservation.tokens = round_up(tokens)
        return True

    def release(self, owner: int) -> KVReservation | None:
        """What it had; None where it had nothing."""
        reservation = self._reservations.pop(owner, None)
        if reservation is not None:
            self._free.add(reservation.kv_slot)
        return reservation

    def slot_of(self, owner: int) -> int:
        return self._reservations[owner].kv_slot

    def owners(self) -> frozenset[int]:
        return frozenset(self._reservations)

    def live(self) -> dict[int, int]:
        """Slot → tokens reserved."""
        return {reservation.kv_slot: reservation.tokens for reservation in self._reservations.values()}

    def _take(self, kv_slot: int, tokens: int) -> bool:
        after = list(self._touched)
        after[kv_slot] = max(after[kv_slot], tokens)
        if sum(after) > self.total:  # the pages of rows that have left may be enough
            after = [0] * len(after)
            for slot, reserved in {**self.live(), kv_slot: tokens}.items():
                after[slot] = reserved
            if sum(after) > self.total:
                return False
            self.needs_compaction = True
        self._touched = after
        return True

    def check_integrity(self) -> None:
        """Raises ValueError when slots, reservations and sums contradict each other."""
        slots = [reservation.kv_slot for reservation in self._reservations.values()]
        if len(set(slots)) != len(slots) or self._free & set(slots):
            raise ValueError("two rows share a slot, or a free slot is reserved")
        if len(slots) + len(self._free) != len(self._touched):
            raise ValueError("a slot is lost")
        if any(reservation.tokens > self._touched[reservation.kv_slot] for reservation in self._reservations.values()):
            raise ValueError("a row may write where nothing is counted")
        if self.used > self.total:
            raise ValueError("more is reserved than there is")


@dataclass(eq=False)
class KVArena:
    """The tensors. Only the model thread touches it."""

    shape: KVShape
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    capacity: int = 0  # tokens of each slot
    slots: int = 0
    reallocations: int = 0  # how often the tensors have moved in memory

    def fit(self, slots: int, capacity: int, live: Mapping[int, int], *, compact: bool = False) -> None:
        """Makes that many slots of that capacity; `live` (slot → tokens) says what is kept."""
        if not compact and slots <= self.slots and capacity <= self.capacity:
            return
        slots = max(slots, 0 if compact else self.slots)
        capacity = next_power_of_two(capacity) if compact else max(next_power_of_two(capacity), self.capacity)
        old, self.slots, self.capacity = (self.slots, self.capacity), 0, 0  # what holds if memory runs out half-way
        self.reallocations += 1
        for tensors, dim in ((self.keys, self.shape.key_dim), (self.values, self.shape.value_dim)):
            for layer in range(self.shape.layers):  # one layer at a time: the peak is one layer more
                new = zeros((slots, self.shape.heads, capacity, dim), self.shape)
                if len(tensors) <= layer:
                    tensors.append(new)
                    continue
                for kv_slot, tokens in live.items():
                    if kv_slot < old[0]:
                        kept = min(tokens, old[1])
                        new[kv_slot, :, :kept] = tensors[layer][kv_slot, :, :kept]
                tensors[layer] = new
        self.slots, self.capacity = slots, capacity

    def scrub(self, kv_slot: int, tokens: int) -> None:
        """Zeroes them: rows are computed together up to the longest, and what is masked must still be finite."""
        if tokens:
            for tensor in (*self.keys, *self.values):
                tensor[kv_slot, :, :tokens] = 0

    def all_finite(self, kv_slot: int, tokens: int) -> bool:
        """Whether they are finite numbers: what is not in a layer is not in those above it either."""
        sums = self.keys[-1][kv_slot, :, :tokens].sum(dtype=torch.float32)  # in float16 they would overflow
        return bool(torch.isfinite(sums))

    def write(self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """keys and values [tokens, heads, dim] go to their slots and positions, both [tokens]."""
        self.keys[layer][slots, :, positions] = keys
        self.values[layer][slots, :, positions] = values


class TensorOptions(Protocol):
    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...


def zeros(size: tuple[int, ...], like: TensorOptions) -> Tensor:
    """New memory; on a CPU a page costs nothing until it is written. (`torch.zeros` writes them all.)"""
    count = math.prod(size) * like.dtype.itemsize
    if like.device.type != "cpu" or not count:
        return torch.zeros(size, dtype=like.dtype, device=like.device)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        pages = mmap.mmap(-1, count, **private)
    except (OSError, OverflowError) as error:
        raise RuntimeError(f"there is no memory for {count} bytes: {error}") from error  # as torch says it
    return torch.frombuffer(pages, dtype=like.dtype).view(size)


def next_power_of_two(tokens: int) -> int:
    """The next power of two, at least 256, so that an arena is rarely reallocated."""
    return max(256, 1 << (tokens - 1).bit_length())


def bucket_size(count: int) -> int:
    """0, 1, 2, 4, 8, then multiples of 8: few sizes, so that little is allocated or captured anew."""
    if count <= 8:
        return 1 << (count - 1).bit_length() if count else 0
    return -(-count // 8) * 8

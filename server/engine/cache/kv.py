"""Keys and values of running rows: the numbers (`KVBudget`) and the tensors (`KVArena`).

A row has a place in the arena from admission to its end. Its room grows as it writes; what a place has
touched counts as used until the arena is compacted. The budget knows nothing of tensors, the arena
nothing of rows. Shapes: keys [places, kv heads, room, key dim], one tensor a layer.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

GRAIN = 64  # rooms are whole multiples of it


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


def whole(tokens: int) -> int:
    """Rounded up to the grain."""
    return -(-tokens // GRAIN) * GRAIN


@dataclass(eq=False)
class Grant:
    """A row's part of the arena: a place, and how many tokens may be written there. `stale`: what an
    earlier row may have left."""

    place: int
    tokens: int
    stale: int = 0


class KVBudget:
    """Who may write how much. Not thread-safe: the caller locks.

    `eager`: memory is taken for every place up to the longest room, as devices do; else a page that was
    never written costs nothing, and a place costs the most it has held since the last compaction.
    """

    def __init__(self, total_bytes: int, bytes_per_token: int, places: int, *, eager: bool = False) -> None:
        self.total = total_bytes // max(bytes_per_token, 1) // GRAIN * GRAIN
        self.bytes_per_token = bytes_per_token
        self._eager = eager
        self._grants: dict[int, Grant] = {}
        self._free = set(range(places))
        self._touched = [0] * places
        self.compact = False   # set when old pages must go; the one who compacts clears it

    @property
    def used(self) -> int:
        """Tokens' worth of memory taken now."""
        return self._footprint(self._touched)

    @property
    def room(self) -> int:
        """The longest room that is granted."""
        return max((grant.tokens for grant in self._grants.values()), default=0)

    def reserve(self, owner: int, tokens: int) -> Grant | None:
        """None, and nothing reserved, where it does not fit now."""
        if owner in self._grants:
            raise ValueError(f"row {owner} has reserved already")
        if not self._free:
            return None
        place = min(self._free)
        grant = Grant(place, whole(tokens), self._touched[place])
        if not self._take(grant.place, grant.tokens):
            return None
        self._free.remove(grant.place)
        self._grants[owner] = grant
        return grant

    def grow(self, owner: int, tokens: int) -> bool:
        """False, and nothing changed, where it does not fit now."""
        grant = self._grants[owner]
        if not self._take(grant.place, whole(tokens)):
            return False
        grant.tokens = whole(tokens)
        return True

    def release(self, owner: int) -> None:
        grant = self._grants.pop(owner, None)
        if grant is not None:
            self._free.add(grant.place)

    def owners(self) -> frozenset[int]:
        return frozenset(self._grants)

    def live(self) -> dict[int, int]:
        """Place → tokens granted."""
        return {grant.place: grant.tokens for grant in self._grants.values()}

    def _take(self, place: int, tokens: int) -> bool:
        after = list(self._touched)
        after[place] = max(after[place], tokens)
        if self._footprint(after) > self.total:  # old pages of rows that have left may make room
            after = [0] * len(after)
            for at, held in {**self.live(), place: tokens}.items():
                after[at] = held
            if self._footprint(after) > self.total:
                return False
            self.compact = True
        self._touched = after
        return True

    def _footprint(self, touched: Sequence[int]) -> int:
        if not self._eager:
            return sum(touched)
        places = rounded(max((place + 1 for place, tokens in enumerate(touched) if tokens), default=0))
        return places * doubled(max(touched, default=0)) if places else 0

    def check_integrity(self) -> None:
        """Raises ValueError when places, grants and sums contradict each other."""
        places = [grant.place for grant in self._grants.values()]
        if len(set(places)) != len(places) or self._free & set(places):
            raise ValueError("two rows share a place, or a free place is held")
        if len(places) + len(self._free) != len(self._touched):
            raise ValueError("a place is lost")
        if any(grant.tokens > self._touched[grant.place] for grant in self._grants.values()):
            raise ValueError("a row may write where nothing is counted")
        if self.used > self.total:
            raise ValueError("more is granted than there is")


@dataclass(eq=False)
class KVArena:
    """The tensors. Only the model thread touches it."""

    shape: KVShape
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    room: int = 0
    places: int = 0
    moves: int = 0   # how often the tensors have been replaced

    def fit(self, places: int, room: int, live: Mapping[int, int], *, compact: bool = False) -> None:
        """Makes place for that many rows of that length; `live` (place → tokens) says what is kept."""
        if not compact and places <= self.places and room <= self.room:
            return
        places = max(places, 0 if compact else self.places)
        room = doubled(room) if compact else max(doubled(room), self.room)
        old, self.places, self.room = (self.places, self.room), 0, 0  # what holds if memory runs out half-way
        self.moves += 1
        for held, dim in ((self.keys, self.shape.key_dim), (self.values, self.shape.value_dim)):
            for layer in range(self.shape.layers):  # one layer at a time: the peak is one layer more
                new = zeros((places, self.shape.heads, room, dim), self.shape)
                if len(held) <= layer:
                    held.append(new)
                    continue
                for place, tokens in live.items():
                    if place < old[0]:
                        kept = min(tokens, old[1])
                        new[place, :, :kept] = held[layer][place, :, :kept]
                held[layer] = new
        self.places, self.room = places, room

    def scrub(self, place: int, tokens: int) -> None:
        """Rows are computed side by side up to the longest, and what is hidden must still be a number."""
        if tokens:
            for tensor in (*self.keys, *self.values):
                tensor[place, :, :tokens] = 0

    def sound(self, place: int, tokens: int) -> bool:
        """Whether they are numbers; what is none in a layer is none in those above it."""
        return bool(torch.isfinite(self.keys[-1][place, :, :tokens].sum()))

    def write(self, layer: int, places: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """keys and values [tokens, heads, dim] go to their places and positions, both [tokens]."""
        self.keys[layer][places, :, positions] = keys
        self.values[layer][places, :, positions] = values


class Like(Protocol):
    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...


def zeros(size: tuple[int, ...], like: Like) -> Tensor:
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


def doubled(tokens: int) -> int:
    """The next power of two, at least 256, so that an arena rarely moves."""
    return max(256, 1 << (tokens - 1).bit_length())


def rounded(count: int) -> int:
    """0, 1, 2, 4, 8, then multiples of 8: few sizes, so that little is laid out or recorded anew."""
    if count <= 8:
        return 1 << (count - 1).bit_length() if count else 0
    return -(-count // 8) * 8

"""Keys and values on a device: one pool of pages for running rows and for kept beginnings, taken once at the start.

A row's tokens are in pages, anywhere in the pool (PagedAttention: Kwon et al., 2023, section 4). Pages that a row has
computed form a tree below its adapter's load (RadixAttention: Zheng et al., 2024, section 3): the next row that begins
alike reads whole pages where they are, and copies what it shares of the page in which it differs. The least recently
used leaf that no row reads is overwritten first. Not thread-safe: the caller locks. Knows nothing of models, text or
queues.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from server.engine.cache.kv import KVReservation, KVShape, zeros
from server.engine.cache.memory import MemoryUse

PAGE_SIZE = 256  # tokens; FlashAttention 2 takes multiples of it
_LEAST_SHARED = 16  # tokens of a page for which it is kept, and copied
SPARE_PAGE = 0  # what rows that pad a captured step write to


class KVPages:
    """The tensors, [layers, pages, page size, 2, heads, dim], keys before values; two tensors where they have different
    widths. Only the model thread touches it. `row_pages`: the most that one row has."""

    def __init__(self, shape: KVShape, page_size: int = PAGE_SIZE) -> None:
        self.shape = shape
        self.page_size = page_size
        self.pages = self.row_pages = 0
        self.reallocations = 0  # how often the tensors have moved in memory
        self._keys = self._values = torch.empty(0)
        self._both: Tensor | None = None

    def count(self, tokens: int) -> int:
        """Pages for so many tokens."""
        return -(-tokens // self.page_size)

    def allocate(self, pages: int, row_pages: int) -> None:
        """A new pool; nothing of the old one is kept. Raises RuntimeError where there is no memory for it."""
        shape = self.shape
        self._keys, self._values, self._both = torch.empty(0), torch.empty(0), None  # let go of before
        self.pages = self.row_pages = 0
        self.reallocations += 1
        size = (shape.layers, pages, self.page_size)
        if shape.key_dim == shape.value_dim:
            self._both = zeros((*size, 2, shape.heads, shape.key_dim), shape)
            self._keys, self._values = self._both[:, :, :, 0], self._both[:, :, :, 1]
        else:
            self._keys = zeros((*size, shape.heads, shape.key_dim), shape)
            self._values = zeros((*size, shape.heads, shape.value_dim), shape)
        self.pages, self.row_pages = pages, row_pages

    def keys(self, layer: int) -> Tensor:
        """[pages, page size, heads, key dim]"""
        return self._keys[layer]

    def values(self, layer: int) -> Tensor:
        """[pages, page size, heads, value dim]"""
        return self._values[layer]

    def places(self, layer: int) -> Tensor:
        """Both, a token after the other: [pages · page size, 2, heads, dim]. Keys and values have to be alike."""
        assert self._both is not None  # narrows a type: models of which the decoder is ours have them alike
        return self._both[layer].flatten(0, 1)

    def write(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """keys and values [tokens, heads, dim] go to `places` [tokens]."""
        page, offset = places // self.page_size, places % self.page_size
        self._keys[layer].index_put_((page, offset), keys)
        self._values[layer].index_put_((page, offset), values)

    def copy(self, source: int, target: int, tokens: int) -> None:
        """The first tokens of a page, in all layers."""
        for tensor in (self._keys, self._values) if self._both is None else (self._both,):
            tensor[:, target, :tokens].copy_(tensor[:, source, :tokens])


@dataclass(eq=False)
class KeptPage:
    """A page whose `tokens` others may share; `rows` run on it. `parent` is None below the root of a load."""

    page: int
    load_id: int
    parent: KeptPage | None
    tokens: tuple[int, ...]
    rows: int = 0
    forgotten: bool = False  # no longer in the tree; free once no row runs on it
    children: dict[tuple[int, ...], list[KeptPage]] = field(default_factory=dict)  # by their first tokens


@dataclass(eq=False)
class _PagedRow:
    """A row's pages; `kept` says which of them are in the tree."""

    reservation: KVReservation
    kept: list[KeptPage | None]


class PagedMemory:
    """As `KVMemory`. A page belongs to nobody, to one row, or to the tree."""

    verifies = True

    def __init__(
        self, pages: KVPages, max_rows: int, lock: threading.Condition, *, keeps_prefixes: bool = True
    ) -> None:
        self.keeps_prefixes = keeps_prefixes
        self._pages = pages
        self._size = pages.page_size
        self._max_rows = max_rows
        self._lock = lock
        self.total = min(pages.pages - 1, pages.row_pages) * self._size
        self._free = list(range(pages.pages - 1, SPARE_PAGE, -1))
        self._rows: dict[int, _PagedRow] = {}
        self._roots: dict[int, dict[tuple[int, ...], list[KeptPage]]] = {}  # by load
        self._kept: OrderedDict[KeptPage, None] = OrderedDict()  # least recently used first
        self._copies: list[tuple[int, int, int]] = []  # source, target, tokens

    @property
    def has_released(self) -> bool:
        return False

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────

    def cached(self, load_id: int, tokens: Sequence[int]) -> int:
        whole, _, partial = self._match(load_id, tokens)
        return len(whole) * self._size + partial

    def reserve(self, owner: int, load_id: int, tokens: Sequence[int], room: int) -> KVReservation | None:
        if owner in self._rows:
            raise ValueError(f"row {owner} has reserved already")
        if len(self._rows) >= self._max_rows:
            return None
        whole, source, partial = self._match(load_id, tokens[:-1])
        for page in (*whole, *([source] if source is not None else ())):
            page.rows += 1  # so that none of them is overwritten for this row
        fresh = self._take(self._pages.count(room) - len(whole))
        if source is not None:
            source.rows -= 1
        if fresh is None:
            for page in whole:
                page.rows -= 1
            return None
        if source is not None:
            self._copies.append((source.page, fresh[0], partial))
        pages = [page.page for page in whole] + fresh
        reservation = KVReservation(0, len(pages) * self._size, 0, len(whole) * self._size + partial, pages)
        self._rows[owner] = _PagedRow(reservation, list(whole))
        self._touch([*whole, *([source] if source is not None else ())])
        return reservation

    def grow(self, owner: int, tokens: int) -> bool:
        reservation = self._rows[owner].reservation
        fresh = self._take(self._pages.count(tokens) - len(reservation.pages))
        if fresh is None:
            return False
        reservation.pages += fresh
        reservation.tokens = len(reservation.pages) * self._size
        return True

    def release(self, owner: int, load_id: int, tokens: Sequence[int]) -> None:
        row = self._rows.pop(owner, None)
        if row is None:
            return
        self._keep(row, load_id, tokens)
        for page, kept in zip(row.reservation.pages, self._padded(row), strict=True):
            if kept is None:
                self._free.append(page)
            else:
                kept.rows -= 1
                if kept.forgotten and not kept.rows:
                    self._free.append(page)

    @staticmethod
    def _padded(row: _PagedRow) -> list[KeptPage | None]:
        return row.kept + [None] * (len(row.reservation.pages) - len(row.kept))

    def _take(self, count: int) -> list[int] | None:
        """That many pages, those of the least recently used leaves if need be; None, and nothing changed, where there
        are not so many."""
        if count > len(self._free) and count > len(self._free) + sum(not page.rows for page in self._kept):
            return None
        while len(self._free) < count:
            victim = next((page for page in self._kept if not page.children and not page.rows), None)
            if victim is None:
                return None
            self._forget(victim)
        return [self._free.pop() for _ in range(count)]

    def owners(self) -> frozenset[int]:
        return frozenset(self._rows)

    # ── kept beginnings ──────────────────────────────────────────────────────────────────────────

    def _match(self, load_id: int, tokens: Sequence[int]) -> tuple[list[KeptPage], KeptPage | None, int]:
        """Whole pages that `tokens` begins with; the page that holds most of what follows, and how many tokens."""
        whole: list[KeptPage] = []
        children = self._roots.get(load_id, {})
        while True:
            rest = tuple(tokens[len(whole) * self._size : (len(whole) + 1) * self._size])
            found, shared = _longest(children.get(rest[:_LEAST_SHARED], ()), rest)
            if found is None or shared < self._size:
                return whole, found, shared
            whole.append(found)
            children = found.children

    def publish(self, owner: int, load_id: int, tokens: Sequence[int]) -> None:
        with self._lock:
            self._keep(self._rows[owner], load_id, tokens)

    def _keep(self, row: _PagedRow, load_id: int, tokens: Sequence[int]) -> None:
        """Puts the pages that hold `tokens` into the tree, but for those that are there already."""
        if not self.keeps_prefixes:
            return
        parent: KeptPage | None = None
        chain: list[KeptPage] = []
        for number, page in enumerate(row.reservation.pages):
            part = tuple(tokens[number * self._size : (number + 1) * self._size])
            if len(part) < _LEAST_SHARED:
                break
            own = row.kept[number] if number < len(row.kept) else None
            if own is not None and own.forgotten:
                break
            if own is not None and len(part) > len(own.tokens):
                own.tokens = part  # it has gone on writing there
            found = own or self._find(parent, load_id, part)
            if found is None:
                found = self._add(parent, load_id, part, page)
                row.kept += [None] * (number + 1 - len(row.kept))
                row.kept[number] = found
                found.rows += 1
            chain.append(found)
            if len(found.tokens) < self._size or len(part) < self._size:
                break
            parent = found
        self._touch(chain)

    def _children(self, parent: KeptPage | None, load_id: int) -> dict[tuple[int, ...], list[KeptPage]]:
        return parent.children if parent is not None else self._roots.setdefault(load_id, {})

    def _find(self, parent: KeptPage | None, load_id: int, part: tuple[int, ...]) -> KeptPage | None:
        """A kept page that begins with all of `part`."""
        found, shared = _longest(self._children(parent, load_id).get(part[:_LEAST_SHARED], ()), part)
        return found if shared == len(part) else None

    def _add(self, parent: KeptPage | None, load_id: int, part: tuple[int, ...], page: int) -> KeptPage:
        alike = self._children(parent, load_id).setdefault(part[:_LEAST_SHARED], [])
        for other in tuple(alike):  # shorter beginnings of the same text are not needed any more
            if not other.rows and not other.children and other.tokens == part[: len(other.tokens)]:
                self._forget(other)
        alike = self._children(parent, load_id).setdefault(part[:_LEAST_SHARED], [])
        kept = KeptPage(page, load_id, parent, part)
        alike.append(kept)
        self._kept[kept] = None
        return kept

    def _touch(self, chain: Sequence[KeptPage]) -> None:
        """Leaves first, so that a parent is always newer than its children."""
        for page in reversed(chain):
            self._kept.move_to_end(page)

    def _forget(self, kept: KeptPage) -> None:
        """Takes a page out of the tree; its children have left before."""
        children = self._children(kept.parent, kept.load_id)
        alike = children[kept.tokens[:_LEAST_SHARED]]
        alike.remove(kept)
        if not alike:
            del children[kept.tokens[:_LEAST_SHARED]]
        if not self._roots.get(kept.load_id, True):
            del self._roots[kept.load_id]
        del self._kept[kept]
        kept.forgotten = True
        if not kept.rows:
            self._free.append(kept.page)

    def drop(self, load_id: int) -> None:
        for page in [page for page in self._kept if page.load_id == load_id]:  # children are older than their parents
            self._forget(page)

    def clear(self) -> None:
        for page in list(self._kept):
            self._forget(page)
        self._copies.clear()

    # ── counts ───────────────────────────────────────────────────────────────────────────────────

    def use(self) -> MemoryUse:
        size = self._pages.shape.token_bytes * self._size
        whole = (self._pages.pages - 1) * size
        unused = sum(not page.rows for page in self._kept)
        return MemoryUse(
            whole - (len(self._free) + unused) * size, whole, unused * size, whole if self.keeps_prefixes else 0
        )

    def check_integrity(self) -> None:
        private = [page for row in self._rows.values() for page in self._private(row)]
        read = {kept for row in self._rows.values() for kept in row.kept if kept is not None}
        tree = [*self._kept, *(kept for kept in read if kept.forgotten)]
        if sorted(self._free + private + [kept.page for kept in tree]) != list(range(1, self._pages.pages)):
            raise ValueError("a page is lost or used twice")
        rows = [kept for row in self._rows.values() for kept in row.kept if kept is not None]
        if any(kept.rows != sum(other is kept for other in rows) for kept in tree):
            raise ValueError("a page miscounts the rows that run on it")
        order = {kept: number for number, kept in enumerate(self._kept)}
        for kept in self._kept:
            if kept.parent is not None and order.get(kept.parent, -1) < order[kept]:
                raise ValueError("a page is older than one behind it, or its parent is gone")
            if kept not in self._children(kept.parent, kept.load_id).get(kept.tokens[:_LEAST_SHARED], ()):
                raise ValueError("a kept page cannot be found")
            if kept.children and len(kept.tokens) < self._size:
                raise ValueError("something follows on half a page")

    def _private(self, row: _PagedRow) -> Iterator[int]:
        return (page for page, kept in zip(row.reservation.pages, self._padded(row), strict=True) if kept is None)

    # ── on the model thread ──────────────────────────────────────────────────────────────────────

    def settle(self) -> None: ...

    def prepare(self) -> None:
        with self._lock:
            copies, self._copies = self._copies, []
        for source, target, tokens in copies:  # in their order: a target may have been a source before
            self._pages.copy(source, target, tokens)

    def prepare_probe(self) -> tuple[int, Sequence[int]]:
        return 0, (SPARE_PAGE,)


def _longest(pages: Sequence[KeptPage], tokens: tuple[int, ...]) -> tuple[KeptPage | None, int]:
    """The page that shares most of its beginning with `tokens`, and how much; nothing below `_LEAST_SHARED`."""
    best: KeptPage | None = None
    most = _LEAST_SHARED - 1
    for page in pages:
        shared = _common(page.tokens, tokens)
        if shared > most:
            best, most = page, shared
    return best, most if best is not None else 0


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens both begin with."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(number for number in range(most) if one[number] != other[number])

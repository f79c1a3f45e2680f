"""Adds adapters' weights to the base's linear layers, each to its own rows, in few large products.

Adapters lie in stacks, one place each; layers that share their input (query, key, value; gate, up) share a
group. Rows of one adapter stand side by side in the batch, places in rising order. An adapter with many rows (a
prompt) is a product of its own (compare Punica's segments: Chen et al., 2023). Others are one batched product where
each has as many rows as the next. Where they have not, each row is, on a CPU, a sum of its adapter's rows weighted by
its own numbers, as an embedding bag is; elsewhere rows are padded to equal counts. Only the model thread may use this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers.pytorch_utils import Conv1D

from server.engine.adapters.reading import LoraPair
from server.engine.cache.kv import zeros
from server.errors import AdapterInvalid

_MANY_ROWS = 16       # from here on a segment is a product of its own
_RANK_STEP = 8        # stacks' ranks are multiples of it


class Segment(NamedTuple):
    """Rows [begin, end) of a layer's input belong to the adapter at `place`."""

    place: int
    begin: int
    end: int


class Lot(NamedTuple):
    """Places [first, last) with `rows` each. `source` and `target` are None where rows stand that way
    already, at `begin`; else the row each padded one is copied from, and (padded row, row) of the real ones."""

    first: int
    last: int
    rows: int
    begin: int
    source: Tensor | None
    target: tuple[Tensor, Tensor] | None


class Loose:
    """Rows of adapters that have few each: their numbers in the step, rising, and their adapters' places."""

    def __init__(self, rows: Tensor, places: Tensor) -> None:
        self.rows = rows
        self._places = places
        self._bags: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def sums(self, stack: Tensor, each: int, weights: Tensor) -> Tensor:
        """Of a stack [places, …, width], whose places hold the same number of rows of `width`: for each row of the
        step, the sums of `each` after `each` of its place's rows, weighted → [rows · sums, width]."""
        width, entries = stack.shape[-1], stack[0].numel() // stack.shape[-1]
        known = self._bags.get((entries, each))
        if known is None:
            at = (self._places[:, None] * entries + torch.arange(entries)).flatten().to(torch.int32)
            known = self._bags[entries, each] = at, torch.arange(0, len(at), each, dtype=torch.int32)
        at, begins = known
        return F.embedding_bag(at, stack.view(-1, width), begins, mode="sum", per_sample_weights=weights.reshape(-1))

    def placed(self, stack: Tensor) -> Tensor:
        """The rows' own parts of a stack [places, …] → [rows, …]."""
        return stack.index_select(0, self._places)


Work = Lot | Loose


def linear_layers(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Layers an adapter may change, name → (in, out). Experts are left out: they see a few tokens each,
    in an order of their own."""
    layers: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if ".experts." in f".{name}.":
            continue
        if isinstance(module, torch.nn.Linear):
            layers[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            layers[name] = (module.nx, module.nf)
    return layers


def plan_lots(segments: Sequence[Segment], device: torch.device, *, bags: bool) -> list[Work]:
    """How a step's segments, in order of their places, become products. `bags`: those with few rows are computed as
    such, unless they stand as one product needs them."""
    def many(segment: Segment) -> bool:
        return segment.end - segment.begin >= _MANY_ROWS

    lots: list[Work] = [Lot(s.place, s.place + 1, s.end - s.begin, s.begin, None, None) for s in segments if many(s)]
    runs: list[list[Segment]] = []
    for segment in (s for s in segments if not many(s)):
        if not runs or segment.place > runs[-1][-1].place + 2:  # a hole of one place costs less than another product
            runs.append([])
        runs[-1].append(segment)
    if bags and runs and not (len(runs) == 1 and _straight(runs[0])):
        return [*lots, _loose([segment for run in runs for segment in run])]
    return lots + [_lot(run, device) for run in runs]


def _loose(few: Sequence[Segment]) -> Loose:
    rows = [row for segment in few for row in range(segment.begin, segment.end)]
    places = [segment.place for segment in few for _ in range(segment.begin, segment.end)]
    return Loose(torch.tensor(rows), torch.tensor(places))


def _straight(run: Sequence[Segment]) -> bool:
    """Whether the segments follow each other, in their rows and in their places, and have equally many rows."""
    rows = max(segment.end - segment.begin for segment in run)
    count = rows * (run[-1].place + 1 - run[0].place)
    return sum(s.end - s.begin for s in run) == count == run[-1].end - run[0].begin


def _lot(run: Sequence[Segment], device: torch.device) -> Lot:
    first, last = run[0].place, run[-1].place + 1
    rows = max(segment.end - segment.begin for segment in run)
    if _straight(run):
        return Lot(first, last, rows, run[0].begin, None, None)
    source = [run[0].begin] * (rows * (last - first))  # any row will do where there is none
    padded, real = [], []
    for segment in run:
        for number, row in enumerate(range(segment.begin, segment.end)):
            padded.append((segment.place - first) * rows + number)
            real.append(row)
            source[padded[-1]] = row
    return Lot(first, last, rows, 0, torch.tensor(source, device=device),
               (torch.tensor(padded, device=device), torch.tensor(real, device=device)))


class Base(NamedTuple):
    weight: Callable[[], Tensor]
    bias: Tensor | None


class Laid(NamedTuple):
    """An adapter's weights for a group as its stacks hold them: a [in, layers, rank], b [parts, rank, width] with the
    scale in it, and DoRA's factors [out] or None."""

    a: Tensor
    b: Tensor
    factors: Tensor | None


def _filled(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """With zeros up to [rows, columns]."""
    if matrix.shape == (rows, columns):
        return matrix
    filled = torch.zeros(rows, columns)
    filled[:matrix.shape[0], :matrix.shape[1]] = matrix
    return filled


class LoraGroup:
    """The stacks of layers that share an input: a [places, in, layers, rank], b [places, parts, rank, width].

    Outputs of different widths are cut into parts of one width, so that one product makes them all.
    """

    def __init__(self, names: Sequence[str], inside: int, outs: Sequence[int], places: int, like: Tensor) -> None:
        self.names = tuple(names)
        self._places = places
        self._inside = inside
        self.width = reduce(math.gcd, outs)
        self._outs = list(outs)
        self._parts = [out // self.width for out in outs]
        self._like = like
        self._layers = [n for n, parts in enumerate(self._parts) for _ in range(parts)]   # of each part
        self._layer_of = torch.tensor(self._layers, device=like.device)
        self.rank = 0
        self.moves = 0   # how often the stacks have been replaced
        self._ranks: dict[int, int] = {}
        self._base: Base | None = None
        self._cuts: tuple[tuple[int, int, int], Tensor, Tensor] | None = None
        self._dora: set[int] = set()
        self._factors = like.new_zeros(0)   # DoRA's, [places + 1, out]; the last is for rows of the base
        self._a = self._b = like.new_zeros(0)

    def attach(self, weight: Callable[[], Tensor], bias: Tensor | None) -> None:
        """The layers' own weights [out, in], as they count, and biases [out]: DoRA needs them."""
        self._base = Base(weight, bias)

    def laid(self, pairs: Mapping[str, LoraPair]) -> Laid | None:
        """These layers' pairs, ready to be copied as they are; None where there are none. Any thread may call it: it
        takes longer than the copying. Raises AdapterInvalid."""
        own = [pairs.get(name) for name in self.names]
        rank = max((pair.a.shape[0] for pair in own if pair is not None), default=0)
        if not rank:
            return None
        rank = -(-rank // _RANK_STEP) * _RANK_STEP
        empty = LoraPair(torch.zeros(0, self._inside), torch.zeros(0, 0), 1.0, None)
        filled = [empty if pair is None else pair for pair in own]
        a = torch.cat([_filled(pair.a, rank, self._inside) for pair in filled])
        b = torch.cat([_filled(pair.b, out, rank) for pair, out in zip(filled, self._outs, strict=True)])
        for pair, part in zip(filled, torch.split(b, self._outs), strict=True):
            part.mul_(pair.scale)
        turned = torch.from_numpy(a.numpy().T.copy())  # half of the time that torch takes for it
        b = b.view(-1, self.width, rank).transpose(1, 2).contiguous()
        return Laid(turned.view(self._inside, len(own), rank), b, self._factors_of(own))

    def _factors_of(self, own: Sequence[LoraPair | None]) -> Tensor | None:
        """What DoRA multiplies outputs with."""
        if all(pair is None or pair.magnitude is None for pair in own):
            return None
        if self._base is None:
            raise AdapterInvalid(f"DoRA cannot be served in layer '{self.names[0]}' of this model")
        factors = [torch.ones(out) for out in self._outs]
        weights = torch.split(self._base.weight().float().cpu(), self._outs)
        for number, (pair, weight) in enumerate(zip(own, weights, strict=True)):
            if pair is not None and pair.magnitude is not None:
                changed = weight + pair.scale * (pair.b @ pair.a)
                factors[number] = pair.magnitude / torch.linalg.vector_norm(changed, dim=1)
        return torch.cat(factors)

    def write(self, place: int, laid: Laid) -> None:
        """Puts an adapter's weights for these layers at a place that is clear."""
        rank = laid.a.shape[2]
        self._ranks[place] = rank
        self._fit()
        self._a[place, :, :, :rank] = laid.a
        self._b[place, :, :rank] = laid.b
        if laid.factors is not None:
            self._dora.add(place)
            self._multipliers()[place] = laid.factors

    def _multipliers(self) -> Tensor:
        if not len(self._factors):
            self._factors = self._like.new_ones(self._places + 1, sum(self._outs))
            self.moves += 1
        return self._factors

    def clear(self, place: int) -> None:
        """Nothing of what was there stays in memory."""
        if self._ranks.pop(place, None):
            self._a[place].zero_()
            self._b[place].zero_()
        if place in self._dora:
            self._dora.remove(place)
            self._factors[place] = 1
        if not self._ranks:
            self.rank = 0
            self.moves += 1
            self._cuts = None
            self._a = self._b = self._factors = self._like.new_zeros(0)

    def _fit(self) -> None:
        rank = max(self._ranks.values())
        if rank == self.rank:
            return
        a = zeros((self._places, self._inside, len(self.names), rank), self._like)
        b = zeros((self._places, sum(self._parts), rank, self.width), self._like)
        kept = min(rank, self.rank)
        if kept:
            for place in self._ranks:
                a[place, :, :, :kept] = self._a[place, :, :, :kept]
                b[place, :, :kept] = self._b[place, :, :kept]
        self.rank, self._a, self._b = rank, a, b
        self.moves += 1

    @property
    def bytes(self) -> int:
        return self._a.nbytes + self._b.nbytes + self._factors.nbytes

    def add(self, x: Tensor, y: Tensor, lots: Sequence[Work]) -> None:
        """x [rows, in], y [rows, out], both contiguous; y changes."""
        if not self.rank:
            return
        for lot in lots:
            if isinstance(lot, Loose):
                self._add_loose(x, y, lot)
                continue
            count = (lot.last - lot.first) * lot.rows
            if lot.source is None or lot.target is None:
                part = y[lot.begin:lot.begin + count]
                self._product(x[lot.begin:lot.begin + count], part, lot)
                if self._dora:
                    part.copy_(self._multiplied(part, self._factors[lot.first:lot.last].repeat_interleave(lot.rows, 0)))
                continue
            padded = y.new_zeros(count + 1, y.shape[1])  # the last one stays zero, for rows of the base
            self._product(x.index_select(0, lot.source), padded[:count], lot)
            at, rows = lot.target
            y.index_add_(0, rows, padded.index_select(0, at))
            if self._dora:
                owners = torch.where(at < count, lot.first + at // lot.rows, self._places)
                y.index_copy_(0, rows, self._multiplied(y.index_select(0, rows), self._factors.index_select(0, owners)))

    def _add_loose(self, x: Tensor, y: Tensor, loose: Loose) -> None:
        whole = len(loose.rows) == len(x)  # then they stand in the step's order: they do so among others, too
        own = x if whole else x.index_select(0, loose.rows)
        inner = loose.sums(self._a.flatten(2), self._inside, own)
        if len(self._layers) != len(self.names):
            inner = inner.view(len(own), len(self.names), self.rank).index_select(1, self._layer_of)
        change = loose.sums(self._b, self.rank, inner).view(len(own), -1)
        if whole:
            y.add_(change)
        else:
            y.index_add_(0, loose.rows, change)
        if self._dora:
            changed = self._multiplied(y.index_select(0, loose.rows), loose.placed(self._factors))
            y.index_copy_(0, loose.rows, changed)

    def _multiplied(self, y: Tensor, factors: Tensor) -> Tensor:
        """DoRA: all but the bias times the factors."""
        bias = self._base.bias if self._base is not None else None
        return y * factors if bias is None else (y - bias) * factors + bias

    def _product(self, x: Tensor, y: Tensor, lot: Lot) -> None:
        places, rows, rank = lot.last - lot.first, lot.rows, self.rank
        if places == 1:  # many rows most of all: added where they stand, each output is touched once
            inner = torch.mm(x, self._a[lot.first].flatten(1))
            for part, layer in enumerate(self._layers):
                to = y[:, part * self.width:(part + 1) * self.width]
                to.addmm_(inner[:, layer * rank:(layer + 1) * rank], self._b[lot.first, part])
            return
        a, b = self._cut(lot.first, lot.last)
        of_layer = torch.bmm(x.view(places, rows, -1), a).view(places, rows, len(self.names), rank)
        parts = len(self._layers)
        if parts == 1:
            y.view(places, rows, -1).baddbmm_(of_layer.flatten(2), b)
            return
        if parts != len(self.names):
            of_layer = of_layer.index_select(2, self._layer_of)
        change = torch.bmm(of_layer.transpose(1, 2).reshape(-1, rows, rank), b)
        y.view(places, rows, parts, self.width).add_(change.view(places, parts, rows, self.width).transpose(1, 2))

    def _cut(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Those places' a [places, in, layers · rank] and b [places · parts, rank, width]; views, kept for the next
        step, which nearly always asks for the same."""
        if self._cuts is None or self._cuts[0] != (first, last, self.moves):
            a, b = self._a[first:last].flatten(2), self._b[first:last].flatten(0, 1)
            self._cuts = ((first, last, self.moves), a, b)
        return self._cuts[1:]


class LoraBank:
    """All groups of a model. `groups`: names of layers that share an input, in the order of their outputs."""

    def __init__(
        self, groups: Sequence[tuple[str, ...]], layers: Mapping[str, tuple[int, int]], places: int, like: Tensor
    ) -> None:
        self._device = like.device
        self.places = places
        self._groups = {
            names[0]: LoraGroup(names, layers[names[0]][0], [layers[name][1] for name in names], places, like)
            for names in groups
        }
        self.held: set[int] = set()

    def group(self, first: str) -> LoraGroup:
        """By the name of its first layer."""
        return self._groups[first]

    def laid(self, pairs: Mapping[str, LoraPair]) -> dict[str, Laid]:
        """By group, ready to be written. Any thread may call it. Raises AdapterInvalid."""
        laid = {name: group.laid(pairs) for name, group in self._groups.items()}
        return {name: part for name, part in laid.items() if part is not None}

    def write(self, place: int, laid: Mapping[str, Laid]) -> None:
        self.clear(place)
        self.held.add(place)
        for name, part in laid.items():
            self._groups[name].write(place, part)

    def clear(self, place: int) -> None:
        if place in self.held:
            self.held.remove(place)
            for group in self._groups.values():
                group.clear(place)

    @property
    def moves(self) -> int:
        """Changes whenever a stack is in other memory than before."""
        return sum(group.moves for group in self._groups.values())

    @property
    def bytes(self) -> int:
        """Of the stacks, as if every page were touched."""
        return sum(group.bytes for group in self._groups.values())

    def lots(self, rows: Sequence[tuple[int | None, int]]) -> list[Work]:
        """`rows`: (place or None for the base, count) of neighbours in the batch."""
        segments: list[Segment] = []
        begin = 0
        for place, group in groupby(rows, key=lambda row: row[0]):
            end = begin + sum(count for _, count in group)
            if place is not None and end > begin:
                segments.append(Segment(place, begin, end))
            begin = end
        return plan_lots(segments, self._device, bags=self._device.type == "cpu")

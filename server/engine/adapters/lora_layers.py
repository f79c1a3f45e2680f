"""Adds adapters' weights to the base's linear layers, each to its own rows, in few large products.

Weights are in stacks, one index per adapter; layers that share their input (query, key, value; gate, up) share a
group. Which products a step's rows take is planned by `segments.py`. Only the model thread may use this. Knows
nothing of files, slots or queues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from server.engine.adapters.reading import LoraPair
from server.engine.adapters.segments import (
    BagSegments,
    BatchedSegments,
    LoraPlan,
    RowAdapters,
    Segment,
    plan_rows,
    plan_segments,
)
from server.engine.cache.kv import zeros
from server.engine.kernels import lora_expand, lora_shrink
from server.errors import AdapterInvalid

_RANK_STEP = 8
_DORA_ROWS = 512  # of a layer's weights, changed at a time: what that takes fits where a step's numbers lie


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


def stack_rank(rank: int) -> int:
    """The rank that stacks have for adapters of such a rank."""
    return -(-rank // _RANK_STEP) * _RANK_STEP


class BaseLayer(NamedTuple):
    weight: Callable[[], Tensor]
    bias: Tensor | None


class PackedLora(NamedTuple):
    """An adapter's weights for a group in the layout of its stacks: a [in, layers, rank], b [slices, rank, width] with
    the scale in it. `dora_gains`: DoRA's [out], or what they are computed from on the device; None without DoRA."""

    a: Tensor
    b: Tensor
    dora_gains: Tensor | Sequence[LoraPair | None] | None


def _zero_padded(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """With zeros up to [rows, columns]."""
    if matrix.shape == (rows, columns):
        return matrix
    filled = torch.zeros(rows, columns)
    filled[: matrix.shape[0], : matrix.shape[1]] = matrix
    return filled


class LoraGroup:
    """The stacks of layers that share an input: a [max_loras, in, layers, rank], b [max_loras, slices, rank, width].

    Outputs of different widths are cut into slices of one width, so that one product makes them all.
    """

    def __init__(
        self,
        names: Sequence[str],
        in_features: int,
        out_features: Sequence[int],
        max_loras: int,
        like: Tensor,
        fixed_rank: int = 0,
    ) -> None:
        """`fixed_rank`: of stacks that are made now and never move, as captured steps need them; 0: made for what is
        loaded."""
        self.names = tuple(names)
        self._max_loras = max_loras
        self._in_features = in_features
        self.width = reduce(math.gcd, out_features)
        self._out_features = list(out_features)
        self._slices = [out // self.width for out in out_features]
        self._like = like
        self._slice_layers = [n for n, slices in enumerate(self._slices) for _ in range(slices)]  # of each slice
        self._slice_layers_tensor = torch.tensor(self._slice_layers, dtype=torch.int32, device=like.device)
        self.rank = 0
        self.reallocations = 0  # how often the stacks have moved in memory
        self._ranks: dict[int, int] = {}
        self._base: BaseLayer | None = None
        self._views: tuple[tuple[int, int, int], Tensor, Tensor] | None = None
        self._gains = like.new_zeros(0)  # DoRA's, [max_loras, out]
        self._with_gains: set[int] = set()  # stack indices that have them
        self._a = self._b = like.new_zeros(0)
        self._fixed = fixed_rank > 0
        if self._fixed:
            self._reserve(stack_rank(fixed_rank))
            self._ensure_gains()
            self._device_ranks = torch.zeros(max_loras, dtype=torch.int32, device=like.device)

    def attach(self, weight: Callable[[], Tensor], bias: Tensor | None) -> None:
        """The layers' own weights [out, in], as the product uses them, and biases [out]: DoRA needs them."""
        self._base = BaseLayer(weight, bias)

    def pack(self, pairs: Mapping[str, LoraPair]) -> PackedLora | None:
        """In the layout of the stacks; None where no pair is theirs. Any thread may call it. Raises AdapterInvalid."""
        own = [pairs.get(name) for name in self.names]
        rank = max((pair.a.shape[0] for pair in own if pair is not None), default=0)
        if not rank:
            return None
        rank = stack_rank(rank)
        empty = LoraPair(torch.zeros(0, self._in_features), torch.zeros(0, 0), 1.0, None)
        filled = [empty if pair is None else pair for pair in own]
        a = torch.cat([_zero_padded(pair.a, rank, self._in_features) for pair in filled])
        b = torch.cat([_zero_padded(pair.b, out, rank) for pair, out in zip(filled, self._out_features, strict=True)])
        for pair, part in zip(filled, torch.split(b, self._out_features), strict=True):
            part.mul_(pair.scale)
        transposed = torch.from_numpy(a.numpy().T.copy())  # half of the time that torch takes for it
        b = b.view(-1, self.width, rank).transpose(1, 2).contiguous()
        a = transposed.view(self._in_features, len(own), rank)
        return PackedLora(self._ready(a), self._ready(b), self._pack_dora(own))

    def _ready(self, part: Tensor) -> Tensor:
        """As the stacks hold it, where the device can fetch it while the model thread goes on."""
        part = part.to(self._like.dtype)
        return part.pin_memory() if self._like.is_cuda else part

    def _pack_dora(self, own: Sequence[LoraPair | None]) -> Tensor | Sequence[LoraPair | None] | None:
        if all(pair is None or pair.magnitude is None for pair in own):
            return None
        if self._base is None:
            raise AdapterInvalid(f"DoRA cannot be served in layer '{self.names[0]}' of this model")
        # Weights on a device are read by the model thread, between two steps, and never leave it.
        return own if self._fixed else self._compute_dora_gains(own)

    def _compute_dora_gains(self, own: Sequence[LoraPair | None]) -> Tensor:
        """By how much DoRA multiplies each output, less 1: nothing where there is none, whatever the type rounds."""
        assert self._base is not None  # narrows a type: checked by `_pack_dora`
        weights = torch.split(self._base.weight(), self._out_features)
        gains = [torch.zeros(out, device=weights[0].device) for out in self._out_features]
        for number, (pair, weight) in enumerate(zip(own, weights, strict=True)):
            if pair is not None and pair.magnitude is not None:
                a, b, magnitude = (part.to(weight.device) for part in (pair.a, pair.b, pair.magnitude))
                norms = [
                    torch.linalg.vector_norm(rows.float() + pair.scale * (own @ a), dim=1)
                    for rows, own in zip(torch.split(weight, _DORA_ROWS), torch.split(b, _DORA_ROWS), strict=True)
                ]
                gains[number] = magnitude / torch.cat(norms) - 1
        return torch.cat(gains)

    def write(self, stack_index: int, packed: PackedLora) -> None:
        """Copies an adapter's weights for these layers to a stack index that is clear. Raises RuntimeError where there
        is no memory; what was there before goes on to hold."""
        rank = packed.a.shape[2]
        self._reserve(max(rank, *self._ranks.values()) if self._ranks else rank)
        self._ranks[stack_index] = rank
        self._a[stack_index, :, :, :rank].copy_(packed.a, non_blocking=True)
        self._b[stack_index, :, :rank].copy_(packed.b, non_blocking=True)
        gains = packed.dora_gains
        if gains is not None:
            self._ensure_gains()[stack_index] = gains if isinstance(gains, Tensor) else self._compute_dora_gains(gains)
            self._with_gains.add(stack_index)
        if self._fixed:
            self._device_ranks[stack_index] = rank

    def _ensure_gains(self) -> Tensor:
        if not len(self._gains):
            self._gains = zeros((self._max_loras, sum(self._out_features)), self._like)
        return self._gains

    def clear(self, stack_index: int) -> None:
        """Zeroes what was there."""
        if self._ranks.pop(stack_index, None) is None:
            return
        self._a[stack_index].zero_()
        self._b[stack_index].zero_()
        if stack_index in self._with_gains:
            self._gains[stack_index] = 0
            self._with_gains.remove(stack_index)
        if self._fixed:
            self._device_ranks[stack_index] = 0
        elif not self._ranks:
            self.rank = 0
            self.reallocations += 1
            self._views = None
            self._a = self._b = self._gains = self._like.new_zeros(0)

    def _reserve(self, rank: int) -> None:
        """Stacks of that rank, or of the fixed one."""
        if rank == self.rank or (self._fixed and rank < self.rank):
            return
        a = zeros((self._max_loras, self._in_features, len(self.names), rank), self._like)
        b = zeros((self._max_loras, sum(self._slices), rank, self.width), self._like)
        kept = min(rank, self.rank)
        if kept:
            for stack_index in self._ranks:
                a[stack_index, :, :, :kept] = self._a[stack_index, :, :, :kept]
                b[stack_index, :, :kept] = self._b[stack_index, :, :kept]
        self.rank, self._a, self._b = rank, a, b
        self.reallocations += 1

    @property
    def bytes(self) -> int:
        return self._a.nbytes + self._b.nbytes + self._gains.nbytes

    def add(self, x: Tensor, y: Tensor, lora_plan: LoraPlan) -> None:
        """x [rows, in], y [rows, out], both contiguous; y changes."""
        if not self.rank:
            return
        for segments in lora_plan:
            if isinstance(segments, BagSegments):
                self._add_bags(x, y, segments)
            elif isinstance(segments, RowAdapters):
                self._add_rows(x, y, segments)
            else:
                self._add_batched(x, y, segments)

    def _add_rows(self, x: Tensor, y: Tensor, rows: RowAdapters) -> None:
        inner = lora_shrink(x, self._a, rows.indices, self._device_ranks)
        bias = self._base.bias if self._base is not None else None
        lora_expand(inner, y, self._b, self._slice_layers_tensor, rows.indices, self._device_ranks, self._gains, bias)

    def _add_bags(self, x: Tensor, y: Tensor, bags: BagSegments) -> None:
        whole = len(bags.rows) == len(x)  # then they are in the step's order already
        own = x if whole else x.index_select(0, bags.rows)
        inner = bags.bag_sums(self._a.flatten(2), self._in_features, own)
        if len(self._slice_layers) != len(self.names):
            inner = inner.view(len(own), len(self.names), self.rank).index_select(1, self._slice_layers_tensor)
        change = bags.bag_sums(self._b, self.rank, inner).view(len(own), -1)
        if whole:
            y.add_(change)
        else:
            y.index_add_(0, bags.rows, change)
        if self._with_gains:
            changed = self._apply_dora(y.index_select(0, bags.rows), bags.per_row(self._gains))
            y.index_copy_(0, bags.rows, changed)

    def _apply_dora(self, y: Tensor, gains: Tensor) -> Tensor:
        """DoRA: all but the bias times 1 + gain. Where the gain is 0 it is y to the bit, whoever else has one."""
        bias = self._base.bias if self._base is not None else None
        return torch.addcmul(y, y if bias is None else y - bias, gains)

    def _add_batched(self, x: Tensor, y: Tensor, segments: BatchedSegments) -> None:
        count, rows = segments.last - segments.first, segments.rows_each
        own = slice(segments.begin, segments.begin + count * rows)
        x, y = x[own], y[own]
        if count == 1:  # most of all a prompt
            self._add_one(x, y, segments.first)
        else:
            self._add_several(x, y, segments)
        if not self._with_gains.isdisjoint(range(segments.first, segments.last)):
            gains = self._gains[segments.first : segments.last].repeat_interleave(rows, 0)
            y.copy_(self._apply_dora(y, gains))

    def _add_one(self, x: Tensor, y: Tensor, stack_index: int) -> None:
        """Added in place: each output is touched once."""
        rank = self._ranks.get(stack_index, 0) if self._fixed else self.rank
        if not rank:
            return
        inner = torch.mm(x, self._a[stack_index, :, :, :rank].flatten(1))
        for number, layer in enumerate(self._slice_layers):
            out = y[:, number * self.width : (number + 1) * self.width]
            out.addmm_(inner[:, layer * rank : (layer + 1) * rank], self._b[stack_index, number, :rank])

    def _add_several(self, x: Tensor, y: Tensor, segments: BatchedSegments) -> None:
        count, rows, rank = segments.last - segments.first, segments.rows_each, self.rank
        a, b = self._stack_views(segments.first, segments.last)
        inner = torch.bmm(x.view(count, rows, -1), a).view(count, rows, len(self.names), rank)
        slices = len(self._slice_layers)
        if slices == 1:
            y.view(count, rows, -1).baddbmm_(inner.flatten(2), b)
            return
        if slices != len(self.names):
            inner = inner.index_select(2, self._slice_layers_tensor)
        change = torch.bmm(inner.transpose(1, 2).reshape(-1, rows, rank), b)
        y.view(count, rows, slices, self.width).add_(change.view(count, slices, rows, self.width).transpose(1, 2))

    def _stack_views(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Views a [count, in, layers · rank] and b [count · slices, rank, width], kept for the next step."""
        if self._views is None or self._views[0] != (first, last, self.reallocations):
            a, b = self._a[first:last].flatten(2), self._b[first:last].flatten(0, 1)
            self._views = ((first, last, self.reallocations), a, b)
        return self._views[1:]


class LoraBank:
    """All groups of a model. `groups`: names of layers that share an input, in the order of their outputs; `fixed_rank`
    as in `LoraGroup`."""

    def __init__(
        self,
        groups: Sequence[tuple[str, ...]],
        layers: Mapping[str, tuple[int, int]],
        max_loras: int,
        like: Tensor,
        fixed_rank: int = 0,
    ) -> None:
        self._device = like.device
        self.fixed = fixed_rank > 0
        self.max_loras = max_loras
        self._groups = {
            names[0]: LoraGroup(
                names, layers[names[0]][0], [layers[name][1] for name in names], max_loras, like, fixed_rank
            )
            for names in groups
        }
        self.occupied: set[int] = set()

    def group(self, first: str) -> LoraGroup:
        """By the name of its first layer."""
        return self._groups[first]

    def pack(self, pairs: Mapping[str, LoraPair]) -> dict[str, PackedLora]:
        """By group, ready to be written. Any thread may call it. Raises AdapterInvalid."""
        packed = {name: group.pack(pairs) for name, group in self._groups.items()}
        return {name: weights for name, weights in packed.items() if weights is not None}

    def write(self, stack_index: int, packed: Mapping[str, PackedLora]) -> None:
        """Raises RuntimeError where there is no memory for it; what is at other indices goes on to hold."""
        for _ in self.write_groups(stack_index, packed):
            pass

    def write_groups(self, stack_index: int, packed: Mapping[str, PackedLora]) -> Iterator[None]:
        """As `write`, a group of layers after the other."""
        self.clear(stack_index)
        self.occupied.add(stack_index)
        try:
            for name, weights in packed.items():
                self._groups[name].write(stack_index, weights)
                yield
        except RuntimeError:
            self.clear(stack_index)
            raise

    @property
    def device(self) -> torch.device:
        return self._device

    def clear(self, stack_index: int) -> None:
        if stack_index in self.occupied:
            self.occupied.remove(stack_index)
            for group in self._groups.values():
                group.clear(stack_index)

    @property
    def reallocations(self) -> int:
        """Changes whenever a stack is in other memory than before."""
        return sum(group.reallocations for group in self._groups.values())

    @property
    def bytes(self) -> int:
        """Of the stacks, as if every page were touched."""
        return sum(group.bytes for group in self._groups.values())

    def plan(self, rows: Sequence[tuple[int | None, int]]) -> LoraPlan:
        """`rows`: (stack index, or None for the base; count) of neighbours in the batch."""
        segments: list[Segment] = []
        begin = 0
        for stack_index, group in groupby(rows, key=lambda row: row[0]):
            end = begin + sum(count for _, count in group)
            if stack_index is not None and end > begin:
                segments.append(Segment(stack_index, begin, end))
            begin = end
        return plan_rows(segments, begin, self._device) if self.fixed else plan_segments(segments)

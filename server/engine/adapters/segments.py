"""Plans the products that a step's adapters are computed by. Knows nothing of weights' layout or of layers.

Rows of one adapter are a segment of the batch (Punica: Chen et al., 2023), segments in rising order of their stack
index. A segment of many rows (a prompt) is a product of its own. On a processor the others are one batched product if
they have equally many rows, else embedding bags: each row is a sum of its adapter's rows weighted by its own numbers.
On a device two kernels compute all of them, each row reading its own adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

_MANY_ROWS = 16  # from here on a segment is a product of its own


class Segment(NamedTuple):
    """Rows [begin, end) of a layer's input use the adapter at `stack_index`."""

    stack_index: int
    begin: int
    end: int


class BatchedSegments(NamedTuple):
    """Stack indices [first, last) with `rows_each`, contiguous from row `begin` on, as one batched product."""

    first: int
    last: int
    rows_each: int
    begin: int


class RowAdapters(NamedTuple):
    """For kernels that read each row's adapter by themselves: its stack index, or -1 [rows] int32, on the device."""

    indices: Tensor


class BagSegments:
    """Short segments of unequal lengths, as embedding bags: their rows in the step, rising, and each one's index."""

    def __init__(self, rows: Tensor, stack_indices: Tensor) -> None:
        self.rows = rows
        self._stack_indices = stack_indices
        self._bag_indices: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def bag_sums(self, stack: Tensor, each: int, weights: Tensor) -> Tensor:
        """Of a stack [max_loras, …, width]: for each row, weighted sums of `each` of its adapter's rows of `width`, one
        after the other → [rows · sums, width]."""
        width, entries = stack.shape[-1], stack[0].numel() // stack.shape[-1]
        known = self._bag_indices.get((entries, each))
        if known is None:
            indices = (self._stack_indices[:, None] * entries + torch.arange(entries)).flatten().to(torch.int32)
            known = self._bag_indices[entries, each] = indices, torch.arange(0, len(indices), each, dtype=torch.int32)
        indices, offsets = known
        weights = weights.reshape(-1)
        return F.embedding_bag(indices, stack.view(-1, width), offsets, mode="sum", per_sample_weights=weights)

    def per_row(self, stack: Tensor) -> Tensor:
        """Each row's entry of a stack [max_loras, …] → [rows, …]."""
        return stack.index_select(0, self._stack_indices)


LoraPlan = Sequence[BatchedSegments | BagSegments | RowAdapters]  # the products that a step's segments are computed by


def plan_segments(segments: Sequence[Segment]) -> LoraPlan:
    """On a processor, by segments in rising order of their stack indices: short ones become embedding bags where they
    are not contiguous."""
    products, short = _split(segments)
    runs: list[list[Segment]] = []
    for segment in short:
        if not runs or segment.stack_index > runs[-1][-1].stack_index + 2:  # a gap of one costs less than a product
            runs.append([])
        runs[-1].append(segment)
    if not runs:
        return products
    if len(runs) == 1 and _contiguous(runs[0]):
        run = runs[0]
        return [
            *products,
            BatchedSegments(run[0].stack_index, run[-1].stack_index + 1, run[0].end - run[0].begin, run[0].begin),
        ]
    return [*products, _bagged(short)]


def plan_rows(segments: Sequence[Segment], rows: int, device: torch.device) -> LoraPlan:
    """On a device, for a step of so many rows."""
    products, short = _split(segments)
    if not short:
        return products
    indices = [-1] * rows
    for segment in short:
        indices[segment.begin : segment.end] = [segment.stack_index] * (segment.end - segment.begin)
    return [*products, RowAdapters(torch.tensor(indices, dtype=torch.int32, device=device))]


def _split(segments: Sequence[Segment]) -> tuple[list[BatchedSegments], list[Segment]]:
    """Those of many rows as products of their own, and the others."""
    many = [segment for segment in segments if segment.end - segment.begin >= _MANY_ROWS]
    products = [BatchedSegments(s.stack_index, s.stack_index + 1, s.end - s.begin, s.begin) for s in many]
    return products, [segment for segment in segments if segment.end - segment.begin < _MANY_ROWS]


def _bagged(short: Sequence[Segment]) -> BagSegments:
    rows = [row for segment in short for row in range(segment.begin, segment.end)]
    stack_indices = [segment.stack_index for segment in short for _ in range(segment.begin, segment.end)]
    return BagSegments(torch.tensor(rows), torch.tensor(stack_indices))


def _contiguous(run: Sequence[Segment]) -> bool:
    """Whether the segments follow each other, in their rows and in their stack indices, and have equally many rows."""
    rows = max(segment.end - segment.begin for segment in run)
    count = rows * (run[-1].stack_index + 1 - run[0].stack_index)
    return sum(s.end - s.begin for s in run) == count == run[-1].end - run[0].begin

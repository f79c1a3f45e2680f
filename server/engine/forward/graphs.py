"""Steps in which every row decodes one token, captured once for each size and replayed.

On a GPU a step of a large model is hundreds of launches, each of which costs more than it computes; a CUDA graph
launches them together. A captured step works on memory that never moves: rows, keys and adapters are padded to a
few sizes, and rows that are padding write to a spare slot of the arena. Knows nothing of queues or sampling.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from server.engine.adapters.lora_layers import LoraBank
from server.engine.adapters.segments import BatchedSegments
from server.engine.cache.kv import KVArena, bucket_size, next_power_of_two
from server.engine.forward.attention import AttentionStep, DecodeGroup
from server.engine.forward.chunk import RowChunk
from server.engine.forward.decoder import Decoder

log = logging.getLogger("tailor.engine")

Compute = Callable[[], Tensor]
GraphCapture = Callable[[Compute], Compute]


@dataclass(frozen=True)
class GraphSize:
    """Of a captured step: rows, keys a row attends to at most, rows an adapter has at most (0: no adapters)."""

    rows: int
    keys: int
    rows_per_adapter: int


def cuda_capture(compute: Compute) -> Compute:
    """Runs it twice to settle what is allocated on first use, then captures it. The result does not hold `compute`:
    who captures keeps what it reads. Raises RuntimeError where it cannot be captured, or has no memory."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads (the one that reads adapters) may use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local", **_LIVENESS):
        result = compute()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


# A replay refuses to read memory that has been freed, where torch can tell (2.13 and newer).
_LIVENESS: dict[str, Any] = (
    {"check_input_liveness": True}
    if "check_input_liveness" in inspect.signature(torch.cuda.graph.__init__).parameters
    else {}
)


class CapturedStep:
    """One size's static memory, and the step on it."""

    def __init__(
        self, size: GraphSize, decoder: Decoder, arena: KVArena, bank: LoraBank, capture: GraphCapture
    ) -> None:
        self._size = size
        self._arena = arena
        self._max_loras = bank.max_loras
        device = arena.shape.device

        def static(count: int) -> Tensor:
            return torch.zeros(count, dtype=torch.long, device=device)

        rows, keys, per_adapter = size.rows, size.keys, size.rows_per_adapter
        # All that a replay reads is kept here: the captured step itself holds none of it.
        self._tokens, self._positions, self._kv_slots = static(rows), static(rows), static(rows)
        self._gather, self._computed = static(arena.slots), static(arena.slots)
        self._lora_gather, self._lora_scatter = static(bank.max_loras * per_adapter), static(rows)
        self._indices = torch.arange(rows, device=device)

        def compute() -> Tensor:
            group = DecodeGroup(0, arena.slots, keys, self._gather, self._kv_slots, self._indices, self._computed)
            step = AttentionStep(arena, self._positions, self._kv_slots, [group])
            scatter = self._lora_scatter, self._indices
            segments = BatchedSegments(0, bank.max_loras, per_adapter, 0, self._lora_gather, scatter)
            lora_plan = [segments] if per_adapter else []
            return decoder.run(self._tokens, step, lora_plan, self._indices, lora_plan)

        self._pad_rows(range(rows))
        self._replay = capture(compute)

    def run(self, chunks: Sequence[RowChunk]) -> Tensor:
        """Logits [chunks, vocabulary]."""
        self._pad_rows(range(len(chunks), self._size.rows))
        kv_slots = [chunk.kv_slot for chunk in chunks]
        gather, computed = [0] * self._arena.slots, [0] * self._arena.slots
        for row, chunk in enumerate(chunks):
            gather[chunk.kv_slot], computed[chunk.kv_slot] = row, chunk.computed
        _copy_into(self._tokens, [chunk.tokens[0] for chunk in chunks])
        _copy_into(self._positions, [chunk.computed for chunk in chunks])
        _copy_into(self._kv_slots, kv_slots)
        _copy_into(self._gather, gather)
        _copy_into(self._computed, computed)
        self._copy_lora_indices(chunks)
        return self._replay()[: len(chunks)].clone()

    def _copy_lora_indices(self, chunks: Sequence[RowChunk]) -> None:
        per_adapter = self._size.rows_per_adapter
        if not per_adapter:
            return
        zero_row = self._max_loras * per_adapter  # behind the padded ones
        gather, scatter = [0] * zero_row, [zero_row] * self._size.rows
        used: Counter[int] = Counter()
        for row, chunk in enumerate(chunks):
            if chunk.stack_index is not None:
                scatter[row] = chunk.stack_index * per_adapter + used[chunk.stack_index]
                gather[scatter[row]] = row
                used[chunk.stack_index] += 1
        _copy_into(self._lora_gather, gather)
        _copy_into(self._lora_scatter, scatter)

    def _pad_rows(self, rows: range) -> None:
        """Those rows are padding: they write at the beginning of the spare slot."""
        if len(rows):
            self._tokens[rows.start :] = 0
            self._positions[rows.start :] = 0
            self._kv_slots[rows.start :] = self._arena.slots - 1


def _copy_into(static: Tensor, values: Sequence[int]) -> None:
    static[: len(values)].copy_(torch.tensor(values), non_blocking=True)


class DecodeGraphs:
    """Captured steps by size, made when first needed and dropped when the memory below them moves."""

    def __init__(self, decoder: Decoder, arena: KVArena, bank: LoraBank, capture: GraphCapture) -> None:
        self._decoder = decoder
        self._arena = arena
        self._bank = bank
        self._capture = capture
        self._captured: dict[GraphSize, CapturedStep | None] = {}  # None: it could not be captured
        self._reallocations = (-1, -1)
        self.failure = ""  # why the first size that could not be captured could not

    def run(self, chunks: Sequence[RowChunk]) -> Tensor | None:
        """Each chunk one token whose logits are needed → [chunks, vocabulary]; None where this size cannot be captured
        and has to be computed as other steps are."""
        reallocations = (self._arena.reallocations, self._bank.reallocations)
        if reallocations != self._reallocations:
            self._captured.clear()
            self._reallocations = reallocations
        used = Counter(chunk.stack_index for chunk in chunks if chunk.stack_index is not None)
        keys = min(next_power_of_two(max(chunk.computed for chunk in chunks) + 1), self._arena.capacity)
        size = GraphSize(bucket_size(len(chunks)), keys, bucket_size(max(used.values(), default=0)))
        if size not in self._captured:
            self._captured[size] = self._try_capture(size)
        captured = self._captured[size]
        return None if captured is None else captured.run(chunks)

    def _try_capture(self, size: GraphSize) -> CapturedStep | None:
        try:
            return CapturedStep(size, self._decoder, self._arena, self._bank, self._capture)
        except RuntimeError as error:  # what torch raises for a failed capture and for no memory
            if not self.failure:
                self.failure = str(error).splitlines()[0] if str(error) else type(error).__name__
                log.warning("steps of %d rows cannot be captured, and are slower: %s", size.rows, self.failure)
            return None

"""Steps in which every row writes one token, recorded once for each size and replayed.

On a GPU a step of a large model is hundreds of launches, each of which costs more than it computes; a CUDA graph
launches them together. A recording works on memory that never moves: rows, keys and adapters are rounded up to a
few sizes, and rows that are not there write to a spare place of the arena. Knows nothing of queues or sampling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from server.engine.adapters.lora_layers import LoraBank, Lot
from server.engine.cache.kv import KVArena, doubled, rounded
from server.engine.forward.attention import AttentionStep, Common
from server.engine.forward.chunk import Part
from server.engine.forward.decoder import Decoder

Compute = Callable[[], Tensor]
Recorder = Callable[[Compute], Compute]


@dataclass(frozen=True)
class Size:
    """Of a recording: rows, keys a row sees at most, rows an adapter has at most (0: no adapters)."""

    rows: int
    keys: int
    shared: int


def cuda_recorder(compute: Compute) -> Compute:
    """Runs it twice to settle what is allocated on first use, then records it."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = compute()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


class Recording:
    """One size's still memory, and the step on it."""

    def __init__(self, size: Size, decoder: Decoder, arena: KVArena, bank: LoraBank, record: Recorder) -> None:
        self._size = size
        self._arena = arena
        self._adapters = bank.places
        device = arena.shape.device

        def still(count: int) -> Tensor:
            return torch.zeros(count, dtype=torch.long, device=device)

        rows, keys, shared = size.rows, size.keys, size.shared
        self._tokens, self._positions, self._places = still(rows), still(rows), still(rows)
        self._source, self._lengths = still(arena.places), still(arena.places)
        self._lora_source, self._lora_at = still(bank.places * shared), still(rows)
        columns = torch.arange(rows, device=device)
        lots = [Lot(0, bank.places, shared, 0, self._lora_source, (self._lora_at, columns))] if shared else []

        def compute() -> Tensor:
            common = Common(0, arena.places, keys, self._source, self._places, columns, self._lengths)
            step = AttentionStep.of(arena, self._positions, self._places, common)
            return decoder.run(self._tokens, step, lots, columns, lots)

        self._spare(range(rows))
        self._replay = record(compute)

    def run(self, parts: Sequence[Part]) -> Tensor:
        """Logits [parts, vocabulary]."""
        self._spare(range(len(parts), self._size.rows))
        places = [part.place for part in parts]
        source, lengths = [0] * self._arena.places, [0] * self._arena.places
        for row, part in enumerate(parts):
            source[part.place], lengths[part.place] = row, part.length
        _fill(self._tokens, [part.tokens[0] for part in parts])
        _fill(self._positions, [part.length for part in parts])
        _fill(self._places, places)
        _fill(self._source, source)
        _fill(self._lengths, lengths)
        self._fill_adapters(parts)
        return self._replay()[:len(parts)].clone()

    def _fill_adapters(self, parts: Sequence[Part]) -> None:
        shared = self._size.shared
        if not shared:
            return
        nothing = self._adapters * shared   # the row of zeros behind the padded ones
        source, at = [0] * nothing, [nothing] * self._size.rows
        used: Counter[int] = Counter()
        for row, part in enumerate(parts):
            if part.lora is not None:
                at[row] = part.lora * shared + used[part.lora]
                source[at[row]] = row
                used[part.lora] += 1
        _fill(self._lora_source, source)
        _fill(self._lora_at, at)

    def _spare(self, rows: range) -> None:
        """Those rows write at the beginning of the spare place."""
        if len(rows):
            self._tokens[rows.start:] = 0
            self._positions[rows.start:] = 0
            self._places[rows.start:] = self._arena.places - 1


def _fill(still: Tensor, values: Sequence[int]) -> None:
    still[:len(values)].copy_(torch.tensor(values), non_blocking=True)


class DecodeGraphs:
    """Recordings by size, made when first needed and dropped when the memory below them moves."""

    def __init__(self, decoder: Decoder, arena: KVArena, bank: LoraBank, record: Recorder) -> None:
        self._decoder = decoder
        self._arena = arena
        self._bank = bank
        self._record = record
        self._recordings: dict[Size, Recording] = {}
        self._moves = (-1, -1)

    def run(self, parts: Sequence[Part]) -> Tensor:
        """Each part one token whose logits are wanted → [parts, vocabulary]."""
        moves = (self._arena.moves, self._bank.moves)
        if moves != self._moves:
            self._recordings.clear()
            self._moves = moves
        shared = max(Counter(part.lora for part in parts if part.lora is not None).values(), default=0)
        size = Size(rounded(len(parts)), min(doubled(max(part.length for part in parts) + 1), self._arena.room),
                    rounded(shared))
        recording = self._recordings.get(size)
        if recording is None:
            recording = Recording(size, self._decoder, self._arena, self._bank, self._record)
            self._recordings[size] = recording
        return recording.run(parts)


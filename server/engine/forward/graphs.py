"""Steps in which every row decodes one token, captured once for each size and replayed.

On a GPU a step of a large model is hundreds of launches, each of which costs more than it computes; a CUDA graph
launches them together. A captured step works on memory that never moves: rows are padded to a few sizes, those that are
padding write to a spare page, and how long each row is and which adapter it has are read from the memory. So loads,
unloads and growth change nothing that was captured. Knows nothing of queues or sampling.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from server.engine.adapters.lora_layers import LoraBank
from server.engine.adapters.segments import RowAdapters
from server.engine.cache.kv import bucket_size
from server.engine.cache.pages import SPARE_PAGE, KVPages
from server.engine.forward.chunk import RowChunk
from server.engine.forward.decoder import Decoder
from server.engine.forward.paged_attention import PagedStep, RowTables

log = logging.getLogger("tailor.engine")

Compute = Callable[[], Tensor]
GraphCapture = Callable[[Compute], Compute]


@dataclass(frozen=True)
class GraphSize:
    """Of a captured step: rows, and whether any of them has an adapter."""

    rows: int
    adapted: bool


class CudaCapture:
    """Captures with CUDA graphs that share the memory of what they compute on the way: one is replayed at a time, and
    its result is copied before the next one."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._stream: Any = None  # one for all warm-ups: cuBLAS keeps a workspace for each stream

    def __call__(self, compute: Compute) -> Compute:
        """Runs it twice to settle what is allocated on first use, then captures it. The result does not hold `compute`:
        who captures keeps what it reads. Raises RuntimeError where it cannot be captured, or has no memory."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                compute()
        torch.cuda.current_stream().wait_stream(stream)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        graph = torch.cuda.CUDAGraph()
        # Other threads (the one that reads adapters) may use the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local", **_LIVENESS):
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


class StaticRows:
    """What a captured step reads of its rows: one buffer on the device, filled by one copy a step from one on the host.

    Of each row, in int32: token, position, place in the pool, index of its adapter (-1: none), pages."""

    _HEAD = 4

    def __init__(self, rows: int, pages: KVPages) -> None:
        device, row_pages = pages.shape.device, pages.row_pages
        self._row_pages, self._page_size = row_pages, pages.page_size
        pinned = device.type == "cuda"
        self._host = torch.zeros(rows, self._HEAD + row_pages, dtype=torch.int32, pin_memory=pinned)
        self._filled = self._host.numpy()  # the same memory
        self._device = torch.zeros_like(self._host, device=device)
        self.query_starts = torch.arange(rows + 1, dtype=torch.int32, device=device)
        self.key_starts = torch.arange(rows + 1, dtype=torch.int32, device=device) * (row_pages * pages.page_size)
        self.indices = torch.arange(rows, device=device)
        self.fill(())

    @property
    def tokens(self) -> Tensor:
        return self._device[:, 0]

    @property
    def adapters(self) -> Tensor:
        return self._device[:, 3].contiguous()

    def tables(self) -> RowTables:
        """Computed from the buffer, so that it is captured with the step."""
        positions = self._device[:, 1].long()
        return RowTables(
            positions=positions,
            places=self._device[:, 2].long(),
            ends=self._device[:, 1] + 1,
            table=self._device[:, self._HEAD :].contiguous(),
            query_starts=self.query_starts,
            key_starts=self.key_starts,
            spans=None,
        )

    def fill(self, chunks: Sequence[RowChunk]) -> None:
        """The host's buffer must not be in use any more: the last step's results have been read."""
        filled, size = self._filled, self._page_size
        filled[len(chunks) :] = 0  # padding writes to the beginning of the spare page
        filled[len(chunks) :, 3] = -1
        filled[:, self._HEAD :] = SPARE_PAGE
        for row, chunk in enumerate(chunks):
            pages = chunk.pages[: self._row_pages]
            place = pages[chunk.computed // size] * size + chunk.computed % size
            index = -1 if chunk.stack_index is None else chunk.stack_index
            filled[row, : self._HEAD] = (chunk.tokens[0], chunk.computed, place, index)
            filled[row, self._HEAD : self._HEAD + len(pages)] = pages
        self._device.copy_(self._host, non_blocking=True)


class CapturedStep:
    """One size's static memory, and the step on it."""

    def __init__(
        self,
        size: GraphSize,
        decoder: Decoder,
        pages: KVPages,
        bank: LoraBank,
        capture: GraphCapture,
        *,
        flash: bool,
    ) -> None:
        # All that a replay reads is kept here: the captured step itself holds none of it.
        self._rows = StaticRows(size.rows, pages)
        rows = self._rows

        def compute() -> Tensor:
            step = PagedStep(pages, rows.tables(), flash=flash)
            lora_plan = [RowAdapters(rows.adapters)] if size.adapted else []
            return decoder.run(rows.tokens, step, lora_plan, rows.indices, lora_plan)

        self._replay = capture(compute)

    def run(self, chunks: Sequence[RowChunk]) -> Tensor:
        """Logits [chunks, vocabulary]."""
        self._rows.fill(chunks)
        return self._replay()[: len(chunks)].clone()


class DecodeGraphs:
    """Captured steps by size, made at the start or when first needed, and dropped when the memory below them moves."""

    def __init__(self, decoder: Decoder, pages: KVPages, bank: LoraBank, capture: GraphCapture, *, flash: bool) -> None:
        self._decoder = decoder
        self._pages = pages
        self._bank = bank
        self._capture = capture
        self._flash = flash
        self._captured: dict[GraphSize, CapturedStep | None] = {}  # None: it could not be captured
        self._reallocations = (-1, -1)
        self.failure = ""  # why the first size that could not be captured could not

    def clear(self) -> None:
        self._captured.clear()
        self.failure = ""

    def record(self, max_rows: int) -> int:
        """Captures all sizes up to so many rows, the largest first, whose memory the others use; how many there are."""
        began = time.monotonic()
        self._drop_moved()
        sizes = [GraphSize(rows, adapted) for rows in reversed(row_counts(max_rows)) for adapted in (True, False)]
        for size in sizes:
            self._capture_once(size)
        made = sum(self._captured[size] is not None for size in sizes)
        log.info("captured steps of %d sizes in %.1f s", made, time.monotonic() - began)
        return made

    def run(self, chunks: Sequence[RowChunk]) -> Tensor | None:
        """Each chunk one token whose logits are needed → [chunks, vocabulary]; None where this size cannot be captured
        and has to be computed as other steps are."""
        self._drop_moved()
        size = GraphSize(bucket_size(len(chunks)), any(chunk.stack_index is not None for chunk in chunks))
        captured = self._capture_once(size)
        return None if captured is None else captured.run(chunks)

    def _drop_moved(self) -> None:
        reallocations = (self._pages.reallocations, self._bank.reallocations)
        if reallocations != self._reallocations:
            self._captured.clear()
            self._reallocations = reallocations

    def _capture_once(self, size: GraphSize) -> CapturedStep | None:
        if size in self._captured:
            return self._captured[size]
        captured = None
        try:
            captured = CapturedStep(size, self._decoder, self._pages, self._bank, self._capture, flash=self._flash)
        except RuntimeError as error:  # what torch raises for a failed capture and for no memory
            if not self.failure:
                self.failure = str(error).splitlines()[0] if str(error) else type(error).__name__
                log.warning("steps of %d rows cannot be captured, and are slower: %s", size.rows, self.failure)
        self._captured[size] = captured
        return captured


def row_counts(max_rows: int) -> list[int]:
    """The sizes that steps of up to so many rows are padded to."""
    return sorted({bucket_size(rows) for rows in range(1, max_rows + 1)})

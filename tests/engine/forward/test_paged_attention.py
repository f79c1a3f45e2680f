"""Attention over pages against attention over an arena, and against a formula, for any mix of rows."""

from __future__ import annotations

import random

import pytest
import torch

from server.engine.cache.kv import KVArena, KVShape
from server.engine.cache.pages import KVPages
from server.engine.forward.attention import AttentionStep, Span
from server.engine.forward.chunk import RowChunk
from server.engine.forward.paged_attention import PagedStep, RowTables, unsupported_by_flash

CPU = torch.device("cpu")
SHAPE = KVShape(1, 2, 16, 16, torch.float32, CPU)
SIZE = 16


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("window", [0, 7])
@pytest.mark.parametrize("seed", range(4))
def test_rows_attend_as_they_do_in_an_arena(seed: int, window: int, softcap: float | None) -> None:
    dice = random.Random(seed)
    torch.manual_seed(seed)
    arena, pages = KVArena(SHAPE), KVPages(SHAPE, SIZE)
    arena.fit(4, 100, {})
    pages.allocate(40, 8)
    pages._both.fill_(float("nan"))  # what earlier rows have left
    free = list(range(1, 40))
    dice.shuffle(free)
    own = [[free.pop() for _ in range(8)] for _ in range(4)]
    computed = [0] * 4
    for _ in range(6):
        rows = dice.sample(range(4), dice.randrange(1, 5))
        counts = [dice.choice([1, 1, 3, 17]) for _ in rows]
        spans, chunks, begin = [], [], 0
        for row, count in zip(rows, counts, strict=True):
            spans.append(Span(begin, begin + count, row, computed[row]))
            chunks.append(RowChunk([0] * count, 0, computed[row], pages=own[row]))
            begin += count
            computed[row] += count
        q, k, v = torch.randn(begin, 6, 16), torch.randn(begin, 2, 16), torch.randn(begin, 2, 16)
        wanted = AttentionStep.from_spans(arena, spans).attend(0, q, k, v, 0.3, window, softcap)
        found = PagedStep(pages, RowTables.of(chunks, pages), flash=False).attend(0, q, k, v, 0.3, window, softcap)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [0, 5])
def test_a_captured_steps_attention_needs_no_number_on_the_host(window: int) -> None:
    """The same sums where only tensors know how long rows are, and pages beyond them hold anything."""
    pages = KVPages(SHAPE, SIZE)
    pages.allocate(20, 4)
    pages._both.fill_(float("nan"))
    chunks = [RowChunk([0], 0, computed, pages=[1 + row + 4 * page for page in range(4)]) for row, computed in
              enumerate((0, 15, 16, 40))]  # fmt: skip
    for chunk in chunks:
        for at in range(chunk.computed):
            place = torch.tensor([chunk.pages[at // SIZE] * SIZE + at % SIZE])
            pages.write(0, place, torch.randn(1, 2, 16), torch.randn(1, 2, 16))
    tables = RowTables.of(chunks, pages)
    q, k, v = torch.randn(4, 6, 16), torch.randn(4, 2, 16), torch.randn(4, 2, 16)
    wanted = PagedStep(pages, tables, flash=False).attend(0, q, k, v, 0.3, window)
    table = torch.zeros(4, 4, dtype=torch.int32)
    for row, chunk in enumerate(chunks):
        table[row] = torch.tensor(chunk.pages, dtype=torch.int32)
    still = RowTables(tables.positions, tables.places, tables.ends, table, tables.query_starts, tables.key_starts, None)
    found = PagedStep(pages, still, flash=False).attend(0, q, k, v, 0.3, window)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_what_flash_attention_is_told_of_the_rows() -> None:
    pages = KVPages(SHAPE, SIZE)
    pages.allocate(20, 4)
    chunks = [RowChunk([0] * 3, 0, 15, pages=[4, 9, 2]), RowChunk([0], 0, 31, pages=[7, 3, 5])]
    tables = RowTables.of(chunks, pages)
    assert tables.positions.tolist() == [15, 16, 17, 31]
    assert tables.places.tolist() == [4 * 16 + 15, 9 * 16, 9 * 16 + 1, 3 * 16 + 15]
    assert tables.ends.tolist() == [18, 32]
    assert tables.table.tolist() == [[4, 9], [7, 3]]
    assert tables.query_starts.tolist() == [0, 3, 4]
    assert tables.spans == ((3, 18), (1, 32))
    assert {part.dtype for part in (tables.ends, tables.table, tables.query_starts, tables.key_starts)} == {torch.int32}
    assert tables.table.stride(-1) == 1


@pytest.mark.parametrize(
    ("dims", "dtype", "device", "why"),
    [
        ((64, 64), torch.bfloat16, "cpu", "needs a CUDA device"),
        ((64, 64), torch.float32, "cuda", "does not take float32"),
        ((64, 32), torch.bfloat16, "cuda", "heads of 64 and 32"),
        ((320, 320), torch.bfloat16, "cuda", "heads of 320"),
        ((60, 60), torch.float16, "cuda", "heads of 60"),
    ],
)
def test_what_flash_attention_does_not_take(dims, dtype, device: str, why: str) -> None:
    assert why in unsupported_by_flash(*dims, dtype, torch.device(device))


@pytest.mark.parametrize(("capability", "fits"), [((8, 0), True), ((9, 0), True), ((7, 5), False)])
def test_older_cards_are_told_apart(capability, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    problem = unsupported_by_flash(128, 128, torch.bfloat16, torch.device("cuda"))
    assert (problem == "") == fits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
@pytest.mark.parametrize("window", [0, 100])
@pytest.mark.parametrize("heads", [2, 8])
def test_on_a_card_flash_attention_reads_pages_as_the_plain_sums_do(heads: int, window: int) -> None:
    device = torch.device("cuda")
    pages = KVPages(KVShape(1, 2, 128, 128, torch.bfloat16, device))
    pages.allocate(20, 4)
    dice = random.Random(0)
    own = [dice.sample(range(1 + 4 * row, 5 + 4 * row), 4) for row in range(4)]
    for counts, computed in (((700, 3, 256, 1), (0, 0, 0, 0)), ((1, 1, 1, 1), (700, 3, 256, 1))):
        chunks = [RowChunk([0] * n, 0, at, pages=ids) for n, at, ids in zip(counts, computed, own, strict=True)]
        total = sum(counts)
        q, k, v = (torch.randn(total, n, 128, device=device).bfloat16() for n in (heads, 2, 2))
        tables = RowTables.of(chunks, pages)
        found, wanted = (
            PagedStep(pages, tables, flash=flash).attend(0, q, k, v, 0.1, window) for flash in (True, False)
        )
        torch.testing.assert_close(found, wanted, atol=2e-2, rtol=2e-2)

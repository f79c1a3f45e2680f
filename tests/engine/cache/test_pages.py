"""Pages: who holds them, what is shared of them, and which go first."""

from __future__ import annotations

import threading

import pytest
import torch

from server.engine.cache.kv import KVShape
from server.engine.cache.pages import SPARE_PAGE, KVPages, PagedMemory

SHAPE = KVShape(2, 3, 4, 4, torch.float32, torch.device("cpu"))
SIZE = 32


def memory(pages: int, *, row_pages: int = 0, rows: int = 8, shape: KVShape = SHAPE, **options) -> PagedMemory:
    kv = KVPages(shape, SIZE)
    kv.allocate(pages + 1, row_pages or pages)
    return PagedMemory(kv, rows, threading.Condition(), **options)


def text(*parts: int, tail: int = 0) -> list[int]:
    """Whole pages, each told by a number, and some tokens more."""
    return [1000 * part + number for part in parts for number in range(SIZE)] + [7] * tail


def run(pages: PagedMemory, owner: int, tokens: list[int], load_id: int = 0) -> int:
    """A row that computes all of it and ends; how much was there already."""
    reservation = pages.reserve(owner, load_id, tokens, len(tokens))
    assert reservation is not None
    pages.prepare()
    pages.release(owner, load_id, tokens)
    pages.check_integrity()
    return reservation.cached


def test_a_row_holds_the_pages_that_its_tokens_need() -> None:
    pages = memory(5)
    one = pages.reserve(1, 0, [1], SIZE + 1)
    assert (len(one.pages), one.tokens, one.cached) == (2, 2 * SIZE, 0)
    assert SPARE_PAGE not in one.pages
    assert pages.grow(1, 2 * SIZE)
    assert len(one.pages) == 2
    assert pages.grow(1, 2 * SIZE + 1)
    assert len(set(one.pages)) == 3
    assert pages.reserve(2, 0, [2], 3 * SIZE) is None
    assert pages.owners() == {1}
    assert not pages.grow(1, 6 * SIZE)
    assert len(one.pages) == 3
    with pytest.raises(ValueError, match="reserved already"):
        pages.reserve(1, 0, [1], 1)
    pages.release(1, 0, ())
    assert pages.use().rows == 0
    assert pages.reserve(2, 0, [2], 5 * SIZE) is not None
    pages.check_integrity()


def test_no_more_rows_than_there_may_be() -> None:
    pages = memory(5, rows=2)
    assert pages.reserve(1, 0, [1], 1)
    assert pages.reserve(2, 0, [1], 1)
    assert pages.reserve(3, 0, [1], 1) is None


def test_whole_pages_are_read_where_they_are_and_the_rest_is_copied() -> None:
    pages = memory(12)
    first = pages.reserve(1, 0, text(1, 2, tail=20), 3 * SIZE)
    own = list(first.pages)
    for layer in range(SHAPE.layers):
        places = torch.tensor([page * SIZE + at for page in own for at in range(SIZE)])
        numbers = torch.arange(3.0 * SIZE)[:, None, None].expand(-1, 3, 4) + 100 * layer
        pages._pages.write(layer, places, numbers, -numbers)
    pages.release(1, 0, text(1, 2, tail=20))
    second = pages.reserve(2, 0, [*text(1, 2), *[7] * 18, 5, 5], 3 * SIZE + 2)
    assert second.cached == 2 * SIZE + 18
    assert second.pages[:2] == own[:2]
    assert second.pages[2] != own[2], "the earlier row's text goes on differently"
    pages.prepare()
    for layer in range(SHAPE.layers):
        found = pages._pages.keys(layer)[second.pages[2], :18, 1, 3]
        torch.testing.assert_close(found, torch.arange(2.0 * SIZE, 2.0 * SIZE + 18) + 100 * layer)
        torch.testing.assert_close(pages._pages.values(layer)[second.pages[2], :18, 1, 3], -found)
    third = pages.reserve(3, 0, text(1, 2), 2 * SIZE)
    assert third.cached == 2 * SIZE - 1, "the last token's logits are needed"
    pages.check_integrity()


def test_keys_and_values_of_different_widths() -> None:
    pages = memory(3, shape=SHAPE._replace(value_dim=6))
    kv = pages._pages
    kv.write(1, torch.tensor([SIZE, SIZE + 1]), torch.ones(2, 3, 4), torch.full((2, 3, 6), 2.0))
    kv.copy(1, 2, 1)
    assert kv.keys(1)[2, 0].tolist() == [[1.0] * 4] * 3
    assert kv.values(1)[2, 0].tolist() == [[2.0] * 6] * 3
    assert not kv.keys(1)[2, 1].any()
    assert SHAPE._replace(value_dim=6).token_bytes * SIZE * 4 == kv._keys.nbytes + kv._values.nbytes


def test_a_running_row_shares_what_it_has_computed() -> None:
    pages = memory(12)
    pages.reserve(1, 0, text(1, 2, tail=20), 4 * SIZE)
    pages.publish(1, 0, text(1, 2)[:-3])
    assert pages.cached(0, text(1, 2, 3)) == 2 * SIZE - 3
    pages.publish(1, 0, text(1, 2, tail=20))
    assert pages.cached(0, text(1, 2, tail=20)) == 2 * SIZE + 20
    assert run(pages, 2, text(1, 2, 9)) == 2 * SIZE
    pages.release(1, 0, text(1, 2, tail=30))
    assert pages.cached(0, text(1, 2, tail=30)) == 2 * SIZE + 30, "the page it went on in holds more now"
    pages.check_integrity()


def test_equal_texts_computed_side_by_side_are_kept_once() -> None:
    pages = memory(8)
    for owner in (1, 2):
        pages.reserve(owner, 0, text(1, 2), 2 * SIZE)
    for owner in (1, 2):
        pages.publish(owner, 0, text(1, 2))
        pages.check_integrity()
    for owner in (2, 1):
        pages.release(owner, 0, text(1, 2))
        pages.check_integrity()
    assert pages.use().prefixes == 2 * SIZE * SHAPE.token_bytes


def test_another_load_shares_nothing_and_is_forgotten_alone() -> None:
    pages = memory(12)
    run(pages, 1, text(1, 2), load_id=1)
    assert pages.cached(2, text(1, 2)) == pages.cached(0, text(1, 2)) == 0
    run(pages, 2, text(1), load_id=2)
    pages.reserve(3, 1, text(1, 2, 3), 3 * SIZE)
    pages.drop(1)
    assert pages.cached(1, text(1, 2)) == 0
    assert pages.cached(2, text(1)) == SIZE
    pages.check_integrity()
    pages.publish(3, 1, text(1, 2, 3))
    pages.release(3, 1, text(1, 2, 3))
    pages.check_integrity()
    pages.drop(2)
    assert (pages.use().rows, pages.use().prefixes) == (0, 0)


def test_the_least_recently_used_leaf_goes_first_and_never_what_a_row_reads() -> None:
    pages = memory(6)
    run(pages, 1, text(1, 2))
    run(pages, 2, text(3, 4))
    assert pages.reserve(3, 0, text(1, 2, 9), 3 * SIZE).cached == 2 * SIZE
    assert pages.reserve(4, 0, text(5), 3 * SIZE) is not None, "both other pages have gone"
    assert pages.cached(0, text(3, 4)) == 0
    assert pages.cached(0, text(1, 2)) == 2 * SIZE
    assert pages.reserve(5, 0, text(6), SIZE) is None
    pages.check_integrity()


def test_few_tokens_are_not_worth_a_page() -> None:
    pages = memory(6)
    run(pages, 1, text(tail=15))
    run(pages, 2, text(1, tail=15))
    assert pages.cached(0, text(tail=15)) == 0
    assert pages.cached(0, text(1, tail=15)) == SIZE
    assert pages.use().prefixes == SIZE * SHAPE.token_bytes


def test_tokens_are_compared_and_not_their_hashes_alone() -> None:
    """-1 and -2 have one hash, and so have texts of them."""
    assert hash((-1,) * 16) == hash((-2,) * 16)
    pages = memory(6)
    run(pages, 1, [-1] * SIZE)
    assert pages.cached(0, [-2] * SIZE) == 0
    assert pages.cached(0, [-1] * SIZE) == SIZE


def test_without_a_store_nothing_is_kept() -> None:
    pages = memory(6, keeps_prefixes=False)
    assert run(pages, 1, text(1, 2)) == 0
    assert run(pages, 2, text(1, 2)) == 0
    assert pages.use().max_prefixes == pages.use().prefixes == 0


def test_a_new_pool_keeps_nothing_and_tells_that_it_has_moved() -> None:
    kv = KVPages(SHAPE, SIZE)
    kv.allocate(3, 2)
    kv.write(0, torch.tensor([SIZE]), torch.ones(1, 3, 4), torch.ones(1, 3, 4))
    before = kv.reallocations
    kv.allocate(4, 3)
    assert kv.reallocations == before + 1
    assert not kv.keys(0).any()
    assert kv.places(0).shape == (4 * SIZE, 2, 3, 4)
    assert SHAPE.token_bytes * SIZE * 4 == kv._both.nbytes


@pytest.mark.parametrize("fault", ["page", "rows", "order"])
def test_bookkeeping_that_contradicts_itself_is_found(fault: str) -> None:
    pages = memory(6)
    run(pages, 1, text(1, 2))
    pages.reserve(2, 0, text(1, 9), 2 * SIZE)
    if fault == "page":
        pages._free.append(pages._free[0])
    elif fault == "rows":
        next(iter(pages._kept)).rows += 1
    else:
        pages._kept.move_to_end(next(iter(pages._kept)))
    with pytest.raises(ValueError, match="page"):
        pages.check_integrity()

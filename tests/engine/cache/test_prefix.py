from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.engine.cache.kv import KVArena, KVShape
from server.engine.cache.prefix import BLOCK_SIZE, BlockPool, PrefixIndex, block_bytes
from tests.tiers import cases


def text(*blocks: int, tail: int = 0) -> list[int]:
    """Whole blocks, each told by a number, and some tokens more."""
    return [100 * number + index for number in blocks for index in range(BLOCK_SIZE)] + [7] * tail


def test_the_longest_kept_beginning_is_found() -> None:
    index = PrefixIndex(8)
    added = index.add(0, text(1, 2, 3, tail=9))
    assert [number for number, _ in added] == [0, 1, 2]
    pool_indices = [pool_index for _, pool_index in added]
    assert index.match(0, text(1, 2, 3)) == pool_indices
    assert index.match(0, text(1, 2, 4, 3)) == pool_indices[:2]
    assert index.match(0, text(1, 2)[:-1]) == pool_indices[:1], "whole blocks alone"
    assert index.match(0, text(2, 3)) == index.match(0, []) == []


def test_what_is_kept_is_not_kept_twice() -> None:
    index = PrefixIndex(8)
    index.add(0, text(1, 2))
    assert [number for number, _ in index.add(0, text(1, 2, 3))] == [2]
    assert index.add(0, text(1, 2, 3)) == []
    assert [number for number, _ in index.add(0, text(1, 9))] == [1], "a branch"
    assert len(index) == 4


def test_another_load_shares_nothing() -> None:
    index = PrefixIndex(8)
    index.add(1, text(1, 2))
    assert index.match(0, text(1, 2)) == index.match(2, text(1, 2)) == []
    index.add(2, text(1))
    index.drop(1)
    assert index.match(1, text(1, 2)) == []
    assert len(index.match(2, text(1))) == 1
    index.check_integrity()


def test_tokens_are_compared_and_not_their_hashes_alone() -> None:
    """-1 and -2 have one hash, and so have texts of them, and the roots of two loads."""
    assert hash((-1,) * BLOCK_SIZE) == hash((-2,) * BLOCK_SIZE)
    index = PrefixIndex(8)
    index.add(0, [-1] * (2 * BLOCK_SIZE))
    assert index.match(0, [-2] * (2 * BLOCK_SIZE)) == []
    assert index.match(1, [-1] * (2 * BLOCK_SIZE)) == []
    assert len(index.match(0, [-1] * BLOCK_SIZE + [-2] * BLOCK_SIZE)) == 1
    index.add(0, [-2] * BLOCK_SIZE)
    assert index.match(0, [-2] * BLOCK_SIZE) != index.match(0, [-1] * BLOCK_SIZE)


class Colliding(tuple):
    """A key with the hash of every other one."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 1


def test_all_hashes_alike(monkeypatch) -> None:
    monkeypatch.setattr(
        "server.engine.cache.prefix._block_tokens",
        lambda tokens, number: Colliding(tokens[number * BLOCK_SIZE : (number + 1) * BLOCK_SIZE]),
    )
    index = PrefixIndex(20)
    texts = [(1, 2), (1, 3), (2, 1), (3,), (2, 2)]
    held = {}
    for blocks in texts:
        for number, pool_index in index.add(0, text(*blocks)):
            held[blocks[: number + 1]] = pool_index
    for blocks in texts:
        assert index.match(0, text(*blocks)) == [held[blocks[:n]] for n in range(1, len(blocks) + 1)]
    assert index.match(0, text(3, 1)) == [held[3,]]


def test_the_least_recently_used_leaf_goes_first() -> None:
    index = PrefixIndex(4)
    index.add(0, text(1, 2))
    index.add(0, text(3, 4))
    index.match(0, text(1, 2))
    index.add(0, text(5))
    assert [len(index.match(0, text(*blocks))) for blocks in ((1, 2), (3, 4), (5,))] == [2, 1, 1]


def test_a_text_never_evicts_its_own_beginning() -> None:
    index = PrefixIndex(3)
    assert [number for number, _ in index.add(0, text(1, 2, 3, 4, 5))] == [0, 1, 2]
    assert len(index.match(0, text(1, 2, 3, 4, 5))) == 3
    assert PrefixIndex(0).add(0, text(1)) == []


class Model(RuleBasedStateMachine):
    """Against the plainest store there is: a list of beginnings, the least recently used first."""

    CAPACITY = 6
    texts = st.lists(st.integers(1, 3), max_size=5).map(tuple)
    load_ids = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(self.CAPACITY)
        self.kept: list[tuple[int, tuple[int, ...]]] = []
        self.pool_indices: dict[tuple[int, tuple[int, ...]], int] = {}

    def chain(self, load_id: int, blocks: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
        beginnings = [(load_id, blocks[:count]) for count in range(1, len(blocks) + 1)]
        missing = next((n for n, beginning in enumerate(beginnings) if beginning not in self.kept), len(beginnings))
        return beginnings[:missing]

    def touch(self, chain) -> None:
        for beginning in reversed(chain):
            self.kept.remove(beginning)
            self.kept.append(beginning)

    def leaf(self, beginning) -> bool:
        load_id, blocks = beginning
        return not any(other == load_id and more[:-1] == blocks for other, more in self.kept)

    @rule(load_id=load_ids, blocks=texts, tail=st.integers(0, BLOCK_SIZE - 1))
    def match(self, load_id: int, blocks: tuple[int, ...], tail: int) -> None:
        found = self.chain(load_id, blocks)
        self.touch(found)
        expected = [self.pool_indices[beginning] for beginning in found]
        assert self.index.match(load_id, text(*blocks, tail=tail)) == expected

    @rule(load_id=load_ids, blocks=texts, tail=st.integers(0, BLOCK_SIZE - 1))
    def add(self, load_id: int, blocks: tuple[int, ...], tail: int) -> None:
        chain = self.chain(load_id, blocks)
        self.touch(chain)
        wanted = []
        for number in range(len(chain), len(blocks)):
            if len(self.kept) == self.CAPACITY:
                victim = next((one for one in self.kept if self.leaf(one) and one not in chain), None)
                if victim is None:
                    break
                self.kept.remove(victim)
                del self.pool_indices[victim]
            chain.append((load_id, blocks[: number + 1]))
            self.kept.append(chain[-1])
            wanted.append(number)
        self.touch(chain)
        added = self.index.add(load_id, text(*blocks, tail=tail))
        assert [number for number, _ in added] == wanted
        for number, pool_index in added:
            assert pool_index not in self.pool_indices.values(), "the place is another block's"
            self.pool_indices[load_id, blocks[: number + 1]] = pool_index

    @rule(load_id=load_ids)
    def drop(self, load_id: int) -> None:
        self.index.drop(load_id)
        self.kept = [beginning for beginning in self.kept if beginning[0] != load_id]
        self.pool_indices = {beginning: self.pool_indices[beginning] for beginning in self.kept}

    @rule()
    def clear(self) -> None:
        self.index.clear()
        self.kept, self.pool_indices = [], {}

    @invariant()
    def sound(self) -> None:
        self.index.check_integrity()
        assert len(self.index) == len(self.kept) <= self.CAPACITY
        for load_id, blocks in self.kept:
            assert len(blocks) == 1 or (load_id, blocks[:-1]) in self.kept, "a parent has left before its child"


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=cases(80, 1_600), stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("fault", ["pool_index", "children", "parent"])
def test_bookkeeping_that_contradicts_itself_is_found(fault: str) -> None:
    index = PrefixIndex(4)
    index.add(1, text(1, 2))
    block = next(block for block in index._blocks.values() if block.children)
    if fault == "pool_index":
        index._free.append(block.pool_index)
    elif fault == "children":
        block.children = 0
    else:
        del index._blocks[block.key], index._by_id[block.id]
        index._free.append(block.pool_index)
    with pytest.raises(ValueError, match=r"place|parent|children"):
        index.check_integrity()


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────


def random_(tensors) -> None:
    for tensor in tensors:
        tensor.normal_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_come_back_bit_by_bit_and_touch_nothing_else(dtype) -> None:
    shape = KVShape(3, 2, 4, 5, dtype, torch.device("cpu"))
    arena, pool = KVArena(shape), BlockPool(shape, 7)
    arena.fit(3, 5 * BLOCK_SIZE, {})
    for tensors in (arena.keys, arena.values, pool.keys, pool.values):
        random_(tensors)
    before = [tensor.clone() for tensor in (*pool.keys, *pool.values)]
    pool.save(arena, 1, [(1, 5), (2, 0), (3, 3)])
    for tensor, old in zip((*pool.keys, *pool.values), before, strict=True):
        assert torch.equal(tensor[[1, 2, 4, 6]], old[[1, 2, 4, 6]]), "another block has changed"
    saved = [tensor.clone() for tensor in (*arena.keys, *arena.values)]
    pool.load(arena, 2, [5, 0, 3])
    for tensor, old in zip((*arena.keys, *arena.values), saved, strict=True):
        assert torch.equal(tensor[2, :, : 3 * BLOCK_SIZE], old[1, :, BLOCK_SIZE : 4 * BLOCK_SIZE])
        assert torch.equal(tensor[2, :, 3 * BLOCK_SIZE :], old[2, :, 3 * BLOCK_SIZE :])
        assert torch.equal(tensor[:2], old[:2]), "another row has changed"


def test_a_block_costs_what_its_tensors_do() -> None:
    shape = KVShape(3, 2, 4, 5, torch.float32, torch.device("cpu"))
    pool = BlockPool(shape, 4)
    assert pool.block_bytes == block_bytes(shape)
    assert 4 * pool.block_bytes == sum(tensor.nbytes for tensor in (*pool.keys, *pool.values))

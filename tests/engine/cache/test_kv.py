from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.engine.cache import kv
from server.engine.cache.kv import KV_GRANULARITY, KVArena, KVBudget, KVShape, zeros
from tests.tiers import cases

SHAPE = KVShape(2, 3, 4, 5, torch.float32, torch.device("cpu"))


def test_the_budget_counts_tokens_in_bytes() -> None:
    budget = KVBudget(10_000, 10, 4)
    assert budget.total == 960
    first = budget.reserve(1, 600)
    assert (first.kv_slot, first.tokens) == (0, 640)
    assert budget.reserve(2, 380) is None
    assert budget.reserve(2, 300) is not None
    assert (budget.used, budget.longest) == (960, 640)
    budget.release(1)
    budget.release(1)
    assert budget.owners() == {2}
    assert budget.live() == {1: 320}


def test_what_a_slot_has_touched_counts_until_it_is_compacted() -> None:
    budget = KVBudget(1000, 1, 4)
    budget.reserve(1, 640)
    budget.release(1)
    assert budget.used == 640, "its pages are still there"
    again = budget.reserve(2, 64)
    assert (again.kv_slot, again.stale_tokens) == (0, 640)
    assert not budget.needs_compaction
    assert budget.reserve(3, 640) is not None
    assert budget.needs_compaction, "old pages must be freed for it"
    assert budget.used == 704


def test_a_row_reserves_once() -> None:
    budget = KVBudget(1000, 10, 2)
    budget.reserve(1, 5)
    with pytest.raises(ValueError, match="reserved already"):
        budget.reserve(1, 5)


def test_no_more_rows_than_slots() -> None:
    budget = KVBudget(10_000, 1, 2)
    assert budget.reserve(1, 5)
    assert budget.reserve(2, 5)
    assert budget.reserve(3, 5) is None
    budget.release(1)
    assert budget.reserve(3, 5).kv_slot == 0


def test_a_row_grows_while_there_is_capacity() -> None:
    budget = KVBudget(256, 1, 2)
    budget.reserve(1, 64)
    budget.reserve(2, 64)
    assert budget.grow(1, 100)
    assert not budget.grow(1, 200)
    assert budget.live() == {0: 128, 1: 64}


class Budgets(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.budget = KVBudget(KV_GRANULARITY * 12, 1, 4)
        self.rows: dict[int, int] = {}
        self.count = 0

    @rule(tokens=st.integers(1, KV_GRANULARITY * 8))
    def reserve(self, tokens: int) -> None:
        self.count += 1
        if self.budget.reserve(self.count, tokens) is not None:
            self.rows[self.count] = tokens

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), more=st.integers(1, KV_GRANULARITY * 4))
    def grow(self, data, more: int) -> None:
        row = data.draw(st.sampled_from(sorted(self.rows)))
        if self.budget.grow(row, self.rows[row] + more):
            self.rows[row] += more

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def release(self, data) -> None:
        row = data.draw(st.sampled_from(sorted(self.rows)))
        self.budget.release(row)
        del self.rows[row]

    @invariant()
    def is_sound(self) -> None:
        self.budget.check_integrity()
        assert self.budget.owners() == set(self.rows)
        assert sum(self.budget.live().values()) >= sum(self.rows.values())

    @invariant()
    def an_empty_budget_fits_the_longest_row(self) -> None:
        if not self.rows:
            assert self.budget.reserve(0, self.budget.total) is not None
            self.budget.release(0)


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=cases(60, 1_200), stateful_step_count=30, deadline=None)


def filled(arena: KVArena, kv_slot: int, tokens: int, value: float) -> None:
    at = torch.full((tokens,), kv_slot), torch.arange(tokens)
    for layer in range(SHAPE.layers):
        arena.write(layer, *at, torch.full((tokens, 3, 4), value), torch.full((tokens, 3, 5), -value))


def test_the_arena_keeps_live_rows_when_it_grows_and_when_it_is_compacted() -> None:
    arena = KVArena(SHAPE)
    arena.fit(2, 100, {})
    assert arena.keys[1].shape == (2, 3, 256, 4)
    assert arena.values[1].shape == (2, 3, 256, 5)
    filled(arena, 0, 90, 1.0)
    filled(arena, 1, 90, 2.0)
    arena.fit(3, 300, {0: 128, 1: 128})
    assert arena.keys[0].shape == (3, 3, 512, 4)
    for kv_slot, value in ((0, 1.0), (1, 2.0)):
        assert (arena.keys[1][kv_slot, :, :90] == value).all()
        assert (arena.values[1][kv_slot, :, :90] == -value).all()
    arena.fit(2, 128, {1: 128}, compact=True)
    assert arena.keys[0].shape == (2, 3, 256, 4)
    assert (arena.keys[0][1, :, :90] == 2.0).all()
    assert not arena.keys[0][0].any(), "the row that left is gone"


def test_scrubbing_leaves_finite_numbers() -> None:
    arena = KVArena(SHAPE)
    arena.fit(2, 64, {})
    filled(arena, 1, 64, float("nan"))
    arena.scrub(1, 64)
    assert all(torch.isfinite(tensor).all() for tensor in (*arena.keys, *arena.values))


def test_a_token_costs_what_its_tensors_do() -> None:
    arena = KVArena(SHAPE)
    arena.fit(1, 256, {})
    assert SHAPE.token_bytes * 256 == sum(tensor.nbytes for tensor in (*arena.keys, *arena.values))


def test_memory_running_out_half_way_leaves_an_arena_that_fits_again(monkeypatch) -> None:
    arena, made = KVArena(SHAPE), []
    arena.fit(2, 2000, {})

    def scarce(*args):
        made.append(args)
        if len(made) == 2:
            raise RuntimeError("out of memory")
        return zeros(*args)

    monkeypatch.setattr(kv, "zeros", scarce)
    with pytest.raises(RuntimeError, match="out of memory"):
        arena.fit(2, 100, {}, compact=True)
    arena.fit(2, 2000, {})
    filled(arena, 1, 2000, 3.0)
    assert all((tensor[1, :, :2000].abs() == 3.0).all() for tensor in (*arena.keys, *arena.values))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to tell")
def test_memory_costs_nothing_until_it_is_written() -> None:
    before = resident_bytes()
    held = zeros((1 << 26,), SHAPE)
    assert resident_bytes() - before < held.nbytes // 4
    assert not held[::4096].any()
    held[: 1 << 25] = 1
    assert resident_bytes() - before >= held.nbytes // 2


def test_memory_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no memory for"):
        zeros((1 << 55,), SHAPE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_new_memory_is_zero_in_every_type(dtype) -> None:
    made = zeros((3, 5, 7), SHAPE._replace(dtype=dtype))
    assert (made.shape, made.dtype) == ((3, 5, 7), dtype)
    assert not made.any()
    assert zeros((0, 4), SHAPE).shape == (0, 4)


@torch.inference_mode()
def test_large_numbers_in_float16_are_finite() -> None:
    arena = KVArena(KVShape(1, 2, 8, 8, torch.float16, torch.device("cpu")))
    arena.fit(1, 256, {})
    arena.keys[0][0] = 60_000
    assert arena.all_finite(0, 256)
    arena.keys[0][0, 1, 255, 3] = float("inf")
    assert not arena.all_finite(0, 256)

"""Adapters' products for any mix of rows, against a sum row by row (the mixes of Punica's tests: Chen et al., 2023)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.engine.adapters.lora_layers import LoraBank, LoraGroup
from server.engine.adapters.reading import LoraPair
from server.engine.adapters.segments import LoraPlan, Segment, plan_rows, plan_segments
from tests.tiers import cases

CPU = torch.device("cpu")
LIKE = torch.zeros(1)
IN_FEATURES = 6
WIDTHS = {"one": [10], "grouped queries": [12, 4, 4], "alike": [6, 6], "unlike": [6, 10], "odd": [7, 3, 1]}
NAN = float("nan")


def pair(rng: np.random.Generator, rank: int, out: int) -> LoraPair:
    def normal(*size: int) -> torch.Tensor:
        return torch.tensor(rng.normal(size=size), dtype=torch.float32)

    return LoraPair(normal(rank, IN_FEATURES), normal(out, rank), float(rng.uniform(0.1, 3)))


class Layers:
    """A group of layers, and what each index of its stacks should hold."""

    def __init__(self, out_features: list[int], max_loras: int, seed: int = 0, fixed_rank: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.names = [f"layer{n}" for n in range(len(out_features))]
        self.out_features, self.max_loras = out_features, max_loras
        self.group = LoraGroup(self.names, IN_FEATURES, out_features, max_loras, LIKE, fixed_rank)
        self.pairs: dict[int, dict[str, LoraPair]] = {}

    def write(self, stack_index: int, ranks: list[int]) -> None:
        """A rank of 0 leaves that layer alone."""
        sizes = zip(self.names, ranks, self.out_features, strict=True)
        self.pairs[stack_index] = {name: pair(self.rng, rank, out) for name, rank, out in sizes if rank}
        packed = self.group.pack(self.pairs[stack_index])
        assert (packed is None) == (not any(ranks))
        if packed is not None:
            self.group.write(stack_index, packed)

    def clear(self, stack_index: int) -> None:
        self.pairs.pop(stack_index, None)
        self.group.clear(stack_index)

    def expected(self, x: torch.Tensor, y: torch.Tensor, segments: list[Segment]) -> torch.Tensor:
        y = y.double()
        for segment in segments:
            for row in range(segment.begin, segment.end):
                at = 0
                for name, out in zip(self.names, self.out_features, strict=True):
                    own = self.pairs.get(segment.stack_index, {}).get(name)
                    if own is not None:
                        y[row, at : at + out] += own.scale * (own.b.double() @ (own.a.double() @ x[row].double()))
                    at += out
        return y.float()

    def check(self, counts: dict[int, int], before: int = 0) -> None:
        """So many rows of each stack index, behind `before` rows of the base."""
        segments, at = [], before
        for stack_index in sorted(counts):
            segments.append(Segment(stack_index, at, at + counts[stack_index]))
            at += counts[stack_index]
        x = torch.tensor(self.rng.normal(size=(at, IN_FEATURES)), dtype=torch.float32)
        y = torch.tensor(self.rng.normal(size=(at, sum(self.out_features))), dtype=torch.float32)
        wanted = self.expected(x, y.clone(), segments)
        self.group.add(x, y, self.plan(segments, at))
        torch.testing.assert_close(y, wanted, atol=1e-4, rtol=1e-4)

    def plan(self, segments: list[Segment], rows: int) -> LoraPlan:
        return plan_rows(segments, rows, CPU) if self.group._fixed else plan_segments(segments)


def mix(kind: str, rows: int, max_loras: int, rng: np.random.Generator) -> dict[int, int]:
    """How many of the rows each stack index has."""
    if kind == "identical":
        return {int(rng.integers(max_loras)): rows}
    if kind == "distinct":
        return dict.fromkeys(range(min(rows, max_loras)), 1)
    if kind == "uniform":
        return dict.fromkeys(range(max_loras), max(1, rows // max_loras))
    if kind == "zipf":
        drawn = np.minimum(rng.zipf(1.5, rows) - 1, max_loras - 1)
    elif kind == "skewed":  # half of the rows have one adapter
        drawn = np.where(rng.random(rows) < 0.5, int(rng.integers(max_loras)), rng.integers(max_loras, size=rows))
    else:  # holes
        drawn = rng.choice(rng.permutation(max_loras)[: max(1, max_loras // 3)], rows)
    return {int(index): int(count) for index, count in zip(*np.unique(drawn, return_counts=True), strict=True)}


MIXES = ["identical", "distinct", "uniform", "zipf", "skewed", "holes"]


@pytest.mark.parametrize("kind", MIXES)
@given(
    widths=st.sampled_from(sorted(WIDTHS)),
    max_loras=st.integers(1, 12),
    rows=st.integers(1, 60),
    before=st.integers(0, 4),
    seed=st.integers(0, 1000),
    fixed_rank=st.sampled_from([0, 16]),
)
@settings(max_examples=cases(40, 1_000))
def test_any_mix_is_the_sum_row_by_row(
    kind: str, widths: str, max_loras: int, rows: int, before: int, seed: int, fixed_rank: int
) -> None:
    layers = Layers(WIDTHS[widths], max_loras, seed, fixed_rank)
    for stack_index in range(max_loras):
        if layers.rng.random() < 0.9:
            layers.write(stack_index, [int(rank) for rank in layers.rng.integers(0, 11, len(layers.out_features))])
    layers.check(mix(kind, rows, max_loras, layers.rng), before)


@pytest.mark.parametrize("fixed_rank", [0, 8])
def test_prompts_beside_single_rows(fixed_rank: int) -> None:
    layers = Layers(WIDTHS["grouped queries"], 6, 0, fixed_rank)
    for stack_index in range(6):
        layers.write(stack_index, [4, 2, 3])
    for counts in ({0: 1, 1: 200, 2: 1}, {0: 50, 5: 50}, {0: 15, 1: 16, 2: 17}, {3: 15, 4: 1}, {2: 300}):
        layers.check(counts, before=3)


@pytest.mark.parametrize("fixed_rank", [0, 8])
def test_a_plan_leaves_out_rows_of_the_base(fixed_rank: int) -> None:
    bank = LoraBank([("a",)], {"a": (IN_FEATURES, 4)}, 3, LIKE, fixed_rank)
    weights = {stack_index: pair(np.random.default_rng(stack_index), 2, 4) for stack_index in range(3)}
    for stack_index, own in weights.items():
        bank.write(stack_index, bank.pack({"a": own}))
    rows: list[tuple[int | None, int]] = [(None, 1), (None, 2), (0, 3), (0, 20), (1, 1), (2, 1), (2, 1)]
    x, y = torch.randn(29, IN_FEATURES), torch.zeros(29, 4)
    bank.group("a").add(x, y, bank.plan(rows))
    owners = [stack_index for stack_index, count in rows for _ in range(count)]
    for row, stack_index in enumerate(owners):
        own = None if stack_index is None else weights[stack_index]
        wanted = torch.zeros(4) if own is None else own.scale * (own.b @ (own.a @ x[row]))
        torch.testing.assert_close(y[row], wanted, atol=1e-5, rtol=1e-5)
    assert bank.plan([(None, 5)]) == []


# ── write and clear ──────────────────────────────────────────────────────────────────────────────


def test_ranks_follow_the_largest_adapter() -> None:
    layers = Layers(WIDTHS["grouped queries"], 4)
    everyone = dict.fromkeys(range(4), 2)
    assert layers.group.bytes == 0
    layers.write(1, [3, 0, 5])
    small = layers.group.bytes
    layers.check(everyone)
    layers.write(3, [20, 7, 1])
    assert layers.group.bytes == small * 3, "stacks of rank 24, in steps of 8"
    layers.check(everyone)
    layers.clear(3)
    layers.check(everyone)
    layers.write(0, [8, 8, 8])
    assert layers.group.bytes == small, "the largest has left"
    layers.check(everyone)
    layers.clear(1)
    layers.clear(0)
    assert layers.group.bytes == 0
    layers.check(everyone)


def test_an_adapter_that_touches_no_layer_of_the_group_takes_nothing() -> None:
    layers = Layers([4, 4], 3)
    assert layers.group.pack({"another": pair(layers.rng, 2, 4)}) is None
    assert layers.group.bytes == 0
    layers.check({0: 2, 1: 3})
    layers.clear(1)
    layers.write(0, [0, 3])
    layers.check({0: 2, 1: 3})


def test_a_stack_index_is_cleared_before_it_is_written() -> None:
    bank = LoraBank([("a", "b")], {"a": (IN_FEATURES, 4), "b": (IN_FEATURES, 4)}, 2, LIKE)
    rng = np.random.default_rng(0)
    bank.write(0, bank.pack({"a": pair(rng, 8, 4), "b": pair(rng, 8, 4)}))
    own = pair(rng, 2, 4)
    bank.write(0, bank.pack({"b": own}))
    x, y = torch.randn(1, IN_FEATURES), torch.zeros(1, 8)
    bank.group("a").add(x, y, bank.plan([(0, 1)]))
    assert not y[0, :4].any()
    torch.testing.assert_close(y[0, 4:], own.scale * (own.b @ (own.a @ x[0])), atol=1e-5, rtol=1e-5)
    bank.clear(0)
    bank.clear(0)
    assert (bank.bytes, bank.occupied) == (0, set())


@pytest.mark.parametrize("counts", [{0: 1, 2: 1, 4: 1}, {0: 3, 2: 1}, {2: 20}, {0: 2, 4: 2}, {0: 1, 4: 40}])
@pytest.mark.parametrize("fixed_rank", [0, 16])
def test_what_is_at_other_stack_indices_never_reaches_a_row(counts: dict[int, int], fixed_rank: int) -> None:
    """Not even NaN: indices that are empty, that have been cleared, or whose rows are not in this step."""
    layers = Layers(WIDTHS["grouped queries"], 6, 0, fixed_rank)
    for stack_index in range(5):
        layers.write(stack_index, [4, 2, 3])
    layers.clear(3)
    for stack_index in set(range(6)) - set(counts):
        layers.group._a[stack_index] = NAN
        layers.group._b[stack_index] = NAN
    layers.check(counts, before=2)


@pytest.mark.parametrize("fixed_rank", [0, 16])
@pytest.mark.parametrize("broken", range(6))
def test_a_row_that_is_no_number_stays_alone(broken: int, fixed_rank: int) -> None:
    layers = Layers([6, 4], 4, 0, fixed_rank)
    for stack_index in range(4):
        layers.write(stack_index, [3, 3])
    segments = [Segment(0, 1, 2), Segment(1, 2, 4), Segment(3, 4, 6)]
    x, y = torch.randn(6, IN_FEATURES), torch.zeros(6, 10)
    wanted = layers.expected(x, y.clone(), segments)
    x[broken] = NAN
    layers.group.add(x, y, layers.plan(segments, 6))
    others = [row for row in range(6) if row != broken]
    torch.testing.assert_close(y[others], wanted[others], atol=1e-5, rtol=1e-5)


def test_stacks_of_a_fixed_rank_never_move() -> None:
    layers = Layers(WIDTHS["grouped queries"], 3, 0, fixed_rank=20)
    group = layers.group
    before = group.bytes, group.reallocations, group._a.data_ptr(), group._b.data_ptr(), group._gains.data_ptr()
    assert group.rank == 24
    for stack_index, ranks in ((0, [3, 0, 5]), (2, [20, 7, 1]), (1, [8, 8, 8])):
        layers.write(stack_index, ranks)
        layers.check({0: 2, 2: 1})
    for stack_index in range(3):
        layers.clear(stack_index)
    layers.check({0: 2, 1: 1})
    after = group.bytes, group.reallocations, group._a.data_ptr(), group._b.data_ptr(), group._gains.data_ptr()
    assert after == before


class Stacks(RuleBasedStateMachine):
    """Adapters of all ranks come and go in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers(WIDTHS["unlike"], 5)

    @rule(stack_index=st.integers(0, 4), ranks=st.tuples(*[st.sampled_from([0, 1, 4, 8, 9, 16, 17])] * 2))
    def write(self, stack_index: int, ranks: tuple[int, int]) -> None:
        self.layers.clear(stack_index)
        self.layers.write(stack_index, list(ranks))

    @precondition(lambda self: self.layers.pairs)
    @rule(data=st.data())
    def clear(self, data) -> None:
        stack_index = data.draw(st.sampled_from(sorted(self.layers.pairs)))
        self.layers.clear(stack_index)
        if self.layers.group.bytes:
            assert not self.layers.group._a[stack_index].any()
            assert not self.layers.group._b[stack_index].any()

    @rule(counts=st.dictionaries(st.integers(0, 4), st.sampled_from([1, 2, 16]), min_size=1))
    def add(self, counts: dict[int, int]) -> None:
        self.layers.check(counts)

    @invariant()
    def memory_is_taken_for_what_is_loaded(self) -> None:
        anything = any(self.layers.pairs.values())
        assert bool(self.layers.group.bytes) == anything
        if anything:
            largest = max(own.a.shape[0] for pairs in self.layers.pairs.values() for own in pairs.values())
            assert self.layers.group.rank >= largest


TestStacks = Stacks.TestCase
TestStacks.settings = settings(max_examples=cases(40, 1_000), stateful_step_count=20, deadline=None)


def test_what_is_read_is_packed_in_the_numbers_of_the_stacks() -> None:
    """Else the thread of the model converts it, between two steps."""
    group = LoraGroup(("layer",), 6, [8], 2, torch.zeros(0, dtype=torch.bfloat16))
    packed = group.pack({"layer": LoraPair(torch.randn(4, 6), torch.randn(8, 4), 0.5)})
    assert packed is not None
    assert packed.a.dtype == packed.b.dtype == torch.bfloat16

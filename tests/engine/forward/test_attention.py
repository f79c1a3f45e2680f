"""One step's attention over many rows, against each row's own softmax written out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.cache.kv import KVArena, KVShape
from server.engine.forward.attention import AttentionStep, Span
from tests.tiers import cases

HEADS, KV_HEADS, KEY_DIM, VALUE_DIM = 4, 2, 6, 5
SHAPE = KVShape(2, KV_HEADS, KEY_DIM, VALUE_DIM, torch.float32, torch.device("cpu"))
SLOTS, CAPACITY = 8, 1024
NAN = float("nan")


@dataclass
class Row:
    """What a row has written, and the next tokens it brings."""

    kv_slot: int
    computed: int
    count: int


def written_out(q, keys, values, length: int, window: int, softcap: float | None):
    """q [count, heads, dim]; keys and values [length + count, kv heads, dim]."""
    out = torch.empty(len(q), HEADS, VALUE_DIM, dtype=torch.float64)
    for number in range(len(q)):
        at = length + number
        first = max(0, at - window + 1) if window else 0
        for head in range(HEADS):
            shared = head * KV_HEADS // HEADS
            scores = keys[first : at + 1, shared].double() @ q[number, head].double() * 0.3
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            out[number, head] = torch.softmax(scores, 0) @ values[first : at + 1, shared].double()
    return out.float()


def check(rows: list[Row], window: int = 0, softcap: float | None = None, seed: int = 0, poison: bool = True) -> None:
    """A step of these rows; what other slots hold is NaN, where `poison` is set."""
    torch.manual_seed(seed)
    arena = KVArena(SHAPE)
    arena.fit(SLOTS, CAPACITY, {})
    if poison:
        for slot in set(range(SLOTS)) - {row.kv_slot for row in rows}:
            for tensor in (*arena.keys, *arena.values):
                tensor[slot] = NAN
    spans, before = [], {}
    for row in rows:
        if row.computed:
            at = torch.full((row.computed,), row.kv_slot), torch.arange(row.computed)
            before[row.kv_slot] = (
                torch.randn(row.computed, KV_HEADS, KEY_DIM),
                torch.randn(row.computed, KV_HEADS, VALUE_DIM),
            )
            arena.write(1, *at, *before[row.kv_slot])
        begin = spans[-1].end if spans else 0
        spans.append(Span(begin, begin + row.count, row.kv_slot, row.computed))
    tokens = spans[-1].end
    q = torch.randn(tokens, HEADS, KEY_DIM)
    k, v = torch.randn(tokens, KV_HEADS, KEY_DIM), torch.randn(tokens, KV_HEADS, VALUE_DIM)
    step = AttentionStep.from_spans(arena, spans)
    assert step.positions.tolist() == [span.computed + n for span in spans for n in range(span.end - span.begin)]
    found = step.attend(1, q, k, v, 0.3, window, softcap)
    assert found.shape == (tokens, HEADS, VALUE_DIM)
    for span in spans:
        part = slice(span.begin, span.end)
        old_k, old_v = before.get(span.kv_slot, (k[:0], v[:0]))
        wanted = written_out(
            q[part], torch.cat((old_k, k[part])), torch.cat((old_v, v[part])), span.computed, window, softcap
        )
        torch.testing.assert_close(found[part], wanted, atol=1e-5, rtol=1e-4)


lengths = st.one_of(st.integers(0, 5), st.integers(60, 66), st.integers(0, 400))


@pytest.mark.parametrize("slots", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (3, 4, 5), (0, 2, 3)])
@pytest.mark.parametrize("length", [14, 15, 16, 17])
def test_rows_of_one_token_in_any_order(slots: tuple[int, ...], length: int) -> None:
    """In the order of their slots they are contiguous; keys are read up to multiples of 16."""
    check([Row(slot, length, 1) for slot in slots])


@given(
    slots=st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=SLOTS, unique=True),
    shapes=st.lists(st.tuples(lengths, st.sampled_from([1, 1, 1, 2, 7, 33])), min_size=SLOTS, max_size=SLOTS),
    window=st.sampled_from([0, 0, 1, 5, 64]),
    softcap=st.sampled_from([None, None, 2.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=cases(60, 1_200))
def test_any_step_is_each_rows_own_softmax(slots, shapes, window: int, softcap: float | None, seed: int) -> None:
    check([Row(slot, *shape) for slot, shape in zip(slots, shapes, strict=False)], window, softcap, seed)


@pytest.mark.parametrize("lengths", [[5] * SLOTS, [0] * SLOTS, [900] + [3] * 6, [3] * 6 + [900], [500] * 7, [63, 64]])
@pytest.mark.parametrize("window", [0, 7])
def test_rows_that_write_one_token_each(lengths: list[int], window: int) -> None:
    check([Row(slot, length, 1) for slot, length in enumerate(lengths)], window)


def test_a_window_is_right_on_both_sides_of_its_edge() -> None:
    for length in range(5, 9):
        check([Row(1, length, 1), Row(4, length, 3)], window=7)


def test_a_row_starts_anywhere_and_alone() -> None:
    for slot in (0, 3, SLOTS - 1):
        check([Row(slot, 0, 1)])
        check([Row(slot, 100, 1)])
        check([Row(slot, 10, 20)])

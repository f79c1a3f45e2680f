"""Against values computed by hand and published ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.evaluation.stats import mcnemar, wilson


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # rule-of-thumb table values of the score interval
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),  # the same
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson(right: int, rows: int, low: float, high: float):
    found = wilson(right, rows)
    assert found == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_in_bounds(counts: tuple[int, int]):
    right, rows = counts
    low, high = wilson(right, rows)
    assert 0 <= low <= right / rows <= high <= 1
    wider = wilson(right, rows, z=2.576)
    assert wider[0] <= low
    assert wider[1] >= high


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (6, 0, 2 / 64),
        (5, 0, 2 / 32),
        (8, 1, 2 * (1 + 9) / 512),
        (1, 8, 2 * (1 + 9) / 512),
        (12, 3, 2 * (1 + 15 + 105 + 455) / 2**15),
    ],
)
def test_mcnemar_is_the_two_sided_binomial_test(gained: int, lost: int, p: float):
    assert mcnemar(gained, lost) == pytest.approx(p)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_symmetric_and_a_probability(gained: int, lost: int):
    p = mcnemar(gained, lost)
    assert p == mcnemar(lost, gained)
    assert 0 < p <= 1
    assert math.isfinite(p)

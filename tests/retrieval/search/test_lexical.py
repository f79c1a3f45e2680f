from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.retrieval.index.segment import Mask, Segment
from server.retrieval.search.lexical import K1, B, BM25Scorer
from server.words import term_counts

TEXTS = ["fig pear", "fig fig plum", "melon", "pear salad, much pear"]


def part(texts: list[str], *alive: int) -> tuple[Segment, Mask]:
    """A segment of the texts, of which those rows live; all of them where none is named."""
    segment = Segment.build(
        list(range(len(texts))), [term_counts(text) for text in texts], np.zeros((len(texts), 4), np.float32)
    )
    return segment, segment.mask(alive or range(len(texts)))


def test_scores_are_bm25_by_the_formula() -> None:
    scores = BM25Scorer([part(TEXTS[:3])], ["fig"]).scores({"fig": 1.0})
    idf = math.log1p((3 - 2 + 0.5) / (2 + 0.5))
    expected = []
    for count, length in ((1, 2), (2, 3), (0, 1)):
        norm = K1 * (1 - B + B * length / 2)
        expected.append(idf * count * (K1 + 1) / (count + norm) / (idf * (K1 + 1)))
    assert scores == pytest.approx(expected, rel=1e-5)


def test_parts_score_like_one_index() -> None:
    weights = {"fig": 1.0, "pear": 2.0, "absent": 1.0}
    together = BM25Scorer([part(TEXTS)], weights).scores(weights)
    parted = BM25Scorer([part(TEXTS[:1]), part(TEXTS[1:])], weights).scores(weights)
    assert np.allclose(together, parted)


def test_deleted_rows_count_for_nothing() -> None:
    weights = {"fig": 1.0, "pear": 2.0}
    all_of_it = BM25Scorer([part(TEXTS[:2])], weights)
    some = BM25Scorer([part([*TEXTS[:2], "pear " * 40, "fig"], 0, 1)], weights)
    assert some.row_count == 2
    assert np.allclose(some.scores(weights)[:2], all_of_it.scores(weights))
    assert some.scores(weights)[2:].tolist() == [0, 0]


def test_a_rare_term_weighs_more() -> None:
    bm25 = BM25Scorer([part(TEXTS)], ["fig", "melon", "absent"])
    assert bm25.idf("absent") > bm25.idf("melon") > bm25.idf("fig") > 0


def test_a_value_is_added_where_a_term_is() -> None:
    bm25 = BM25Scorer([part(TEXTS[:2]), part(TEXTS[2:], 0)], ["pear", "melon", "nowhere"])
    scores = np.ones(4, np.float32)
    for term, value in (("pear", 2), ("melon", 4), ("nowhere", 8)):
        bm25.add_where(scores, term, value)
    assert scores.tolist() == [3, 1, 5, 1]  # the last row does not live


def test_no_term_or_no_row_scores_nothing() -> None:
    assert BM25Scorer([part(TEXTS)], []).scores({}).tolist() == [0, 0, 0, 0]
    assert BM25Scorer([], ["fig"]).scores({"fig": 1.0}).shape == (0,)


@given(st.lists(st.text("abc ", max_size=20), min_size=1, max_size=8), st.lists(st.sampled_from("abc"), min_size=1))
@settings(deadline=None)
def test_scores_stay_between_zero_and_one(texts: list[str], weights: list[str]) -> None:
    weights = {term: 1.0 + weights.count(term) for term in weights}
    scores = BM25Scorer([part(texts)], weights).scores(weights)
    assert ((scores >= 0) & (scores <= 1)).all()

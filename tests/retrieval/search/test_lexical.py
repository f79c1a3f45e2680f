from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.retrieval.index.segment import Mask, Segment
from server.retrieval.search.lexical import K1, B, Matches
from server.words import term_counts

TEXTS = ["fig pear", "fig fig plum", "melon", "pear salad, much pear"]


def part(texts: list[str], *alive: int) -> tuple[Segment, Mask]:
    """A segment of the texts, of which those rows live; all of them where none is named."""
    segment = Segment.build(
        list(range(len(texts))), [term_counts(text) for text in texts], np.zeros((len(texts), 4), np.float32)
    )
    return segment, segment.mask(alive or range(len(texts)))


def test_scores_are_bm25_by_the_formula() -> None:
    scores = Matches([part(TEXTS[:3])], ["fig"]).bm25({"fig": 1.0})
    idf = math.log1p((3 - 2 + 0.5) / (2 + 0.5))
    expected = []
    for count, length in ((1, 2), (2, 3), (0, 1)):
        norm = K1 * (1 - B + B * length / 2)
        expected.append(idf * count * (K1 + 1) / (count + norm) / (idf * (K1 + 1)))
    assert scores == pytest.approx(expected, rel=1e-5)


def test_parts_score_like_one_index() -> None:
    asked = {"fig": 1.0, "pear": 2.0, "absent": 1.0}
    together = Matches([part(TEXTS)], asked).bm25(asked)
    parted = Matches([part(TEXTS[:1]), part(TEXTS[1:])], asked).bm25(asked)
    assert np.allclose(together, parted)


def test_rows_that_do_not_live_count_for_nothing() -> None:
    asked = {"fig": 1.0, "pear": 2.0}
    all_of_it = Matches([part(TEXTS[:2])], asked)
    some = Matches([part([*TEXTS[:2], "pear " * 40, "fig"], 0, 1)], asked)
    assert some.size == 2
    assert np.allclose(some.bm25(asked)[:2], all_of_it.bm25(asked))
    assert some.bm25(asked)[2:].tolist() == [0, 0]


def test_a_rare_term_weighs_more() -> None:
    matches = Matches([part(TEXTS)], ["fig", "melon", "absent"])
    assert matches.idf("absent") > matches.idf("melon") > matches.idf("fig") > 0


def test_a_value_is_added_where_a_term_is() -> None:
    matches = Matches([part(TEXTS[:2]), part(TEXTS[2:], 0)], ["pear", "melon", "nowhere"])
    scores = np.ones(4, np.float32)
    for term, value in (("pear", 2), ("melon", 4), ("nowhere", 8)):
        matches.add(scores, term, value)
    assert scores.tolist() == [3, 1, 5, 1]  # the last row does not live


def test_nothing_asked_or_nothing_there_scores_nothing() -> None:
    assert Matches([part(TEXTS)], []).bm25({}).tolist() == [0, 0, 0, 0]
    assert Matches([], ["fig"]).bm25({"fig": 1.0}).shape == (0,)


@given(
    st.lists(st.text("abc ", max_size=20), min_size=1, max_size=8), st.lists(st.sampled_from("abc"), min_size=1)
)
@settings(deadline=None)
def test_scores_stay_between_zero_and_one(texts: list[str], asked: list[str]) -> None:
    weights = {term: 1.0 + asked.count(term) for term in asked}
    scores = Matches([part(texts)], weights).bm25(weights)
    assert ((scores >= 0) & (scores <= 1)).all()

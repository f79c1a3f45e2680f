"""The best passages of a search are read together with the question: by a reader whose judgement is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from server.config import RetrievalSettings
from server.retrieval.search.evidence import Features, likelihood_read
from server.retrieval.search.searcher import Searcher
from server.types import Passage
from tests.fakes import WordEmbedder
from tests.retrieval.search.test_searcher import Files, generation

SETTINGS = RetrievalSettings(passages=2)
FILES: Files = {
    ("shop", "fees.md"): [
        "The entrance fee of the museum is 12 euro for adults.",
        "The entrance fee of the museum is 5 euro for children.",
        "The entrance of the museum has a ramp.",
    ],
    ("shop", "other.md"): [f"Shelf number {number} holds lamps." for number in range(20)],
}


class Reader(WordEmbedder):
    """Log odds by a word of the passage; -40 without one."""

    def __init__(self, odds: Mapping[str, float] | None) -> None:
        super().__init__()
        self._odds = odds
        self.read: list[tuple[str, list[str]]] = []

    def answers(self, question: str, passages: Sequence[str]) -> NDArray[np.float32] | None:
        self.read.append((question, list(passages)))
        if self._odds is None:
            return None
        return np.array(
            [max((odds for word, odds in self._odds.items() if word in text), default=-40.0) for text in passages],
            np.float32,
        )


def search(reader: Reader, query: str, previous: str = "", settings: RetrievalSettings = SETTINGS) -> list[str]:
    return [one.text for one in passages(reader, query, previous, settings)]


def passages(
    reader: Reader, query: str, previous: str = "", settings: RetrievalSettings = SETTINGS
) -> tuple[Passage, ...]:
    searcher = Searcher(generation(FILES, reader), ("shop",), reader, settings, reader=reader)
    return searcher.search(query, previous)[0]


def test_what_it_finds_comes_first() -> None:
    assert search(Reader({"children": 40.0, "adults": 2.0}), "entrance fee museum")[0].endswith("for children.")
    assert search(Reader({"children": 2.0, "adults": 40.0}), "entrance fee museum")[0].endswith("for adults.")


def test_where_it_finds_no_answer_nothing_is_given() -> None:
    question = "entrance fee of the museum for families"
    assert search(Reader(None), question) != []
    assert search(Reader({}), question) == []


def test_a_passage_with_every_word_of_what_is_looked_up_is_given_however_it_reads() -> None:
    assert search(Reader({}), "shelf number 7")[0] == "Shelf number 7 holds lamps."


def test_a_passage_that_answers_is_given_though_others_look_much_nearer() -> None:
    assert "The entrance of the museum has a ramp." in search(Reader({"ramp": 40.0}), "entrance fee of the museum")


def test_only_the_best_are_read_and_none_of_what_cannot_answer() -> None:
    reader = Reader({"lamps": 40.0})
    search(reader, "shelf number lamps")
    ((question, texts),) = reader.read
    assert question == "shelf number lamps"
    assert len(texts) == SETTINGS.read
    reader = Reader({})
    assert search(reader, "capital of France") == []
    assert [texts for _, texts in reader.read if texts] == []


def test_none_are_read_where_the_operator_wants_none() -> None:
    reader = Reader({})
    assert search(reader, "entrance fee museum", settings=SETTINGS.model_copy(update={"read": 0})) != []
    assert reader.read == []


def test_a_follow_up_is_not_read_as_it_is_not_one_question() -> None:
    reader = Reader({})
    assert search(reader, "and for children?", "entrance fee museum")[0].endswith("for children.")
    assert reader.read == []


def test_a_language_that_it_does_not_know_is_not_read() -> None:
    reader = Reader({})
    search(reader, "박물관 입장료")
    assert reader.read == []


def test_a_trace_tells_the_likelihood_as_read_and_whoever_judges_evidence_sees_the_odds() -> None:
    reader = Reader({"children": 40.0})
    searcher = Searcher(generation(FILES, reader), ("shop",), reader, SETTINGS, reader=reader)
    best, *_ = searcher.search("entrance fee museum", traced=True)[1].candidates
    assert best.fate == "used"
    assert best.likelihood > 0.9
    assert best.reranked is None
    columns, passage = searcher.evidence("entrance fee museum", 2)[1]
    assert columns[-1] == (40.0 if "children" in passage.text else -40.0)
    blind = Searcher(generation(FILES, reader), ("shop",), reader, SETTINGS)
    assert len(blind.evidence("entrance fee museum", 2)[0][0]) == len(columns) - 1


def test_more_odds_are_more_likely_whatever_else_is_known() -> None:
    ones = np.ones(5, np.float32)
    features = Features(2 * ones, 0.3 * ones, 0.5 * ones, np.zeros(5, np.bool_), 500)
    found = likelihood_read(features, np.array([-30, -3, 0, 3, 30], np.float32))
    assert (np.diff(found) > 0).all()
    assert found[0] < 0.05
    assert found[-1] > 0.8

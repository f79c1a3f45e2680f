"""One question against all rows of the segments that are searched: scores, and how likely each row answers.

    dense      log odds that the passage answers the question, by the cosine and the embedder's calibration; counts only
               where the embedder knows the question's language
    coverage   share of the question's content words that the passage holds, weighed by idf
    lexical    BM25 over the most that the question could score, and coverage at a quarter of its weight
    score      w · dense + (1 - w) · lexical, in 0..1, and a fifth of the better neighbour's under the same heading
    likelihood that the passage answers, from all of them (`evidence.py`)

Scores on absolute scales need no ranks and no statistics of the candidates, so a side that cannot
score gives 0 instead of noise, and scores of two questions can be added. Knows nothing of files or of what is chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.relations import Relation, TextRole
from server.retrieval.index.segment import Mask, Rows, Segment
from server.retrieval.search.evidence import UNKNOWN_ODDS, Features, likelihood
from server.retrieval.search.lexical import BM25Scorer
from server.types import Embedder
from server.words import ContentWord, content_words, script_number, terms

CONTENT_WORD_WEIGHT: Final = 2  # of a content word's terms, over what stands around it (Korean endings)
CANDIDATES: Final = 200  # the best of each side that are scored by both
COVERAGE_WEIGHT: Final = 0.25  # weight of the coverage beside BM25 in the lexical score
ODDS_SCALE: Final = 28.0  # log odds by meaning, over those of texts that share nothing, that score all
LEAST_HOLDERS: Final = 2  # rows that a word counts as held by: one that no row holds proves nothing
NEIGHBOUR_WEIGHT: Final = 0.2  # … of the better one of the chunks before and after a chunk, beside its own

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SearchedSegment:
    """A segment, its first row among all, and the rows of it that are searched."""

    segment: Segment
    offset: int
    mask: Mask


@dataclass(frozen=True, slots=True)
class Scores:
    """One question against all rows: fused score, what it is made of, and how likely each row answers."""

    fused: Floats
    lexical: Floats
    meaning: Floats  # likelihood by the cosine; -1 where it was not computed
    coverage: Floats
    likelihood: Floats
    features: Features  # that it comes from
    weight: float  # of the meaning
    content: int  # how many content words the question has, …
    subjects: int  # … and how many of them weigh fully


class QuestionScorer:
    """`parts`: the segments in order; `rows`: how many of theirs are searched; `dense_weight`: of the meaning, 0 where
    the vectors are another embedder's."""

    def __init__(self, parts: Sequence[SearchedSegment], rows: int, embedder: Embedder, dense_weight: float) -> None:
        self._parts = parts
        self._row_count = rows
        self._size = sum(len(part.segment) for part in parts)
        self._embedder = embedder
        self._weight = dense_weight

    def score(self, query: str) -> Scores:
        words = content_words(query)
        term_weights: dict[str, float] = dict(Counter(terms(query)))
        for word in words:
            for term in word.terms:
                term_weights[term] = term_weights.get(term, 0) + CONTENT_WORD_WEIGHT * word.weight
        bm25 = BM25Scorer([(part.segment, part.mask) for part in self._parts], term_weights)
        coverage = self._coverage(words, bm25)
        bm25_scores = bm25.scores(term_weights)
        lexical = ((bm25_scores + COVERAGE_WEIGHT * coverage) / (1 + COVERAGE_WEIGHT)).astype(np.float32)
        weight = self._weight if self._embedder.knows(query) else 0.0
        crossing = self._crossing(query)
        meaning = np.full(self._size, -1.0, np.float32)
        if weight:
            self._compare(query, lexical, crossing, meaning)
        compared = meaning >= 0
        odds = np.full(self._size, UNKNOWN_ODDS, np.float32)
        odds[compared] = _log_odds(meaning[compared])
        features = Features(odds, bm25_scores, coverage, crossing, self._row_count)
        likely = likelihood(features, with_meaning=bool(weight))
        likely[~compared & (lexical <= 0)] = 0
        dense = np.clip((odds - np.float32(UNKNOWN_ODDS)) / np.float32(ODDS_SCALE), 0, 1)
        fused = self._with_neighbours(np.float32(weight) * dense + np.float32(1 - weight) * lexical)
        subjects = sum(word.weight >= 1 for word in words)
        return Scores(fused, lexical, meaning, coverage, likely, features, weight, len(words), subjects)

    def _coverage(self, words: Sequence[ContentWord], bm25: BM25Scorer) -> Floats:
        """[rows]: the share of the question's content words that each holds."""
        coverage = np.zeros(self._size, np.float32)
        total_weight = 0.0
        for word in words:
            idf = sum(bm25.idf(term, least_holders=LEAST_HOLDERS) for term in word.terms) / len(word.terms)
            share = word.weight * idf
            total_weight += share
            for term in set(word.terms):
                bm25.add_where(coverage, term, share * word.terms.count(term) / len(word.terms))
        coverage /= np.float32(total_weight or 1)
        return coverage

    def _crossing(self, query: str) -> Mask:
        """[rows]: those written in another script than the question, as far as both are known."""
        wanted = script_number(query)
        if not wanted or not self._parts:
            return np.zeros(self._size, np.bool_)
        scripts = np.concatenate([part.segment.scripts for part in self._parts])
        return np.asarray((scripts != wanted) & (scripts != 0))

    def _with_neighbours(self, own_score: Floats) -> Floats:
        """[rows]: adds the better neighbour's score, since a chunk's context shows its topic. A chunk alone is its own
        neighbour."""
        fused = own_score / np.float32(1 + NEIGHBOUR_WEIGHT)
        for part in self._parts:
            values = own_score[part.offset : part.offset + len(part.mask)]
            best_neighbour = part.segment.best_neighbour(values) * np.float32(NEIGHBOUR_WEIGHT / (1 + NEIGHBOUR_WEIGHT))
            best_neighbour *= values > 0
            fused[part.offset : part.offset + len(part.mask)] += best_neighbour
        return fused

    def _compare(self, query: str, lexical: Floats, crossing: Mask, meaning: Floats) -> None:
        """Writes into `meaning` how likely each row answers by its cosine: of the nearest rows, the best lexical ones,
        and the neighbours of both."""
        vector = self._embedder.embed([query], TextRole.QUERY)[0]
        best = highest(lexical, CANDIDATES)
        for part in self._parts:
            inside = best[(best >= part.offset) & (best < part.offset + len(part.segment))] - part.offset
            wanted = np.zeros(len(part.mask), np.bool_)
            wanted[part.segment.nearest(vector, CANDIDATES, part.mask)] = True
            wanted[inside] = True
            selected = wanted.copy()
            selected[1:] |= wanted[:-1]
            selected[:-1] |= wanted[1:]
            rows = np.flatnonzero(selected & part.mask)
            cosines, all_rows = part.segment.cosines(vector, rows), rows + part.offset
            meaning[all_rows] = self._embedder.likelihood(Relation.ANSWER, cosines, crossing=crossing[all_rows])


def highest(scores: Floats, count: int, *, min_score: float = 0.0) -> Rows:
    """The rows of the highest scores over `min_score`, best first."""
    rows = np.flatnonzero(scores > min_score)
    if len(rows) > count:
        rows = rows[np.argpartition(scores[rows], -count)[-count:]]
    ordered: Rows = rows[np.argsort(-scores[rows], kind="stable")]
    return ordered


def _log_odds(likelihoods: Floats) -> Floats:
    inside = np.clip(likelihoods.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(inside / (1 - inside)), np.float32)

"""Finds passages in one generation: dense and lexical scores on absolute scales, then an evidence gate.

    cosine     of question and passage, by FAISS; counts only where the embedder knows the question's language
    lexical    BM25 over the most that the question could score
    score      w · cosine + (1 - w) · lexical, in 0..1
    coverage   share of the question's content words that the passage holds, weighed by idf

Scores on absolute scales need no ranks and no statistics of the candidates, so a side that is blind
gives nothing instead of noise, and scores of two questions can be added. Knows nothing of files on
disk or of how a generation came about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from server.config import RetrievalSettings
from server.retrieval.generation import FileKey, Generation
from server.retrieval.lexical import Matches
from server.retrieval.words import is_courtesy, is_follow_up, terms, units
from server.types import Embedder, Passage

QUERY_CHARS = 4000
CONTENT_WEIGHT = 2        # of a content word's terms, over what stands around it (Korean endings)
CANDIDATES = 200          # the best of each side that are scored by both
LONG_QUESTION = 5         # content words; of so many, the right passage often holds less than half
MIN_LEXICAL = 0.22        # … so they also pass by their lexical score
EARLIER_WEIGHT = 1.0      # of the score of the previous message and this one together
NEAR_BEST = 0.5           # share of the best score under which a passage only distracts
NEAR_COPY = 0.9           # share of common words over which two passages say the same


@dataclass(frozen=True, slots=True)
class _Scores:
    """One question against all rows: fused score, and what the gate asks."""

    fused: NDArray[np.float32]
    lexical: NDArray[np.float32]
    cosine: NDArray[np.float32]      # -1 where the dense side was not asked
    coverage: NDArray[np.float32]
    content: int                     # how many content words the question has


class Searcher:
    """The rows of some folders of one generation, searched with one embedder's vectors."""

    def __init__(
        self,
        generation: Generation,
        folders: Sequence[str],
        embedder: Embedder,
        settings: RetrievalSettings,
        gone: Collection[FileKey] = (),
    ) -> None:
        self._generation = generation
        self._embedder = embedder
        self._settings = settings
        self._gone = gone
        asked = sorted(set(folders))
        self._spans = [generation.span(folder) for folder in asked]
        self._parts = [part for folder in asked for part in generation.lexical(folder)]
        self._rows = np.concatenate([np.arange(0), *(np.arange(start, end) for start, end in self._spans)])

    def search(self, query: str, earlier: str = "") -> tuple[Passage, ...]:
        """The best passages, at most `settings.passages`, best first; none unless one passes the gate."""
        if not len(self._rows):
            return ()
        query, earlier = _bounded(query), _bounded(earlier)
        if is_courtesy(query):
            return ()
        alone = self._score(query)
        fused: NDArray[np.float32] = alone.fused
        passes = self._passes(alone)
        if earlier.strip() and is_follow_up(query):
            both = self._score(f"{earlier} {query}")
            fused = ((alone.fused + EARLIER_WEIGHT * both.fused) / (1 + EARLIER_WEIGHT)).astype(np.float32)
            passes = passes | (self._passes(both) & self._is_touched(alone))
        if not passes.any():
            return ()
        # rows stand in the order of folder, file and place, so a stable sort settles ties for ever
        order = np.argsort(-fused, kind="stable")
        order = order[fused[order] >= max(NEAR_BEST * fused[order[0]], np.finfo(np.float32).tiny)]
        return tuple(self._distinct([(row, float(fused[row])) for row in order]))

    def _score(self, query: str) -> _Scores:
        words = units(query)
        asked: dict[str, float] = dict(Counter(terms(query)))
        for word in words:
            for term in word.terms:
                asked[term] = asked.get(term, 0) + CONTENT_WEIGHT * word.weight
        matches = Matches(self._parts, asked)
        lexical = matches.bm25(asked)
        weight = self._settings.dense_weight if self._embedder.knows(query) else 0.0
        cosine = self._cosine(query, lexical) if weight else np.full(len(self._rows), -1.0, np.float32)
        fused: NDArray[np.float32] = np.float32(weight) * np.clip(cosine, 0, 1) + np.float32(1 - weight) * lexical
        coverage = np.zeros(len(self._rows), np.float32)
        mass = 0.0
        for word in words:
            share = word.weight * sum(matches.idf(term) for term in word.terms) / len(word.terms)
            mass += share
            for term in set(word.terms):
                coverage[matches.rows(term)] += share * word.terms.count(term) / len(word.terms)
        return _Scores(fused, lexical, cosine, (coverage / (mass or 1)).astype(np.float32), len(words))

    def _cosine(self, query: str, lexical: NDArray[np.float32]) -> NDArray[np.float32]:
        """[rows]: true cosines for the nearest rows and for the best lexical ones, -1 for the rest."""
        vector = self._embedder.embed([query])
        cosine = np.full(len(self._rows), -1.0, np.float32)
        index, offset = self._generation.index, 0
        best = set(np.argsort(-lexical, kind="stable")[:CANDIDATES].tolist())
        for start, end in self._spans:
            if end == start:
                continue
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorRange(start, end))  # type: ignore[call-arg]
            scores, rows = index.search(vector, min(CANDIDATES, end - start), params=chosen)
            cosine[rows[0] - start + offset] = scores[0]
            for row in best & set(range(offset, offset + end - start)):
                cosine[row] = vector[0] @ index.reconstruct(start + row - offset)
            offset += end - start
        return cosine

    def _passes(self, scores: _Scores) -> NDArray[np.bool_]:
        near = (scores.cosine > -1) & (scores.cosine >= self._settings.min_similarity)
        covered = (scores.coverage > 0) & (scores.coverage >= self._settings.min_coverage)
        long = scores.content >= LONG_QUESTION
        return near | covered | (long & (scores.lexical >= MIN_LEXICAL))

    def _is_touched(self, alone: _Scores) -> NDArray[np.bool_]:
        """What passes by the previous message must have something of this one too, if it says anything."""
        if not alone.content:
            return np.ones(len(self._rows), dtype=np.bool_)
        return (alone.coverage > 0) | (alone.cosine >= 0.6 * self._settings.min_similarity)

    def _distinct(self, ranked: Sequence[tuple[int, float]]) -> list[Passage]:
        """Best first, without those that say nearly word for word what a better one says."""
        kept: list[Passage] = []
        vocabularies: list[frozenset[str]] = []
        for row, score in ranked:
            if len(kept) == self._settings.passages:
                break
            key, chunk = self._generation.rows[self._rows[row]]
            if key in self._gone:
                continue
            vocabulary = frozenset(terms(chunk.text)) or frozenset([chunk.text])
            if any(_overlap(vocabulary, other) >= NEAR_COPY for other in vocabularies):
                continue
            vocabularies.append(vocabulary)
            kept.append(chunk.passage(key, round(score, 6)))
        return kept


def _bounded(text: str) -> str:
    """A pasted book is not a question: its beginning and its end are searched for."""
    return text if len(text) <= QUERY_CHARS else f"{text[: QUERY_CHARS // 2]} {text[-QUERY_CHARS // 2 :]}"


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)

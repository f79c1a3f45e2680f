"""Finds passages in one generation: dense and lexical scores on absolute scales, then an evidence gate.

    cosine     of question and passage, by FAISS; counts only where the embedder knows the question's language
    coverage   share of the question's content words that the passage holds, weighed by idf
    lexical    BM25 over the most that the question could score, and coverage at half its weight
    score      w · cosine + (1 - w) · lexical, in 0..1, and a fifth of the better neighbour's under the same heading

Scores on absolute scales need no ranks and no statistics of the candidates, so a side that cannot
score gives 0 instead of noise, and scores of two questions can be added. Knows nothing of files on disk or of how a
generation is made.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import PurePath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.config import RetrievalSettings
from server.retrieval.index.files import Chunk, FileKey
from server.retrieval.index.generation import FileVersion, Generation
from server.retrieval.index.segment import Mask, Rows, Segment
from server.retrieval.search.lexical import BM25Scorer
from server.retrieval.search.reranker import Reranker
from server.retrieval.search.results import Candidate, SearchTrace
from server.types import Embedder, Passage
from server.words import (
    content_words,
    is_courtesy,
    is_explicit_follow_up,
    is_follow_up,
    needs_subject,
    terms,
    without_retracted,
)

QUERY_CHARS: Final = 4000
CONTENT_WORD_WEIGHT: Final = 2  # of a content word's terms, over what stands around it (Korean endings)
CANDIDATES: Final = 200  # the best of each side that are scored by both
RERANKED_CANDIDATES: Final = 20  # the best that a cross-encoder puts into order, where one is set
TRACED_CANDIDATES: Final = 20  # candidates in a trace
COVERAGE_WEIGHT: Final = 0.5  # weight of the coverage beside BM25 in the lexical score
NEIGHBOUR_WEIGHT: Final = 0.2  # … of the better one of the chunks before and after a chunk, beside its own
LONG_QUESTION: Final = 4  # content words; of so many, the right passage often holds less than half, …
MIN_SCORE: Final = 0.44  # … so their whole score counts: it must reach this share of `min_coverage`
JOINT_SHARE: Final = 0.5  # weight of the score of the previous message and this one together, …
PRONOUN_SHARE: Final = 0.85  # … where a pronoun stands for the subject, …
BARE_SHARE: Final = 1.0  # … and where it has no content word
RELATED_SHARE: Final = 0.6  # of `min_similarity`, that a passage of the previous message needs, …
RELATED_SHARE_STANDALONE: Final = 0.75  # … and where this message could stand alone
NEAR_BEST: Final = 0.6  # share of the best score under which a passage only distracts
NEAR_BEST_UNINFORMATIVE: Final = 0.25  # … where only the message before could be searched for
NEAR_COPY: Final = 0.9  # share of common words over which two passages say the same

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """Restricts a search to files: `files` are patterns as of a shell (`2026/*.md`), `kinds` endings without the dot,
    `since` and `until` bound the time of the file's last change, in seconds. What is empty restricts nothing."""

    files: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def matches(self, version: FileVersion) -> bool:
        name, changed = version.key.file, version.record.mtime_ns / 1e9
        if self.files and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.files):
            return False
        if self.kinds and PurePath(name).suffix.lower().lstrip(".") not in self.kinds:
            return False
        return (self.since is None or changed >= self.since) and (self.until is None or changed <= self.until)


@dataclass(frozen=True, slots=True)
class _SearchedSegment:
    """A segment, its first row among all, and the rows of it that are searched."""

    segment: Segment
    offset: int
    mask: Mask


@dataclass(frozen=True, slots=True)
class _Scores:
    """One question against all rows: fused score, and what the gate tests."""

    fused: Floats
    lexical: Floats
    cosine: Floats  # -1 where it was not computed
    coverage: Floats
    weight: float  # of the cosine
    content: int  # how many content words the question has, …
    subjects: int  # … and how many of them weigh fully


class Searcher:
    """The rows of some folders of one generation, searched with one embedder's vectors.

    `deleted` are files that no longer exist, `dense` is False where the generation has another embedder's vectors.
    """

    def __init__(
        self,
        generation: Generation,
        folders: Sequence[str],
        embedder: Embedder,
        settings: RetrievalSettings,
        *,
        deleted: Collection[FileKey] = (),
        filters: SearchFilter | None = None,
        dense: bool = True,
        reranker: Reranker | None = None,
    ) -> None:
        self._generation = generation
        self._embedder = embedder
        self._settings = settings
        self._dense = dense
        self._reranker = reranker
        hidden = {generation.files[key].id for key in deleted if key in generation.files}
        if filters is not None:
            hidden |= {version.id for version in generation.versions.values() if not filters.matches(version)}
        self._parts: list[_SearchedSegment] = []
        offset = 0
        for folder in sorted(set(folders)):
            for view in generation.views.get(folder, {}).values():
                mask = view.live_rows & ~view.segment.mask(hidden) if hidden else view.live_rows
                self._parts.append(_SearchedSegment(view.segment, offset, mask))
                offset += len(view.segment)
        self._size = offset
        self._offsets = np.array([part.offset for part in self._parts], np.int64)
        self._row_count = sum(int(part.mask.sum()) for part in self._parts)

    def search(
        self, query: str, previous_query: str = "", *, traced: bool = False
    ) -> tuple[tuple[Passage, ...], SearchTrace]:
        """The best passages, at most `settings.passages`, best first; none unless one passes the gate. The trace has
        candidates only if it is asked for."""
        query, previous_query = _truncated(query), _truncated(previous_query)
        if not self._row_count or is_courtesy(query):
            return (), self._trace((), 0.0, ())
        follows = bool(previous_query.strip()) and is_follow_up(query)
        if follows:
            query, previous_query = without_retracted(query, previous_query)
        own = self._score(query)
        fused = own.fused
        queries: tuple[str, ...] = (query,)
        gate = self._gate(own)
        near_best = NEAR_BEST
        if follows:
            queries = (query, f"{previous_query} {query}")
            joint = self._score(queries[1])
            share = PRONOUN_SHARE if needs_subject(query) or not own.subjects else JOINT_SHARE
            share = share if own.content else BARE_SHARE
            fused = ((1 - share) * own.fused + share * joint.fused).astype(np.float32)
            by_previous = (self._gate(joint) > 0) & self._is_related(own, query)
            if self._is_uninformative(own, query):  # then only the previous message says what is meant
                by_previous = self._gate(self._score(previous_query)) > 0
                near_best = NEAR_BEST_UNINFORMATIVE
            gate = np.where((gate == 0) & by_previous, _BY_PREVIOUS, gate)
        passed = bool(gate.any())
        if not passed and not traced:
            return (), self._trace(queries, own.weight, ())
        min_score = near_best * float(fused.max())
        reranked = self._reranked(queries[-1], fused, min_score) if passed else {}
        used, fates = self._selected(fused, min_score, reranked, passed=passed, traced=traced)
        candidates = self._candidates(own, fused, gate, reranked, fates) if traced else ()
        return tuple(used), self._trace(queries, own.weight, candidates)

    def _trace(self, queries: tuple[str, ...], weight: float, candidates: tuple[Candidate, ...]) -> SearchTrace:
        settings = self._settings
        return SearchTrace(queries, weight, settings.min_similarity, settings.min_coverage, self._row_count, candidates)

    # ── scores ───────────────────────────────────────────────────────────────────────────────────

    def _score(self, query: str) -> _Scores:
        words = content_words(query)
        term_weights: dict[str, float] = dict(Counter(terms(query)))
        for word in words:
            for term in word.terms:
                term_weights[term] = term_weights.get(term, 0) + CONTENT_WORD_WEIGHT * word.weight
        bm25 = BM25Scorer([(part.segment, part.mask) for part in self._parts], term_weights)
        coverage = np.zeros(self._size, np.float32)
        total_weight = 0.0
        subjects = sum(word.weight >= 1 for word in words)
        for word in words:
            share = word.weight * sum(bm25.idf(term) for term in word.terms) / len(word.terms)
            total_weight += share
            for term in set(word.terms):
                bm25.add_where(coverage, term, share * word.terms.count(term) / len(word.terms))
        coverage /= np.float32(total_weight or 1)
        lexical = ((bm25.scores(term_weights) + COVERAGE_WEIGHT * coverage) / (1 + COVERAGE_WEIGHT)).astype(np.float32)
        weight = self._settings.dense_weight if self._dense and self._embedder.knows(query) else 0.0
        cosine = self._cosine(query, lexical) if weight else np.full(self._size, -1.0, np.float32)
        own_score: Floats = np.float32(weight) * self._dense_score(cosine) + np.float32(1 - weight) * lexical
        return _Scores(self._with_neighbours(own_score), lexical, cosine, coverage, weight, len(words), subjects)

    def _dense_score(self, cosine: Floats) -> Floats:
        """[rows] in 0..1: cosines on one scale for all embedders, on which `min_similarity` is .4."""
        min_similarity = min(self._settings.min_similarity, 0.999)
        zero = (min_similarity - 0.4) / 0.6
        score: Floats = np.clip((cosine - np.float32(zero)) / np.float32(1 - zero), 0, 1)
        return score

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

    def _cosine(self, query: str, lexical: Floats) -> Floats:
        """[rows]: true cosines for the nearest rows, for the best lexical ones and for their neighbours, -1 for the
        rest."""
        vector = self._embedder.embed([query])[0]
        cosine = np.full(self._size, -1.0, np.float32)
        best = _highest(lexical, CANDIDATES)
        for part in self._parts:
            inside = best[(best >= part.offset) & (best < part.offset + len(part.segment))] - part.offset
            wanted = np.zeros(len(part.mask), np.bool_)
            wanted[part.segment.nearest(vector, CANDIDATES, part.mask)] = True
            wanted[inside] = True
            selected = wanted.copy()
            selected[1:] |= wanted[:-1]
            selected[:-1] |= wanted[1:]
            rows = np.flatnonzero(selected & part.mask)
            cosine[rows + part.offset] = part.segment.cosines(vector, rows)
        return cosine

    def _gate(self, scores: _Scores, *, similar: float = 1.0) -> NDArray[np.int8]:
        """[rows]: what lets each through, 0 for nothing. `similar`: share of `min_similarity` that is enough."""
        near = (scores.cosine > -1) & (scores.cosine >= similar * self._settings.min_similarity)
        covered = (scores.coverage > 0) & (scores.coverage >= self._settings.min_coverage)
        if scores.content >= LONG_QUESTION:
            enough = scores.fused >= MIN_SCORE * self._settings.min_coverage
            near, covered = enough & near, enough
        gate = np.zeros(self._size, np.int8)
        gate[covered] = _BY_WORDS
        gate[near & ~(scores.coverage >= self._settings.min_coverage)] = _BY_MEANING
        return gate

    def _is_related(self, own: _Scores, query: str) -> Mask:
        """A passage that passes by the previous message must match this one too, if it has content, and more so where
        it does not point back and could stand alone."""
        if not own.content:
            return np.ones(self._size, dtype=np.bool_)
        if own.content > 1 and not is_explicit_follow_up(query):
            return self._gate(own, similar=RELATED_SHARE_STANDALONE) > 0
        return (own.coverage > 0) | (own.cosine >= RELATED_SHARE * self._settings.min_similarity)

    def _is_uninformative(self, own: _Scores, query: str) -> bool:
        """The message has only verbs, or points back with a word that no passage has and the embedder does not know."""
        if own.weight or not own.content:
            return False
        return own.subjects == 0 or (own.subjects == 1 and not own.coverage.any() and is_explicit_follow_up(query))

    # ── selection ────────────────────────────────────────────────────────────────────────────────

    def _reranked(self, query: str, fused: Floats, min_score: float) -> dict[int, float]:
        """By the cross-encoder, if there is one: its scores of the best rows that are not far below the best."""
        if self._reranker is None:
            return {}
        rows = [row for row in islice(self._ranked(fused), RERANKED_CANDIDATES) if fused[row] >= min_score]
        chunks = {row: chunk for row in rows if (chunk := self._chunk_at(row)[1]) is not None}
        scores = self._reranker.scores(query, [chunk.embedded_text for chunk in chunks.values()])
        return dict(zip(chunks, scores.tolist(), strict=True))

    def _selected(
        self, fused: Floats, min_score: float, reranked: Mapping[int, float], *, passed: bool, traced: bool
    ) -> tuple[list[Passage], dict[int, tuple[str, Passage]]]:
        """The passages used, and the fate of each row considered, best first, without near copies of better ones."""
        used: list[Passage] = []
        fates: dict[int, tuple[str, Passage]] = {}
        vocabularies: list[frozenset[str]] = []
        shown: list[int] = []
        to_trace = TRACED_CANDIDATES if traced else 0
        rest = (row for row in self._ranked(fused) if row not in reranked)
        for row in chain(sorted(reranked, key=lambda row: -reranked[row]), rest):
            full = len(used) == self._settings.passages
            if len(fates) >= to_trace and (not passed or full or fused[row] < min_score):
                break
            key, chunk = self._chunk_at(row)
            if chunk is None:
                continue  # its generation has just been pruned
            passage = chunk.passage(key, round(float(fused[row]), 6))
            fate = "used"
            vocabulary = frozenset(terms(chunk.text)) or frozenset([chunk.text])
            if not passed:
                fate = "no evidence"
            elif fused[row] < min_score:
                fate = "far below the best"
            elif chunk.suspicion > self._settings.max_suspicion:
                fate = "poses as an instruction"
            elif (copy_of := _near_copy_of(vocabulary, vocabularies)) is not None:
                fate = "near copy"
                if self._tie_break(row) < self._tie_break(shown[copy_of]) and used[copy_of].file == passage.file:
                    # of copies in one file the first is shown, at the rank of the best
                    fates[shown[copy_of]] = (fate, fates[shown[copy_of]][1])
                    shown[copy_of], used[copy_of], fate = row, replace(passage, score=used[copy_of].score), "used"
            elif len(used) == self._settings.passages:
                fate = "beyond the limit"
            else:
                vocabularies.append(vocabulary)
                used.append(passage)
                shown.append(row)
            fates[row] = (fate, passage)
        return used, fates

    def _ranked(self, fused: Floats) -> Iterator[int]:
        """The best rows, best first; of equal ones the first by file and position."""
        best = _highest(fused, CANDIDATES)
        scores = np.round(fused[best], 6).tolist()
        for _, group in groupby(zip(scores, best.tolist(), strict=True), key=lambda pair: pair[0]):
            rows = [row for _, row in group]
            yield from sorted(rows, key=self._tie_break) if len(rows) > 1 else rows

    def _candidates(
        self,
        own: _Scores,
        fused: Floats,
        gate: NDArray[np.int8],
        reranked: Mapping[int, float],
        fates: Mapping[int, tuple[str, Passage]],
    ) -> tuple[Candidate, ...]:
        ranks = {row: rank for rank, row in enumerate(self._ranked(fused), 1)}
        dense = {row: rank for rank, row in enumerate(_highest(own.cosine, CANDIDATES, min_score=-1.0).tolist(), 1)}
        lexical = {row: rank for rank, row in enumerate(_highest(own.lexical, CANDIDATES).tolist(), 1)}
        return tuple(
            Candidate(
                passage,
                round(float(own.cosine[row]), 4) if row in dense else None,
                dense.get(row),
                round(float(own.lexical[row]), 4),
                lexical.get(row),
                round(float(fused[row]), 4),
                ranks[row],
                round(float(own.coverage[row]), 4),
                _GATES[int(gate[row])],
                fate,
                round(reranked[row], 4) if row in reranked else None,
            )
            for row, (fate, passage) in islice(fates.items(), TRACED_CANDIDATES)
        )

    def _tie_break(self, row: int) -> tuple[str, str, int]:
        """Folder, file and position in it: a stable order of equal scores."""
        version, position = self._locate(row)
        return version.key.folder, version.key.file, position

    def _chunk_at(self, row: int) -> tuple[FileKey, Chunk | None]:
        version, position = self._locate(row)
        return version.key, self._generation.read(version.id, position)

    def _locate(self, row: int) -> tuple[FileVersion, int]:
        part = self._parts[int(np.searchsorted(self._offsets, row, side="right")) - 1]
        row_in_segment = row - part.offset
        version = int(part.segment.versions[row_in_segment])
        return self._generation.versions[version], row_in_segment - part.segment.span(version)[0]


_BY_MEANING, _BY_WORDS, _BY_PREVIOUS = 1, 2, 3
_GATES: Final = ("", "meaning", "words", "earlier")


def _highest(scores: Floats, count: int, *, min_score: float = 0.0) -> Rows:
    """The rows of the highest scores over `min_score`, best first."""
    rows = np.flatnonzero(scores > min_score)
    if len(rows) > count:
        rows = rows[np.argpartition(scores[rows], -count)[-count:]]
    ordered: Rows = rows[np.argsort(-scores[rows], kind="stable")]
    return ordered


def _truncated(text: str) -> str:
    """Of a very long query the beginning and the end are searched for."""
    return text if len(text) <= QUERY_CHARS else f"{text[: QUERY_CHARS // 2]} {text[-QUERY_CHARS // 2 :]}"


def _near_copy_of(vocabulary: frozenset[str], others: Sequence[frozenset[str]]) -> int | None:
    """The index of one that says the same."""
    return next((at for at, other in enumerate(others) if _overlap(vocabulary, other) >= NEAR_COPY), None)


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)

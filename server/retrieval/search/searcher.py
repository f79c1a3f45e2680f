"""Finds passages in one generation: scores of the question (`scoring.py`), of it with the one before, a reading of the
best beside it where the embedder has learned to, an evidence gate, and a choice of the best without near copies. Knows
nothing of files on disk or of how a generation is made.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import PurePath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.config import RetrievalSettings
from server.relations import Reader
from server.retrieval.index.files import Chunk, FileKey
from server.retrieval.index.generation import FileVersion, Generation
from server.retrieval.index.segment import Mask
from server.retrieval.search.evidence import likelihood_read
from server.retrieval.search.reranker import Reranker
from server.retrieval.search.results import Candidate, SearchTrace
from server.retrieval.search.scoring import CANDIDATES, Floats, QuestionScorer, Scores, SearchedSegment, highest
from server.types import Embedder, Passage
from server.words import (
    is_courtesy,
    is_explicit_follow_up,
    is_follow_up,
    needs_subject,
    terms,
    without_retracted,
)

QUERY_CHARS: Final = 4000
READ_FROM: Final = 0.02  # how likely a passage has to answer before it is read
RERANKED_CANDIDATES: Final = 20  # the best that a cross-encoder puts into order, where one is set
TRACED_CANDIDATES: Final = 20  # candidates in a trace
JOINT_SHARE: Final = 0.5  # weight of the score of the previous message and this one together, …
PRONOUN_SHARE: Final = 0.85  # … where a pronoun stands for the subject, …
BARE_SHARE: Final = 1.0  # … and where it has no content word
RELATED_SHARE: Final = 0.35  # of `min_likelihood`, that a passage of the previous message needs, …
RELATED_SHARE_STANDALONE: Final = 0.85  # … and where this message could stand alone
NEAR_BEST: Final = 0.6  # share of the best score under which a passage only distracts
NEAR_BEST_UNINFORMATIVE: Final = 0.25  # … where only the message before could be searched for
NEAR_COPY: Final = 0.9  # share of common words over which two passages say the same


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
        reader: Reader | None = None,
    ) -> None:
        self._generation = generation
        self._settings = settings
        self._reranker = reranker
        self._reader = reader if settings.read else None
        hidden = {generation.files[key].id for key in deleted if key in generation.files}
        if filters is not None:
            hidden |= {version.id for version in generation.versions.values() if not filters.matches(version)}
        self._parts: list[SearchedSegment] = []
        offset = 0
        for folder in sorted(set(folders)):
            for view in generation.views.get(folder, {}).values():
                mask = view.live_rows & ~view.segment.mask(hidden) if hidden else view.live_rows
                self._parts.append(SearchedSegment(view.segment, offset, mask))
                offset += len(view.segment)
        self._size = offset
        self._offsets = np.array([part.offset for part in self._parts], np.int64)
        self._row_count = sum(int(part.mask.sum()) for part in self._parts)
        weight = settings.dense_weight if dense else 0.0
        self._scorer = QuestionScorer(self._parts, self._row_count, embedder, weight)

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
        own = self._scorer.score(query)
        fused = own.fused
        queries: tuple[str, ...] = (query,)
        near_best = NEAR_BEST
        judged, read = (own, {}) if follows else self._read(own, query)  # it has learned to read one question
        gate = self._gate(judged)
        if follows:
            queries = (query, f"{previous_query} {query}")
            joint = self._scorer.score(queries[1])
            share = PRONOUN_SHARE if needs_subject(query) or not own.subjects else JOINT_SHARE
            share = share if own.content else BARE_SHARE
            fused = ((1 - share) * own.fused + share * joint.fused).astype(np.float32)
            by_previous = (self._gate(joint) > 0) & self._is_related(own, query)
            if self._is_uninformative(own, query):  # then only the previous message says what is meant
                by_previous = self._gate(self._scorer.score(previous_query)) > 0
                near_best = NEAR_BEST_UNINFORMATIVE
            gate = np.where((gate == 0) & by_previous, _BY_PREVIOUS, gate)
        passed = bool(gate.any())
        if not passed and not traced:
            return (), self._trace(queries, own.weight, ())
        min_score = near_best * float(fused.max())
        first = (self._reranked(queries[-1], fused, min_score) if self._reranker else read) if passed else {}
        near = (fused >= min_score) | ((gate > 0) if read else False)
        used, fates = self._selected(fused, near, first, passed=passed, traced=traced)
        candidates = self._candidates(judged, fused, gate, first, fates) if traced else ()
        return tuple(used), self._trace(queries, own.weight, candidates)

    def relevance(self, query: str) -> float | None:
        """How likely the best passage answers; None where there is none to look at, or nothing to look for."""
        query = _truncated(query)
        if not self._row_count or is_courtesy(query):
            return None
        likelihood = self._scorer.score(query).likelihood
        searched = np.concatenate([part.mask for part in self._parts])
        return float(likelihood[searched].max(initial=0.0))

    def evidence(self, query: str, count: int) -> list[tuple[Floats, Passage]]:
        """The best passages, whether the gate lets them through or not, with the columns of their `Features`, and what
        the reader finds, if there is one."""
        query = _truncated(query)
        own = self._scorer.score(query)
        chunks = self._chunks_at(list(islice(self._ranked(own.fused), count)))
        columns = own.features.at(list(chunks)).columns()
        odds = self._odds(own, query, [chunk for _, chunk in chunks.values()])
        if odds is not None:
            columns = np.column_stack([columns, odds])
        passages = [chunk.passage(key, float(own.fused[row])) for row, (key, chunk) in chunks.items()]
        return list(zip(columns, passages, strict=True))

    def _trace(self, queries: tuple[str, ...], weight: float, candidates: tuple[Candidate, ...]) -> SearchTrace:
        settings = self._settings
        return SearchTrace(queries, weight, settings.min_likelihood, self._row_count, candidates)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def _read(self, scores: Scores, question: str) -> tuple[Scores, dict[int, float]]:
        """The scores as the reader sees the best rows, and how likely each of those answers. A row that was not read is
        not likely to. The same scores, and nothing, where there is no reader."""
        best = islice(self._ranked(scores.fused), self._settings.read) if self._reader else ()
        chunks = self._chunks_at([row for row in best if scores.likelihood[row] >= READ_FROM])
        odds = self._odds(scores, question, [chunk for _, chunk in chunks.values()])
        if odds is None:
            return scores, {}
        likelihood = np.zeros_like(scores.likelihood)
        likelihood[list(chunks)] = likelihood_read(scores.features.at(list(chunks)), odds)
        return replace(scores, likelihood=likelihood), {row: float(likelihood[row]) for row in chunks}

    def _odds(self, scores: Scores, question: str, chunks: Sequence[Chunk]) -> Floats | None:
        if self._reader is None or not scores.weight:  # it does not know the question's language either
            return None
        return self._reader.answers(question, [chunk.embedded_text for chunk in chunks])

    # ── the gate ─────────────────────────────────────────────────────────────────────────────────

    def _gate(self, scores: Scores, *, share: float = 1.0) -> NDArray[np.int8]:
        """[rows]: what lets each through, 0 for nothing. `share`: of `min_likelihood` that is enough."""
        passed = (scores.likelihood > 0) & (scores.likelihood >= share * self._settings.min_likelihood)
        by_words = passed & (scores.coverage >= np.maximum(scores.meaning, 0.0))
        gate = np.where(passed, _BY_MEANING, 0).astype(np.int8)
        gate[by_words] = _BY_WORDS
        return gate

    def _is_related(self, own: Scores, query: str) -> Mask:
        """A passage that passes by the previous message must match this one too, if it has content, and more so where
        it does not point back and could stand alone."""
        if not own.content:
            return np.ones(self._size, dtype=np.bool_)
        if own.content > 1 and not is_explicit_follow_up(query):
            return self._gate(own, share=RELATED_SHARE_STANDALONE) > 0
        return (own.coverage > 0) | (self._gate(own, share=RELATED_SHARE) > 0)

    def _is_uninformative(self, own: Scores, query: str) -> bool:
        """The message has only verbs, or points back with a word that no passage has and the embedder does not know."""
        if own.weight or not own.content:
            return False
        return own.subjects == 0 or (own.subjects == 1 and not own.coverage.any() and is_explicit_follow_up(query))

    # ── selection ────────────────────────────────────────────────────────────────────────────────

    def _reranked(self, query: str, fused: Floats, min_score: float) -> dict[int, float]:
        """By the cross-encoder, if there is one: its scores of the best rows that are not far below the best."""
        if self._reranker is None:
            return {}
        best = islice(self._ranked(fused), RERANKED_CANDIDATES)
        chunks = self._chunks_at([row for row in best if fused[row] >= min_score])
        scores = self._reranker.scores(query, [chunk.embedded_text for _, chunk in chunks.values()])
        return dict(zip(chunks, scores.tolist(), strict=True))

    def _selected(
        self, fused: Floats, near: Mask, first: Mapping[int, float], *, passed: bool, traced: bool
    ) -> tuple[list[Passage], dict[int, tuple[str, Passage]]]:
        """The passages used, and the fate of each row considered, best first, without near copies of better ones.
        `near`: those not far below the best. `first`: scores of rows that come before the others."""
        used: list[Passage] = []
        fates: dict[int, tuple[str, Passage]] = {}
        vocabularies: list[frozenset[str]] = []
        shown: list[int] = []
        to_trace = TRACED_CANDIDATES if traced else 0
        rest = (row for row in self._ranked(fused) if row not in first)
        for row in chain(sorted(first, key=lambda row: -first[row]), rest):
            full = len(used) == self._settings.passages
            if len(fates) >= to_trace and (not passed or full or not (near[row] or row in first)):
                break
            key, chunk = self._chunk_at(row)
            if chunk is None:
                continue  # its generation has just been pruned
            passage = chunk.passage(key, round(float(fused[row]), 6))
            fate = "used"
            vocabulary = frozenset(terms(chunk.text)) or frozenset([chunk.text])
            if not passed:
                fate = "no evidence"
            elif not near[row]:
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
        best = highest(fused, CANDIDATES)
        scores = np.round(fused[best], 6).tolist()
        for _, group in groupby(zip(scores, best.tolist(), strict=True), key=lambda pair: pair[0]):
            rows = [row for _, row in group]
            yield from sorted(rows, key=self._tie_break) if len(rows) > 1 else rows

    def _candidates(
        self,
        own: Scores,
        fused: Floats,
        gate: NDArray[np.int8],
        first: Mapping[int, float],
        fates: Mapping[int, tuple[str, Passage]],
    ) -> tuple[Candidate, ...]:
        ranks = {row: rank for rank, row in enumerate(self._ranked(fused), 1)}
        dense = {row: rank for rank, row in enumerate(highest(own.meaning, CANDIDATES, min_score=-1.0).tolist(), 1)}
        lexical = {row: rank for rank, row in enumerate(highest(own.lexical, CANDIDATES).tolist(), 1)}
        return tuple(
            Candidate(
                passage,
                round(float(own.meaning[row]), 4) if row in dense else None,
                dense.get(row),
                round(float(own.lexical[row]), 4),
                lexical.get(row),
                round(float(fused[row]), 4),
                ranks[row],
                round(float(own.coverage[row]), 4),
                round(float(own.likelihood[row]), 4),
                _GATES[int(gate[row])],
                fate,
                round(first[row], 4) if self._reranker and row in first else None,
            )
            for row, (fate, passage) in islice(fates.items(), TRACED_CANDIDATES)
        )

    def _tie_break(self, row: int) -> tuple[str, str, int]:
        """Folder, file and position in it: a stable order of equal scores."""
        version, position = self._locate(row)
        return version.key.folder, version.key.file, position

    def _chunks_at(self, rows: Sequence[int]) -> dict[int, tuple[FileKey, Chunk]]:
        """By row, without those whose generation has just been pruned."""
        found = ((row, self._chunk_at(row)) for row in rows)
        return {row: (key, chunk) for row, (key, chunk) in found if chunk is not None}

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


def _truncated(text: str) -> str:
    """Of a very long query the beginning and the end are searched for."""
    return text if len(text) <= QUERY_CHARS else f"{text[: QUERY_CHARS // 2]} {text[-QUERY_CHARS // 2 :]}"


def _near_copy_of(vocabulary: frozenset[str], others: Sequence[frozenset[str]]) -> int | None:
    """The index of one that says the same."""
    return next((at for at, other in enumerate(others) if _overlap(vocabulary, other) >= NEAR_COPY), None)


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)

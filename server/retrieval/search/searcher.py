"""Finds passages in one generation: dense and lexical scores on absolute scales, then an evidence gate.

    cosine     of question and passage, by FAISS; counts only where the embedder knows the question's language
    coverage   share of the question's content words that the passage holds, weighed by idf
    lexical    BM25 over the most that the question could score, and coverage at half its weight
    score      w · cosine + (1 - w) · lexical, in 0..1, and a fifth of the better neighbour's under the same heading

Scores on absolute scales need no ranks and no statistics of the candidates, so a side that is blind
gives nothing instead of noise, and scores of two questions can be added. Knows nothing of files on
disk or of how a generation came about.
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
from server.retrieval.index.generation import Generation, Version
from server.retrieval.index.segment import Mask, Rows, Segment
from server.retrieval.search.lexical import Matches
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
CONTENT_WEIGHT: Final = 2        # of a content word's terms, over what stands around it (Korean endings)
CANDIDATES: Final = 200          # the best of each side that are scored by both
RERANKED: Final = 20             # the best that a cross-encoder puts into order, where one is set
TRACED: Final = 20               # candidates that a trace tells of
COVERED: Final = 0.5             # weight of the coverage beside BM25 in the lexical score
NEIGHBOUR: Final = 0.2           # … of the better one of the chunks before and after a chunk, beside its own
LONG_QUESTION: Final = 4         # content words; of so many, the right passage often holds less than half, …
MIN_SCORE: Final = 0.44          # … so their whole score counts: it must reach this share of `min_coverage`
BOTH_SHARE: Final = 0.5          # of the score of the previous message and this one together, …
PRONOUN_SHARE: Final = 0.85      # … where a pronoun stands for the subject, …
BARE_SHARE: Final = 1.0          # … and where it has no content word
TOUCHED: Final = 0.6             # share of `min_similarity` that a passage of the previous message needs, …
TOUCHED_OWN: Final = 0.75        # … and where this message could stand alone
NEAR_BEST: Final = 0.6           # share of the best score under which a passage only distracts
NEAR_BEST_SILENT: Final = 0.25   # … where only the message before could be searched for
NEAR_COPY: Final = 0.9           # share of common words over which two passages say the same

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Where:
    """Narrows a search to files: `files` are patterns as of a shell (`2026/*.md`), `kinds` endings without the dot,
    `since` and `until` bound the time of the file's last change, in seconds. What is empty bounds nothing."""

    files: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def admits(self, version: Version) -> bool:
        name, changed = version.key.file, version.record.mtime_ns / 1e9
        if self.files and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.files):
            return False
        if self.kinds and PurePath(name).suffix.lower().lstrip(".") not in self.kinds:
            return False
        return (self.since is None or changed >= self.since) and (self.until is None or changed <= self.until)


@dataclass(frozen=True, slots=True)
class _Part:
    """A segment, its first row among all, and the rows of it that are searched."""

    segment: Segment
    offset: int
    mask: Mask


@dataclass(frozen=True, slots=True)
class _Scores:
    """One question against all rows: fused score, and what the gate asks."""

    fused: Floats
    lexical: Floats
    cosine: Floats       # -1 where the dense side was not asked
    coverage: Floats
    weight: float        # of the cosine
    content: int         # how many content words the question has, …
    subjects: int        # … and how many of them weigh fully


class Searcher:
    """The rows of some folders of one generation, searched with one embedder's vectors.

    `gone` are files that no longer exist, `dense` is False where the generation holds another embedder's vectors.
    """

    def __init__(
        self,
        generation: Generation,
        folders: Sequence[str],
        embedder: Embedder,
        settings: RetrievalSettings,
        *,
        gone: Collection[FileKey] = (),
        where: Where | None = None,
        dense: bool = True,
        reranker: Reranker | None = None,
    ) -> None:
        self._generation = generation
        self._embedder = embedder
        self._settings = settings
        self._dense = dense
        self._reranker = reranker
        hidden = {generation.files[key].id for key in gone if key in generation.files}
        if where is not None:
            hidden |= {version.id for version in generation.versions.values() if not where.admits(version)}
        self._parts: list[_Part] = []
        offset = 0
        for folder in sorted(set(folders)):
            for view in generation.views.get(folder, {}).values():
                mask = view.alive & ~view.segment.mask(hidden) if hidden else view.alive
                self._parts.append(_Part(view.segment, offset, mask))
                offset += len(view.segment)
        self._rows = offset
        self._firsts = np.array([part.offset for part in self._parts], np.int64)
        self._living = sum(int(part.mask.sum()) for part in self._parts)

    def search(self, query: str, earlier: str = "", *, traced: bool = False) -> tuple[tuple[Passage, ...], SearchTrace]:
        """The best passages, at most `settings.passages`, best first; none unless one passes the gate. The trace has
        candidates only if it is asked for."""
        query, earlier = _bounded(query), _bounded(earlier)
        if not self._living or is_courtesy(query):
            return (), self._trace((), 0.0, ())
        follows = bool(earlier.strip()) and is_follow_up(query)
        if follows:
            query, earlier = without_retracted(query, earlier)
        alone = self._score(query)
        fused = alone.fused
        queries: tuple[str, ...] = (query,)
        gate = self._gate(alone)
        near_best = NEAR_BEST
        if follows:
            queries = (query, f"{earlier} {query}")
            both = self._score(queries[1])
            share = PRONOUN_SHARE if needs_subject(query) or not alone.subjects else BOTH_SHARE
            share = share if alone.content else BARE_SHARE
            fused = ((1 - share) * alone.fused + share * both.fused).astype(np.float32)
            by_earlier = (self._gate(both) > 0) & self._is_touched(alone, query)
            if self._is_silent(alone, query):  # then nothing but the message before can tell
                by_earlier = self._gate(self._score(earlier)) > 0
                near_best = NEAR_BEST_SILENT
            gate = np.where((gate == 0) & by_earlier, _EARLIER, gate)
        passed = bool(gate.any())
        if not passed and not traced:
            return (), self._trace(queries, alone.weight, ())
        least = near_best * float(fused.max())
        reranked = self._reranked(queries[-1], fused, least) if passed else {}
        used, fates = self._chosen(fused, least, reranked, passed=passed, traced=traced)
        candidates = self._candidates(alone, fused, gate, reranked, fates) if traced else ()
        return tuple(used), self._trace(queries, alone.weight, candidates)

    def _trace(self, queries: tuple[str, ...], weight: float, candidates: tuple[Candidate, ...]) -> SearchTrace:
        settings = self._settings
        return SearchTrace(
            queries, weight, settings.min_similarity, settings.min_coverage, self._living, candidates
        )

    # ── scores ───────────────────────────────────────────────────────────────────────────────────

    def _score(self, query: str) -> _Scores:
        words = content_words(query)
        asked: dict[str, float] = dict(Counter(terms(query)))
        for word in words:
            for term in word.terms:
                asked[term] = asked.get(term, 0) + CONTENT_WEIGHT * word.weight
        matches = Matches([(part.segment, part.mask) for part in self._parts], asked)
        coverage = np.zeros(self._rows, np.float32)
        mass = 0.0
        subjects = sum(word.weight >= 1 for word in words)
        for word in words:
            share = word.weight * sum(matches.idf(term) for term in word.terms) / len(word.terms)
            mass += share
            for term in set(word.terms):
                matches.add(coverage, term, share * word.terms.count(term) / len(word.terms))
        coverage /= np.float32(mass or 1)
        lexical = ((matches.bm25(asked) + COVERED * coverage) / (1 + COVERED)).astype(np.float32)
        weight = self._settings.dense_weight if self._dense and self._embedder.knows(query) else 0.0
        cosine = self._cosine(query, lexical) if weight else np.full(self._rows, -1.0, np.float32)
        own: Floats = np.float32(weight) * self._dense_score(cosine) + np.float32(1 - weight) * lexical
        return _Scores(self._with_neighbours(own), lexical, cosine, coverage, weight, len(words), subjects)

    def _dense_score(self, cosine: Floats) -> Floats:
        """[rows] in 0..1: cosines on one scale for all embedders, on which `min_similarity` is .4."""
        least = min(self._settings.min_similarity, 0.999)
        zero = (least - 0.4) / 0.6
        score: Floats = np.clip((cosine - np.float32(zero)) / np.float32(1 - zero), 0, 1)
        return score

    def _with_neighbours(self, own: Floats) -> Floats:
        """[rows]: what stands beside a chunk tells what it is about. A chunk alone is its own neighbour."""
        fused = own / np.float32(1 + NEIGHBOUR)
        for part in self._parts:
            values = own[part.offset : part.offset + len(part.mask)]
            beside = part.segment.beside(values) * np.float32(NEIGHBOUR / (1 + NEIGHBOUR))
            beside *= values > 0
            fused[part.offset : part.offset + len(part.mask)] += beside
        return fused

    def _cosine(self, query: str, lexical: Floats) -> Floats:
        """[rows]: true cosines for the nearest rows, for the best lexical ones and for their neighbours, -1 for the
        rest."""
        vector = self._embedder.embed([query])[0]
        cosine = np.full(self._rows, -1.0, np.float32)
        best = _highest(lexical, CANDIDATES)
        for part in self._parts:
            inside = best[(best >= part.offset) & (best < part.offset + len(part.segment))] - part.offset
            wanted = np.zeros(len(part.mask), np.bool_)
            wanted[part.segment.nearest(vector, CANDIDATES, part.mask)] = True
            wanted[inside] = True
            beside = wanted.copy()
            beside[1:] |= wanted[:-1]
            beside[:-1] |= wanted[1:]
            rows = np.flatnonzero(beside & part.mask)
            cosine[rows + part.offset] = part.segment.cosines(vector, rows)
        return cosine

    def _gate(self, scores: _Scores, *, similar: float = 1.0) -> NDArray[np.int8]:
        """[rows]: what lets each through, 0 for nothing. `similar`: share of `min_similarity` that is enough."""
        near = (scores.cosine > -1) & (scores.cosine >= similar * self._settings.min_similarity)
        covered = (scores.coverage > 0) & (scores.coverage >= self._settings.min_coverage)
        if scores.content >= LONG_QUESTION:
            enough = scores.fused >= MIN_SCORE * self._settings.min_coverage
            near, covered = enough & near, enough
        gate = np.zeros(self._rows, np.int8)
        gate[covered] = _WORDS
        gate[near & ~(scores.coverage >= self._settings.min_coverage)] = _MEANING
        return gate

    def _is_touched(self, alone: _Scores, query: str) -> Mask:
        """What passes by the previous message must have something of this one too, if it says anything, and more of
        it where it does not point back and could stand alone."""
        if not alone.content:
            return np.ones(self._rows, dtype=np.bool_)
        if alone.content > 1 and not is_explicit_follow_up(query):
            return self._gate(alone, similar=TOUCHED_OWN) > 0
        return (alone.coverage > 0) | (alone.cosine >= TOUCHED * self._settings.min_similarity)

    def _is_silent(self, alone: _Scores, query: str) -> bool:
        """The message has verbs alone, or points back with a word that no passage holds and no vector tells."""
        if alone.weight or not alone.content:
            return False
        if alone.subjects == 0:
            return True
        return alone.subjects == 1 and not alone.coverage.any() and is_explicit_follow_up(query)

    # ── choosing ─────────────────────────────────────────────────────────────────────────────────

    def _reranked(self, query: str, fused: Floats, least: float) -> dict[int, float]:
        """By the cross-encoder, if there is one: its scores of the best rows that are not far below the best."""
        if self._reranker is None:
            return {}
        rows = [row for row in islice(self._ranked(fused), RERANKED) if fused[row] >= least]
        chunks = {row: chunk for row in rows if (chunk := self._read(row)[1]) is not None}
        scores = self._reranker.scores(query, [chunk.embedded_text for chunk in chunks.values()])
        return dict(zip(chunks, scores.tolist(), strict=True))

    def _chosen(
        self, fused: Floats, least: float, reranked: Mapping[int, float], *, passed: bool, traced: bool
    ) -> tuple[list[Passage], dict[int, tuple[str, Passage]]]:
        """The passages used, and what became of each row looked at, best first. Near copies of a better one go."""
        used: list[Passage] = []
        fates: dict[int, tuple[str, Passage]] = {}
        vocabularies: list[frozenset[str]] = []
        shown: list[int] = []
        told = TRACED if traced else 0
        rest = (row for row in self._ranked(fused) if row not in reranked)
        for row in chain(sorted(reranked, key=lambda row: -reranked[row]), rest):
            if len(fates) >= told and (not passed or len(used) == self._settings.passages or fused[row] < least):
                break
            key, chunk = self._read(row)
            if chunk is None:
                continue  # its generation has just been let go
            passage = chunk.passage(key, round(float(fused[row]), 6))
            fate = "used"
            vocabulary = frozenset(terms(chunk.text)) or frozenset([chunk.text])
            if not passed:
                fate = "no evidence"
            elif fused[row] < least:
                fate = "far below the best"
            elif chunk.suspicion > self._settings.max_suspicion:
                fate = "poses as an instruction"
            elif (copied := _copied(vocabulary, vocabularies)) is not None:
                fate = "near copy"
                if self._place(row) < self._place(shown[copied]) and used[copied].file == passage.file:
                    # of copies in one file the first is shown, in the place of the best
                    fates[shown[copied]] = (fate, fates[shown[copied]][1])
                    shown[copied], used[copied], fate = row, replace(passage, score=used[copied].score), "used"
            elif len(used) == self._settings.passages:
                fate = "beyond the limit"
            else:
                vocabularies.append(vocabulary)
                used.append(passage)
                shown.append(row)
            fates[row] = (fate, passage)
        return used, fates

    def _ranked(self, fused: Floats) -> Iterator[int]:
        """The best rows, best first; of equal ones the first by place."""
        best = _highest(fused, CANDIDATES)
        scores = np.round(fused[best], 6).tolist()
        for _, group in groupby(zip(scores, best.tolist(), strict=True), key=lambda pair: pair[0]):
            rows = [row for _, row in group]
            yield from sorted(rows, key=self._place) if len(rows) > 1 else rows

    def _candidates(
        self,
        alone: _Scores,
        fused: Floats,
        gate: NDArray[np.int8],
        reranked: Mapping[int, float],
        fates: Mapping[int, tuple[str, Passage]],
    ) -> tuple[Candidate, ...]:
        ranks = {row: rank for rank, row in enumerate(self._ranked(fused), 1)}
        dense = {row: rank for rank, row in enumerate(_highest(alone.cosine, CANDIDATES, least=-1.0).tolist(), 1)}
        lexical = {row: rank for rank, row in enumerate(_highest(alone.lexical, CANDIDATES).tolist(), 1)}
        return tuple(
            Candidate(
                passage,
                round(float(alone.cosine[row]), 4) if row in dense else None,
                dense.get(row),
                round(float(alone.lexical[row]), 4),
                lexical.get(row),
                round(float(fused[row]), 4),
                ranks[row],
                round(float(alone.coverage[row]), 4),
                _GATES[int(gate[row])],
                fate,
                round(reranked[row], 4) if row in reranked else None,
            )
            for row, (fate, passage) in islice(fates.items(), TRACED)
        )

    def _place(self, row: int) -> tuple[str, str, int]:
        """Folder, file and place in it: settles ties for ever."""
        version, place = self._locate(row)
        return version.key.folder, version.key.file, place

    def _read(self, row: int) -> tuple[FileKey, Chunk | None]:
        version, place = self._locate(row)
        return version.key, self._generation.read(version.id, place)

    def _locate(self, row: int) -> tuple[Version, int]:
        part = self._parts[int(np.searchsorted(self._firsts, row, side="right")) - 1]
        at = row - part.offset
        version = int(part.segment.versions[at])
        return self._generation.versions[version], at - part.segment.span(version)[0]


_MEANING, _WORDS, _EARLIER = 1, 2, 3
_GATES: Final = ("", "meaning", "words", "earlier")


def _highest(scores: Floats, count: int, *, least: float = 0.0) -> Rows:
    """The rows of the highest scores over `least`, best first."""
    rows = np.flatnonzero(scores > least)
    if len(rows) > count:
        rows = rows[np.argpartition(scores[rows], -count)[-count:]]
    ordered: Rows = rows[np.argsort(-scores[rows], kind="stable")]
    return ordered


def _bounded(text: str) -> str:
    """A pasted book is not a question: its beginning and its end are searched for."""
    return text if len(text) <= QUERY_CHARS else f"{text[: QUERY_CHARS // 2]} {text[-QUERY_CHARS // 2 :]}"


def _copied(vocabulary: frozenset[str], others: Sequence[frozenset[str]]) -> int | None:
    """Which of the others says the same."""
    return next((at for at, other in enumerate(others) if _overlap(vocabulary, other) >= NEAR_COPY), None)


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)

"""The index of one user's past turns, in RAM: postings, vectors, speakers and times.

A turn's score is a sum:

    turn        BM25 over stems (character pairs where words do not stand apart) and cosine, summed as z-scores: they
                have no common scale. Words alone where the embedder does not know the question's language.
    neighbours  shares of the scores of the turns before and after in the same chat, decaying with each step:
                what is said is often asked for, or named, a turn or two away
    chat        BM25 of the whole chat, as a z-score
    speaker     who is asked about said it
    date        it was said at, or mentions, the time that the question names

The weights were chosen on five conversations of LoCoMo and held on the other five (docs/log.md). BM25: Robertson &
Zaragoza (2009), with the idf that never goes below zero. One thread at a time may call. Knows nothing of users,
storage or embedders.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.words import script_number, term_counts, terms

K1: Final = 1.2
TURN_B: Final = 0.4  # how much a long turn's words count less …
CHAT_B: Final = 0.75  # … and a long chat's
NEIGHBOUR_RANGE: Final = 5  # turns before and after that count
BEFORE_WEIGHT: Final = 0.4  # share of the turn before, …
AFTER_WEIGHT: Final = 0.2  # … of the turn after, …
NEIGHBOUR_DECAY: Final = 0.6  # … and of each further one, of the share one step nearer
CHAT_WEIGHT: Final = 0.5
SPEAKER_WEIGHT: Final = 1.5
SAID_AT_BONUS: Final = 8.0  # said at the named time, …
MENTION_BONUS: Final = 4.0  # … or mentions that time

Floats = NDArray[np.float32]
Span = tuple[float, float]
IsAbout = Callable[[Floats, NDArray[np.bool_]], NDArray[np.bool_]]
"""Of cosines, and whether each is of two languages: whether the turn is about what is asked."""
_Postings = tuple[int, NDArray[np.int32], Floats]
"""A term's weight in the query, its postings (rows or chats), and its counts there."""


@dataclass(frozen=True, slots=True)
class IndexedTurn:
    """`vector` None: the embedder does not know the turn's language. `mentioned`: the time that its text names."""

    id: int
    chat: str
    role: str
    speaker: str
    text: str
    at: float
    mentioned: Span | None
    vector: Floats | None


@dataclass(frozen=True, slots=True)
class EpisodeQuery:
    """A parsed question: its terms, its vector if the embedder knows the language, the time it names, and the roles
    whose words it asks for."""

    terms: Mapping[str, int]
    vector: Floats | None
    span: Span | None = None
    roles: frozenset[str] = frozenset()
    script: int = 0  # that it is written in


class EpisodeIndex:
    """Rows are numbered from 0 in the order they came, which within a chat is the order of its turns."""

    def __init__(self, dimension: int) -> None:
        self._ids = array("q")
        self._row_of: dict[int, int] = {}
        self._postings: dict[str, tuple[array[int], array[int]]] = {}  # term → rows, counts
        self._lengths = array("i")
        self._chats: dict[str, int] = {}
        self._chat = array("i")
        self._last_row: dict[int, int] = {}  # chat → its last row
        self._before = array("i")  # the row before in the same chat, or -1
        self._after = array("i")
        self._speakers: dict[tuple[str, str], int] = {}  # role and name
        self._speaker = array("i")
        self._times = array("d")
        self._scripts = array("i")
        self._mentioned_from = array("d")
        self._mentioned_to = array("d")
        self._vectors = np.zeros((0, dimension), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, turn: IndexedTurn) -> None:
        """Adds the turn, or gives one that is there its new vector."""
        row = self._row_of.get(turn.id, len(self))
        if row == len(self):
            self._append(turn)
        if row == len(self._vectors):
            grown = np.zeros((max(64, row * 2), self._vectors.shape[1]), dtype=np.float32)
            grown[:row] = self._vectors
            self._vectors = grown
        self._vectors[row] = 0 if turn.vector is None else turn.vector

    def _append(self, turn: IndexedTurn) -> None:
        row = self._row_of[turn.id] = len(self)
        counts = term_counts(f"{turn.speaker} {turn.text}")
        for term, count in counts.items():
            rows, counts_there = self._postings.setdefault(term, (array("i"), array("i")))
            rows.append(row)
            counts_there.append(count)
        chat = self._chats.setdefault(turn.chat, len(self._chats))
        before = self._last_row.get(chat, -1)
        if before >= 0:
            self._after[before] = row
        self._last_row[chat] = row
        self._ids.append(turn.id)
        self._lengths.append(counts.total())
        self._chat.append(chat)
        self._before.append(before)
        self._after.append(-1)
        self._speaker.append(self._speakers.setdefault((turn.role, turn.speaker), len(self._speakers)))
        self._times.append(turn.at)
        self._scripts.append(script_number(turn.text))
        start, end = turn.mentioned or (math.inf, -math.inf)
        self._mentioned_from.append(start)
        self._mentioned_to.append(end)

    def search(
        self, query: EpisodeQuery, limit: int, is_about: IsAbout, *, chat: str | None = None
    ) -> list[tuple[int, float]]:
        """Ids with their scores, best first. A turn must have a word of the query, be about it by its cosine, or be of
        the time that the query names."""
        if not len(self):
            return []
        postings = self._postings_of(query.terms)
        lexical = _bm25(postings, _ints(self._lengths).astype(np.float32), TURN_B)
        matches = lexical > 0
        turn_scores = _z_scores(lexical)
        if query.vector is not None:
            cosine = self._vectors[: len(self)] @ query.vector
            matches |= is_about(cosine, _ints(self._scripts) != query.script)
            turn_scores += _z_scores(cosine)
        scores = self._with_neighbours(turn_scores)
        scores += CHAT_WEIGHT * self._chat_scores(postings) + SPEAKER_WEIGHT * self._speaker_match(query)
        if query.span is not None:
            date_scores = self._date_scores(query.span)
            matches |= date_scores > 0
            scores += date_scores
        if chat is not None:
            matches &= _ints(self._chat) == self._chats.get(chat, -1)
        return [(self._ids[row], float(scores[row])) for row in _top_rows(scores, np.flatnonzero(matches), limit)]

    def _postings_of(self, query: Mapping[str, int]) -> Sequence[_Postings]:
        """Those of each query term that the index has."""
        return [
            (weight, _ints(self._postings[term][0]), _ints(self._postings[term][1]).astype(np.float32))
            for term, weight in query.items()
            if term in self._postings
        ]

    def _chat_scores(self, turn_postings: Sequence[_Postings]) -> Floats:
        """[rows] z-score of the row's chat."""
        chat, number = _ints(self._chat), len(self._chats)
        lengths = np.bincount(chat, weights=_ints(self._lengths), minlength=number).astype(np.float32)
        postings: list[_Postings] = []
        for weight, rows, counts in turn_postings:
            in_chat = np.bincount(chat[rows], weights=counts, minlength=number)
            chats = np.flatnonzero(in_chat).astype(np.int32)
            postings.append((weight, chats, in_chat[chats].astype(np.float32)))
        scores: Floats = _z_scores(_bm25(postings, lengths, CHAT_B))[chat]
        return scores

    def _with_neighbours(self, turn_scores: Floats) -> Floats:
        scores = turn_scores.copy()
        for neighbour, share in ((_ints(self._before), BEFORE_WEIGHT), (_ints(self._after), AFTER_WEIGHT)):
            shifted = turn_scores
            for step in range(NEIGHBOUR_RANGE):
                shifted = np.append(shifted, np.float32(0))[neighbour]  # -1 is the zero at the end
                scores += np.float32(share * NEIGHBOUR_DECAY**step) * shifted
        return scores

    def _speaker_match(self, query: EpisodeQuery) -> Floats:
        """[rows] 1 where the query names the speaker or asks for their role."""
        wanted = [
            role in query.roles or any(term in query.terms for term in terms(name)) for role, name in self._speakers
        ]
        return np.array(wanted, dtype=np.float32)[_ints(self._speaker)]

    def _date_scores(self, span: Span) -> Floats:
        """[rows] the bonus of turns that were said in the span or mention it."""
        start, end = span
        times = np.array(self._times)
        said = (times >= start) & (times < end)
        mentions = (np.array(self._mentioned_from) < end) & (np.array(self._mentioned_to) > start)
        return (SAID_AT_BONUS * said + MENTION_BONUS * mentions).astype(np.float32)


def _bm25(postings: Sequence[_Postings], lengths: Floats, b: float) -> Floats:
    scores = np.zeros(len(lengths), dtype=np.float32)
    norm = np.float32(K1 * (1 - b)) + lengths * np.float32(K1 * b / max(1.0, float(lengths.mean())))
    for weight, rows, counts in postings:
        idf = math.log1p((len(lengths) - len(rows) + 0.5) / (len(rows) + 0.5))
        scores[rows] += np.float32(weight * idf * (K1 + 1)) * counts / (counts + norm[rows])
    return scores


def _z_scores(values: Floats) -> Floats:
    """Zero where all are equal."""
    spread = float(values.std())
    z: Floats = (values - values.mean()) / np.float32(spread) if spread > 0 else np.zeros_like(values)
    return z


def _top_rows(scores: Floats, rows: NDArray[np.intp], limit: int) -> NDArray[np.intp]:
    """At most `limit` of the rows, best first, of equals the latest first."""
    if len(rows) > limit:
        least = np.partition(scores[rows], -limit)[-limit]
        rows = rows[scores[rows] >= least]
    return rows[np.lexsort((-rows, -scores[rows]))][:limit]


def _ints(values: array[int]) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)

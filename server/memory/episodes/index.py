"""One user's past turns in RAM: which turns hold a word how often, their vectors and their times.

    own      BM25 over stems (character pairs where words do not stand apart) and cosine, summed as z-scores: they
             have no common scale. Words alone where the embedder does not know the question's language.
    beside   shares of the own scores of the turns before and after in the same chat, less with each step:
             what is told is often asked for, or named, a turn or two away
    chat     BM25 of the whole chat, as a z-score
    speaker  who is asked about said it
    date     it was said, or tells of something, at the time that the question names

The weights were chosen on five conversations of LoCoMo and held on the other five (docs/log.md). BM25: Robertson &
Zaragoza (2009), with the idf that never goes below zero. One thread at a time may call. Knows nothing of users,
storage or embedders.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.words import counted, terms

K1: Final = 1.2
TURN_B: Final = 0.4      # how much a long turn's words count less …
CHAT_B: Final = 0.75     # … and a long chat's
REACH: Final = 5         # turns before and after that count
BEFORE: Final = 0.4      # share of the turn before, …
AFTER: Final = 0.2       # … of the turn after, …
FURTHER: Final = 0.6     # … and of each further one, of the share one step nearer
CHAT: Final = 0.5
SPEAKER: Final = 1.5
SAID_THEN: Final = 8.0   # said at the named time, …
TELLS_OF: Final = 4.0    # … or naming that time itself

Floats = NDArray[np.float32]
Span = tuple[float, float]
_Found = tuple[int, NDArray[np.int32], Floats]
"""A term's weight, the rows or chats that hold it, and how often."""


@dataclass(frozen=True, slots=True)
class Turn:
    """As it is indexed. `vector` None: the embedder does not know its language. `named`: the time it tells of."""

    id: int
    chat: str
    role: str
    speaker: str
    text: str
    at: float
    named: Span | None
    vector: Floats | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: its terms, its vector if the embedder knows the language, the time it names, and whose words (roles)
    it asks for."""

    terms: Mapping[str, int]
    vector: Floats | None
    span: Span | None = None
    roles: frozenset[str] = frozenset()


class EpisodeIndex:
    """Rows are numbered from 0 in the order they came, which within a chat is the order of its turns."""

    def __init__(self, dimension: int) -> None:
        self._ids = array("q")
        self._row_of: dict[int, int] = {}
        self._postings: dict[str, tuple[array[int], array[int]]] = {}  # term → rows, how often
        self._lengths = array("i")
        self._chats: dict[str, int] = {}
        self._chat = array("i")
        self._last: dict[int, int] = {}  # chat → its last row
        self._before = array("i")  # the row before in the same chat, or -1
        self._after = array("i")
        self._speakers: dict[tuple[str, str], int] = {}  # role and name
        self._speaker = array("i")
        self._times = array("d")
        self._named_from = array("d")
        self._named_to = array("d")
        self._vectors = np.zeros((0, dimension), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, turn: Turn) -> None:
        """Adds the turn, or gives one that is there its new vector."""
        row = self._row_of.get(turn.id, len(self))
        if row == len(self):
            self._append(turn)
        if row == len(self._vectors):
            grown = np.zeros((max(64, row * 2), self._vectors.shape[1]), dtype=np.float32)
            grown[:row] = self._vectors
            self._vectors = grown
        self._vectors[row] = 0 if turn.vector is None else turn.vector

    def _append(self, turn: Turn) -> None:
        row = self._row_of[turn.id] = len(self)
        often = counted(f"{turn.speaker} {turn.text}")
        for term, count in often.items():
            rows, counts = self._postings.setdefault(term, (array("i"), array("i")))
            rows.append(row)
            counts.append(count)
        chat = self._chats.setdefault(turn.chat, len(self._chats))
        before = self._last.get(chat, -1)
        if before >= 0:
            self._after[before] = row
        self._last[chat] = row
        self._ids.append(turn.id)
        self._lengths.append(often.total())
        self._chat.append(chat)
        self._before.append(before)
        self._after.append(-1)
        self._speaker.append(self._speakers.setdefault((turn.role, turn.speaker), len(self._speakers)))
        self._times.append(turn.at)
        start, end = turn.named or (math.inf, -math.inf)
        self._named_from.append(start)
        self._named_to.append(end)

    def best(
        self, asked: Asked, limit: int, *, similar: float, chat: str | None = None
    ) -> list[tuple[int, float]]:
        """Ids with their scores, best first. A turn must hold a word, reach the cosine `similar`, or be of the time."""
        if not len(self):
            return []
        found = self._found(asked.terms)
        lexical = _bm25(found, _ints(self._lengths).astype(np.float32), TURN_B)
        bears = lexical > 0
        own = _z(lexical)
        if asked.vector is not None:
            cosine = self._vectors[: len(self)] @ asked.vector
            bears |= cosine >= similar
            own += _z(cosine)
        scores = self._with_neighbours(own) + CHAT * self._of_chats(found) + SPEAKER * self._by(asked)
        if asked.span is not None:
            of_then = self._of_then(asked.span)
            bears |= of_then > 0
            scores += of_then
        if chat is not None:
            bears &= _ints(self._chat) == self._chats.get(chat, -1)
        return [(self._ids[row], float(scores[row])) for row in _highest(scores, np.flatnonzero(bears), limit)]

    def _found(self, asked: Mapping[str, int]) -> Sequence[_Found]:
        """For each asked term that there is: its weight, the rows that hold it, and how often."""
        return [
            (weight, _ints(self._postings[term][0]), _ints(self._postings[term][1]).astype(np.float32))
            for term, weight in asked.items()
            if term in self._postings
        ]

    def _of_chats(self, in_turns: Sequence[_Found]) -> Floats:
        """[rows] z-score of the row's chat."""
        chat, number = _ints(self._chat), len(self._chats)
        lengths = np.bincount(chat, weights=_ints(self._lengths), minlength=number).astype(np.float32)
        found: list[_Found] = []
        for weight, rows, counts in in_turns:
            often = np.bincount(chat[rows], weights=counts, minlength=number)
            holding = np.flatnonzero(often).astype(np.int32)
            found.append((weight, holding, often[holding].astype(np.float32)))
        scores: Floats = _z(_bm25(found, lengths, CHAT_B))[chat]
        return scores

    def _with_neighbours(self, own: Floats) -> Floats:
        scores = own.copy()
        for beside, share in ((_ints(self._before), BEFORE), (_ints(self._after), AFTER)):
            reached = own
            for step in range(REACH):
                reached = np.append(reached, np.float32(0))[beside]  # -1 is the zero at the end
                scores += np.float32(share * FURTHER**step) * reached
        return scores

    def _by(self, asked: Asked) -> Floats:
        """[rows] 1 where the speaker is one whom the question names or whose role it asks for."""
        wanted = [
            role in asked.roles or any(term in asked.terms for term in terms(name)) for role, name in self._speakers
        ]
        return np.array(wanted, dtype=np.float32)[_ints(self._speaker)]

    def _of_then(self, span: Span) -> Floats:
        """[rows] how much a turn is of the time."""
        start, end = span
        times = np.array(self._times)
        said = (times >= start) & (times < end)
        tells = (np.array(self._named_from) < end) & (np.array(self._named_to) > start)
        return (SAID_THEN * said + TELLS_OF * tells).astype(np.float32)


def _bm25(found: Sequence[_Found], lengths: Floats, b: float) -> Floats:
    scores = np.zeros(len(lengths), dtype=np.float32)
    norm = np.float32(K1 * (1 - b)) + lengths * np.float32(K1 * b / max(1.0, float(lengths.mean())))
    for weight, rows, counts in found:
        idf = math.log1p((len(lengths) - len(rows) + 0.5) / (len(rows) + 0.5))
        scores[rows] += np.float32(weight * idf * (K1 + 1)) * counts / (counts + norm[rows])
    return scores


def _z(values: Floats) -> Floats:
    """Zero where all are equal."""
    spread = float(values.std())
    z: Floats = (values - values.mean()) / np.float32(spread) if spread > 0 else np.zeros_like(values)
    return z


def _highest(scores: Floats, rows: NDArray[np.intp], limit: int) -> NDArray[np.intp]:
    """At most `limit` of the rows, best first, of equals the latest first."""
    if len(rows) > limit:
        least = np.partition(scores[rows], -limit)[-limit]
        rows = rows[scores[rows] >= least]
    return rows[np.lexsort((-rows, -scores[rows]))][:limit]


def _ints(values: array[int]) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)

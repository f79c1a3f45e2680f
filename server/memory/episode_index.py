"""One user's past turns in RAM: which turns hold a word how often, and their vectors. Grows a turn at a time.

    lexical    BM25 over stems, and over character pairs where words do not stand apart
    dense      cosine of question and turn
    own        sum of both as z-scores, for they have no common scale
    score      a turn's own and a share of those of the turns beside it: what is told is often asked for before it

Robertson & Zaragoza (2009) for BM25, with the idf that never goes below zero. One thread at a time may
call it. Knows nothing of users, storage or embedders.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.words import counted

K1: Final = 1.2
B: Final = 0.75
BEFORE: Final = 0.5  # share of the score of the turn before

Floats = NDArray[np.float32]


class EpisodeIndex:
    """Rows are numbered from 0 in the order they were added."""

    def __init__(self, dimension: int) -> None:
        self._postings: dict[str, tuple[array[int], array[int]]] = {}  # term → rows, how often
        self._lengths = array("i")
        self._before = array("i")  # the row before in the same chat, or -1
        self._last: dict[str, int] = {}  # chat → its last row
        self._vectors = np.zeros((0, dimension), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, conversation: str, text: str, vector: Floats | None) -> None:
        """`vector` None: the embedder does not know the language."""
        row = len(self)
        if row == len(self._vectors):
            grown = np.zeros((max(64, row * 2), self._vectors.shape[1]), dtype=np.float32)
            grown[:row] = self._vectors
            self._vectors = grown
        if vector is not None:
            self._vectors[row] = vector
        often = counted(text)
        for term, count in often.items():
            rows, counts = self._postings.setdefault(term, (array("i"), array("i")))
            rows.append(row)
            counts.append(count)
        self._lengths.append(often.total())
        self._before.append(self._last.get(conversation, -1))
        self._last[conversation] = row

    def set_vector(self, row: int, vector: Floats) -> None:
        self._vectors[row] = vector

    def scores(self, asked: Mapping[str, float], question: Floats | None) -> Floats:
        """[rows]. `question` None: the embedder does not know its language, and words alone count."""
        own = _z(self.lexical(asked))
        if question is not None:
            own += _z(self.dense(question))
        before = np.array(self._before, dtype=np.int32)
        return np.asarray(own + np.where(before >= 0, own[before], 0) * np.float32(BEFORE), dtype=np.float32)

    def dense(self, question: Floats) -> Floats:
        """[rows] cosines; 0 for a turn without a vector."""
        return np.asarray(self._vectors[: len(self)] @ question, dtype=np.float32)

    def lexical(self, asked: Mapping[str, float]) -> Floats:
        """[rows] BM25 of the asked terms with their weights."""
        scores = np.zeros(len(self), dtype=np.float32)
        lengths = np.array(self._lengths, dtype=np.float32)
        norm = K1 * (1 - B) + K1 * B * lengths / max(1.0, float(lengths.mean()) if len(self) else 1.0)
        for term, weight in asked.items():
            if term in self._postings:
                rows = np.array(self._postings[term][0], dtype=np.int32)
                counts = np.array(self._postings[term][1], dtype=np.float32)
                idf = math.log1p((len(self) - len(rows) + 0.5) / (len(rows) + 0.5))
                scores[rows] += np.float32(weight * idf * (K1 + 1)) * counts / (counts + norm[rows])
        return scores

    def holding(self, asked: Iterable[str]) -> NDArray[np.bool_]:
        """[rows]: those that hold one of the terms."""
        found = np.zeros(len(self), dtype=np.bool_)
        for term in asked:
            if term in self._postings:
                found[np.array(self._postings[term][0], dtype=np.int32)] = True
        return found


def _z(values: Floats) -> Floats:
    spread = float(values.std()) if len(values) else 0.0
    return np.asarray((values - values.mean()) / spread if spread > 0 else np.zeros_like(values), dtype=np.float32)

"""BM25 over the living rows of some segments, as if they were one collection.

Document frequencies and lengths are those of the rows asked, so a folder's scores do not depend on other folders.
Robertson & Zaragoza (2009), with the idf that never goes below zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from server.retrieval.segment import Mask, Rows, Segment

K1 = 1.2
B = 0.75


class Matches:
    """Which of the rows asked hold which of the asked terms. Rows count through the segments in order."""

    def __init__(self, parts: Sequence[tuple[Segment, Mask]], asked: Iterable[str]) -> None:
        """`parts`: segments, each with the rows of it that count."""
        self._lengths = np.concatenate([np.zeros(0, np.int32), *(segment.lengths for segment, _ in parts)])
        self.size = sum(int(mask.sum()) for _, mask in parts)
        total = sum(int(segment.lengths.sum(where=mask)) for segment, mask in parts)
        self._average = max(1.0, total / max(1, self.size))
        self._found: dict[str, tuple[Rows, NDArray[np.float32]]] = {}
        for term in dict.fromkeys(asked):
            rows: list[Rows] = [np.zeros(0, np.int64)]
            counts: list[NDArray[np.uint16]] = [np.zeros(0, np.uint16)]
            offset = 0
            for segment, mask in parts:
                at, often = segment.holding(term)
                living = mask[at]
                rows.append(at[living].astype(np.int64) + offset)
                counts.append(often[living])
                offset += len(segment)
            self._found[term] = (np.concatenate(rows), np.concatenate(counts).astype(np.float32))

    def idf(self, term: str) -> float:
        """log(1 + (N - n + .5) / (n + .5)); a term that no row holds weighs most."""
        holding = len(self._found[term][0])
        return math.log1p((self.size - holding + 0.5) / (holding + 0.5))

    def rows(self, term: str) -> Rows:
        return self._found[term][0]

    def bm25(self, asked: Mapping[str, float]) -> NDArray[np.float32]:
        """[rows] in 0..1: BM25 with a weight for each term, over the most that any row could have."""
        scores = np.zeros(len(self._lengths), dtype=np.float32)
        most = sum(weight * self.idf(term) for term, weight in asked.items()) * (K1 + 1)
        if not len(scores) or most <= 0:
            return scores
        for term, weight in asked.items():
            rows, counts = self._found[term]
            norm = K1 * (1 - B + B * self._lengths[rows] / np.float32(self._average))
            scores[rows] += (weight * self.idf(term) * counts * (K1 + 1) / (counts + norm)).astype(np.float32)
        return scores / np.float32(most)

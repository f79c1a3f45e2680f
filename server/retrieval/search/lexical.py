"""BM25 over the living rows of some segments, as if they were one collection.

Document frequencies and lengths are those of the rows asked, so a folder's scores do not depend on other folders.
Robertson & Zaragoza (2009), with the idf that never goes below zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from server.retrieval.index.segment import Mask, Segment

K1 = 1.2
B = 0.75

Scores = NDArray[np.float32]
_Found = tuple[slice, NDArray[np.uint32], NDArray[np.uint16]]
"""Where a segment's rows stand among all, and which of them hold a term how often."""


class Matches:
    """Which of the rows asked hold which of the asked terms. Rows count through the segments in order."""

    def __init__(self, parts: Sequence[tuple[Segment, Mask]], asked: Iterable[str]) -> None:
        """`parts`: segments, each with the rows of it that count."""
        terms = list(dict.fromkeys(asked))
        self._found: dict[str, list[_Found]] = {term: [] for term in terms}
        self.size, total, offset = 0, 0, 0
        lengths = [np.zeros(0, np.int32)]
        for segment, mask in parts:
            living = int(mask.sum())
            whole = living == len(segment)
            self.size += living
            total += int(segment.lengths.sum() if whole else segment.lengths.sum(where=mask))
            lengths.append(segment.lengths)
            span = slice(offset, offset + len(segment))
            for term, (rows, counts) in zip(terms, segment.holding_each(terms), strict=True):
                kept = slice(None) if whole else mask[rows]
                self._found[term].append((span, rows[kept], counts[kept]))
            offset += len(segment)
        self._lengths = np.concatenate(lengths)
        self._average = max(1.0, total / max(1, self.size))

    def idf(self, term: str) -> float:
        """log(1 + (N - n + .5) / (n + .5)); a term that no row holds weighs most."""
        holding = sum(len(rows) for _, rows, _ in self._found[term])
        return math.log1p((self.size - holding + 0.5) / (holding + 0.5))

    def add(self, scores: Scores, term: str, value: float) -> None:
        """Adds the value to the rows that hold the term."""
        for span, rows, _ in self._found[term]:
            scores[span][rows] += np.float32(value)

    def bm25(self, asked: Mapping[str, float]) -> Scores:
        """[rows] in 0..1: BM25 with a weight for each term, over the most that any row could have."""
        scores = np.zeros(len(self._lengths), dtype=np.float32)
        most = sum(weight * self.idf(term) for term, weight in asked.items()) * (K1 + 1)
        if not len(scores) or most <= 0:
            return scores
        norm = np.float32(K1 * (1 - B)) + self._lengths.astype(np.float32) * np.float32(K1 * B / self._average)
        for term, weight in asked.items():
            share = np.float32(weight * self.idf(term) * (K1 + 1) / most)
            for span, rows, often in self._found[term]:
                counts = often.astype(np.float32)
                scores[span][rows] += share * counts / (counts + norm[span][rows])
        return scores

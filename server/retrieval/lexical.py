"""BM25 over immutable parts, each of some files, so that a change of one file costs its part only.

Document frequencies are summed over the parts asked, so a folder's scores do not depend on other
folders. Robertson & Zaragoza (2009), with the idf that never goes below zero.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.retrieval.words import terms

K1 = 1.2
B = 0.75


@dataclass(frozen=True, slots=True)
class Postings:
    """The terms of one or more files: term → rows inside the part with how often the term stands there."""

    rows: Mapping[str, Sequence[tuple[int, int]]]
    lengths: tuple[int, ...]


def postings(texts: Sequence[str]) -> Postings:
    rows: dict[str, list[tuple[int, int]]] = {}
    lengths = []
    for row, text in enumerate(texts):
        counts = Counter(terms(text))
        lengths.append(counts.total())
        for term, count in counts.items():
            rows.setdefault(term, []).append((row, count))
    return Postings(rows, tuple(lengths))


def merged(parts: Sequence[Postings]) -> Postings:
    """One part for several, their rows one after the other: fewer places to look for a term."""
    if len(parts) == 1:
        return parts[0]
    rows: dict[str, list[tuple[int, int]]] = {}
    lengths: list[int] = []
    for part in parts:
        offset = len(lengths)
        for term, found in part.rows.items():
            rows.setdefault(term, []).extend((offset + row, count) for row, count in found)
        lengths += part.lengths
    return Postings(rows, tuple(lengths))


class Matches:
    """Which rows of some parts hold which of the asked terms. Rows count through the parts in order."""

    def __init__(self, parts: Sequence[Postings], asked: Iterable[str]) -> None:
        self.lengths = np.array([length for part in parts for length in part.lengths], dtype=np.float32)
        self._found: dict[str, tuple[NDArray[np.intp], NDArray[np.float32]]] = {}
        for term in dict.fromkeys(asked):
            rows: list[int] = []
            counts: list[int] = []
            offset = 0
            for part in parts:
                for row, count in part.rows.get(term, ()):
                    rows.append(offset + row)
                    counts.append(count)
                offset += len(part.lengths)
            self._found[term] = (np.array(rows, dtype=np.intp), np.array(counts, dtype=np.float32))

    def idf(self, term: str) -> float:
        """log(1 + (N - n + .5) / (n + .5)); a term that no row holds weighs most."""
        holding = len(self._found[term][0])
        return math.log1p((len(self.lengths) - holding + 0.5) / (holding + 0.5))

    def rows(self, term: str) -> NDArray[np.intp]:
        return self._found[term][0]

    def bm25(self, asked: Mapping[str, float]) -> NDArray[np.float32]:
        """[rows] in 0..1: BM25 with a weight for each term, over the most that any row could have."""
        scores = np.zeros(len(self.lengths), dtype=np.float32)
        most = sum(weight * self.idf(term) for term, weight in asked.items()) * (K1 + 1)
        if not len(scores) or most <= 0:
            return scores
        norm = K1 * (1 - B + B * self.lengths / max(1.0, float(self.lengths.mean())))
        for term, weight in asked.items():
            rows, counts = self._found[term]
            scores[rows] += weight * self.idf(term) * counts * (K1 + 1) / (counts + norm[rows])
        return scores / np.float32(most)

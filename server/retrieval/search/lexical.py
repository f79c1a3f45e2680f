"""BM25 over the live rows of some segments, as if they were one collection.

Document frequencies and lengths are those of the rows searched, so a folder's scores do not depend on other folders.
Robertson & Zaragoza (2009), with the idf that never goes below zero. Knows nothing of
files, vectors or generations.
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
_Postings = tuple[slice, NDArray[np.uint32], NDArray[np.uint16]]
"""A segment's range among all rows, the rows of it that have a term, and the term's frequency in each."""


class BM25Scorer:
    """Postings of the query's terms in the rows searched. Rows are numbered through the segments in order."""

    def __init__(self, segments: Sequence[tuple[Segment, Mask]], query_terms: Iterable[str]) -> None:
        """`segments`: each with the rows of it that are searched."""
        terms = list(dict.fromkeys(query_terms))
        self._postings: dict[str, list[_Postings]] = {term: [] for term in terms}
        self.row_count, total, offset = 0, 0, 0
        lengths = [np.zeros(0, np.int32)]
        for segment, mask in segments:
            live = int(mask.sum())
            all_live = live == len(segment)
            self.row_count += live
            total += int(segment.lengths.sum() if all_live else segment.lengths.sum(where=mask))
            lengths.append(segment.lengths)
            span = slice(offset, offset + len(segment))
            for term, (rows, counts) in zip(terms, segment.postings_of_each(terms), strict=True):
                chosen = slice(None) if all_live else mask[rows]
                self._postings[term].append((span, rows[chosen], counts[chosen]))
            offset += len(segment)
        self._lengths = np.concatenate(lengths)
        self._average = max(1.0, total / max(1, self.row_count))

    def idf(self, term: str, *, least_holders: int = 0) -> float:
        """log(1 + (N - n + .5) / (n + .5)), n at least `least_holders`; else a term that no row has weighs most."""
        document_frequency = max(least_holders, sum(len(rows) for _, rows, _ in self._postings[term]))
        document_frequency = min(document_frequency, self.row_count)
        return math.log1p((self.row_count - document_frequency + 0.5) / (document_frequency + 0.5))

    def add_where(self, scores: Scores, term: str, value: float) -> None:
        """Adds the value to the rows that have the term."""
        for span, rows, _ in self._postings[term]:
            scores[span][rows] += np.float32(value)

    def scores(self, term_weights: Mapping[str, float]) -> Scores:
        """[rows] in 0..1: BM25 with a weight for each term, over the highest score that a row could have."""
        scores = np.zeros(len(self._lengths), dtype=np.float32)
        max_score = sum(weight * self.idf(term) for term, weight in term_weights.items()) * (K1 + 1)
        if not len(scores) or max_score <= 0:
            return scores
        length_norm = np.float32(K1 * (1 - B)) + self._lengths.astype(np.float32) * np.float32(K1 * B / self._average)
        for term, weight in term_weights.items():
            share = np.float32(weight * self.idf(term) * (K1 + 1) / max_score)
            for span, rows, frequencies in self._postings[term]:
                tf = frequencies.astype(np.float32)
                scores[span][rows] += share * tf / (tf + length_norm[span][rows])
        return scores

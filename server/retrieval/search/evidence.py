"""How likely a passage answers a question, from what a search knows of both.

One logistic regression where the embedder compares them, one where words alone do, one where both were read together.
Fitted by `python -m
bench.knowledge.fit_evidence` on questions with and without an answer in the folder, half of them kept for what it
prints. Knows nothing of indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LEAST_ROWS: Final = 100  # a folder of fewer is less likely to answer at all; the sets it was fitted on have more
ALL_WORDS: Final = 0.95  # coverage of a passage that has all
UNKNOWN_ODDS: Final = -4.4  # of a meaning that was not compared
MOST_ODDS: Final = 16.0  # of the meaning, in log odds: a question that quotes its passage says no more than that

# Weights of `Features.columns`; where the meaning is not known, it is `UNKNOWN_ODDS`.
WITH_MEANING: Final = (-0.522, 0.452, 0.698, 2.443, 1.511)
WORDS_ALONE: Final = (3.094, 0.529, 3.753, 4.618, 1.742)
WITH_READER: Final = (0.755, 0.41, 0.482, 0.442, 0.739, 0.406)  # … and of the reader's log odds


@dataclass(frozen=True)
class Features:
    """Of each row: `meaning`, log odds by the cosine; `lexical`, BM25's share, and `coverage`, both in 0..1;
    `crossing`, question and passage are of two languages; `rows`, how many were searched."""

    meaning: Floats
    lexical: Floats
    coverage: Floats
    crossing: NDArray[np.bool_]
    rows: int

    def at(self, rows: Sequence[int]) -> Features:
        """Those of some rows, compared with as many as before."""
        return Features(
            self.meaning[rows], self.lexical[rows], self.coverage[rows], self.crossing[rows], self.rows
        )  # fmt: skip

    def columns(self) -> Floats:
        """[rows, 5]. Among more rows the best is better by chance: each has a smaller share of the odds before."""
        words = ~self.crossing
        return np.stack(
            [
                np.ones_like(self.meaning),
                np.minimum(self.meaning, MOST_ODDS) - np.float32(np.log(max(self.rows, LEAST_ROWS))),
                np.where(words, self.lexical, 0),
                np.where(words, self.coverage, 0),
                self.crossing.astype(np.float32),
            ],
            axis=-1,
        )


def likelihood(features: Features, *, with_meaning: bool) -> Floats:
    """[rows] in 0..1. A passage that has every word of the question, such as a number or a name that is looked up, is
    judged by words alone, too."""
    if not with_meaning:
        return _by_words(features)
    return _at_least_by_words(features, _logistic(features.columns(), WITH_MEANING))


def likelihood_read(features: Features, odds: Floats) -> Floats:
    """The same of rows that were read together with the question; `odds`: the reader's log odds of each."""
    return _at_least_by_words(features, _logistic(np.column_stack([features.columns(), odds]), WITH_READER))


def _at_least_by_words(features: Features, found: Floats) -> Floats:
    whole = np.flatnonzero(features.coverage >= ALL_WORDS)
    found[whole] = np.maximum(found[whole], _by_words(features.at(whole.tolist())))
    return found


def _by_words(features: Features) -> Floats:
    unknown = replace(features, meaning=np.full_like(features.meaning, UNKNOWN_ODDS))
    return _logistic(unknown.columns(), WORDS_ALONE)


def _logistic(columns: Floats, weights: tuple[float, ...]) -> Floats:
    odds = columns @ np.array(weights, np.float32)
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))), np.float32)

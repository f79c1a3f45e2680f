"""Precision and recall of the checks on labelled sentences, with the default embedder and by words alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.embedding import SentenceEmbedder
from server.grounding.citations import check_sentences
from server.relations import TextRole
from server.types import Embedder
from tests.grounding.citation_cases import CASES, HELD_OUT, Case, passages

FLAGGED = ("dropped", "unsupported")


@dataclass(frozen=True)
class Figures:
    """Of the numbers that are shown, how many are right, and of the right ones, how many are shown; the same for
    sentences that are marked as supported by nothing."""

    shown_precision: float
    shown_recall: float
    flagged_precision: float
    flagged_recall: float


def measured(cases: Sequence[Case], embedder: Embedder | None) -> Figures:
    results = []
    for case in cases:
        (found,) = check_sentences(case.text, passages(case.topic), embedder)
        results.append((case, found.shown, found.verdict in FLAGGED))
    right = sum(bool(shown) and shown == case.shown for case, shown, _ in results)
    flagged = sum(marked and case.verdict in FLAGGED for case, _, marked in results)
    return Figures(
        right / sum(bool(shown) for _, shown, _ in results),
        right / sum(bool(case.shown) for case, _, _ in results),
        flagged / sum(marked for _, _, marked in results),
        flagged / sum(case.verdict in FLAGGED for case, _, _ in results),
    )


def assert_at_least(found: Figures, *floors: float) -> None:
    values = (found.shown_precision, found.shown_recall, found.flagged_precision, found.flagged_recall)
    assert all(value >= floor for value, floor in zip(values, floors, strict=True)), found


def test_the_set_is_large_and_of_all_kinds() -> None:
    kinds = {"copied", "paraphrased", "wrong number", "wrong passage", "wrong not", "invented"}
    for cases, least in ((CASES, 150), (HELD_OUT, 55)):
        assert len(cases) >= least
        assert {case.kind for case in cases} >= kinds
    korean = [case for case in CASES + HELD_OUT if "가" <= max(case.text) <= "힣"]
    assert len(korean) >= 60


class CachingEmbedder:
    """The real embedder, asked once for each text: the passages come again with every sentence."""

    def __init__(self, embedder: SentenceEmbedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self.fingerprint, self.dimension = embedder.fingerprint, embedder.dimension
        self.count, self.knows, self.likelihood = embedder.count, embedder.knows, embedder.likelihood

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors |= zip(new, self._embedder.embed(new), strict=True)
        return np.stack([self._vectors[text] for text in texts])


@pytest.fixture(scope="module")
def embedder(embedder_dir: Path) -> CachingEmbedder:
    return CachingEmbedder(SentenceEmbedder(str(embedder_dir)))


@pytest.mark.model
def test_with_the_default_embedder(embedder: CachingEmbedder) -> None:
    assert_at_least(measured(CASES, embedder), 0.97, 0.96, 0.94, 0.96)
    assert_at_least(measured(HELD_OUT, embedder), 0.93, 0.85, 0.8, 0.9)


def test_by_words_alone() -> None:
    assert_at_least(measured(CASES, None), 0.97, 0.95, 0.93, 0.96)
    assert_at_least(measured(HELD_OUT, None), 0.93, 0.85, 0.8, 0.9)

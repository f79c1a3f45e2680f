"""No text costs a loader much: the walks of `test_text_cost.py` that are about files."""

from __future__ import annotations

import pytest

from tests.test_text_cost import LOADERS, STEP, TEXTS, WALK, most_seconds, slow_texts

__all__ = ["most_seconds"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("at", "name"), list(enumerate(LOADERS)))
def test_no_text_costs_a_loader_much(at: int, name: str, most_seconds: float) -> None:
    assert slow_texts(WALK[name], most_seconds, list(TEXTS)[at % STEP :: STEP]) == {}

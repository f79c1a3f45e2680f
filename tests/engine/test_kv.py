from __future__ import annotations

import pytest

from server.engine.kv import KVBudget


def test_the_budget_counts_tokens_in_bytes() -> None:
    budget = KVBudget(1000, 10)
    assert budget.total == 100
    assert budget.reserve(1, 60)
    assert not budget.reserve(2, 41)
    assert budget.reserve(2, 40)
    assert budget.used == 100
    budget.release(1)
    budget.release(1)
    assert budget.used == 40
    assert budget.owners() == {2}


def test_a_row_reserves_once() -> None:
    budget = KVBudget(1000, 10)
    budget.reserve(1, 5)
    with pytest.raises(ValueError, match="reserved already"):
        budget.reserve(1, 5)

"""The figures of memory's store, at tiny sizes and with the word embedder: they measure, and a fault shows in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.knowledge.embedders import Remembering
from bench.memory import crossing, gate, recall, updates
from bench.memory.run import QUICK, Run, rows
from server.memory import UserMemory
from tests.fakes import WordEmbedder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path, sizes=QUICK, report=lambda text: None)
    made.__dict__["embedder"] = Remembering(WordEmbedder())  # a cached property: this is its value
    return made


def test_the_sets_are_as_large_as_they_are_said_to_be() -> None:
    asked = [row for row in rows("gate.jsonl") if "question" in row]
    kept = {row["memory"] for row in rows("gate.jsonl") if "memory" in row}
    assert len({row["question"] for row in asked if not row["finds"]}) == 200
    assert len({row["question"] for row in asked if row["finds"]}) >= 60
    assert {row["finds"] for row in asked if row["finds"]} <= kept
    assert len(rows("updates.jsonl")) == 60
    assert sum(not row["asked"].isascii() for row in rows("updates.jsonl")) >= 25


def test_a_recall_is_timed_without_its_embedding(run: Run) -> None:
    read = recall._measured(run, recall._filled(run, run.embedder), run.embedder, 0)
    assert 0 < read["p50"].value <= read["p95"].value
    assert read["cold"].value > 0


def test_users_who_never_meet(run: Run) -> None:
    assert crossing._measured(run, 0)["crossings"].value == 0


def test_users_who_meet_are_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossing.Walk, "of", lambda walk, user: walk.stores[0].of("all"))
    assert crossing._measured(run, 0)["crossings"].value > 0


@pytest.mark.parametrize(
    ("recalled", "irrelevant", "found"), [(lambda memory, question: memory.list(), 100, 100), (lambda *_: (), 0, 0)]
)
def test_the_gate_is_neither_won_open_nor_shut(
    run: Run, monkeypatch: pytest.MonkeyPatch, recalled: Callable[..., object], irrelevant: float, found: float
) -> None:
    memory = gate._filled(run)
    monkeypatch.setattr(UserMemory, "recall", recalled)
    read = gate._measured(run, memory)
    assert (read["irrelevant"].value, read["found"].value) == (irrelevant, found)


def test_an_old_answer_that_stays_is_a_miss(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert updates._measured(run)["history"].value > 50
    monkeypatch.setattr(UserMemory, "recall", lambda memory, question: memory.list(past=True))
    assert updates._measured(run)["now"].value == 0

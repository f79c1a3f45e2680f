"""What the rules save of labelled turns, what attacks they let in, and what reading a turn costs.

The turns and attacks are those of the tests (`tests/memory`), which say how they were written. Precision and recall
are over memories, by their exact text; an attack counts when anything at all is saved of it.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from bench.context import ROOT
from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.memory.run import Run
from server.memory import clean, extract
from server.types import UserId

TESTS = ROOT / "tests" / "memory"
SAID_AT = datetime.datetime(2026, 11, 21, 15).timestamp()  # when the labels' "next Friday" was said


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def saving(_: object) -> AsyncIterator[Round]:
        yield lambda number: asyncio.to_thread(_measured, run)

    return [Figure("saving", _SAVING, saving, rounds=1)]


_SAVING = (
    Measure("precision", "of what is saved, what should be (rules only, Korean + English)", "%", Bound(95)),
    Measure("recall", "of what should be saved, what is", "%", Bound(70)),
    Measure("turns", "labelled turns", "", Bound(300)),
    Measure("attacks", "attack texts of which anything is saved", "", Bound(0, at_most=True)),
    Measure("p95", "reading one turn by the rules, processor time, p95", "ms", Bound(5, at_most=True)),
)


def _measured(run: Run) -> Mapping[str, Reading]:
    turns, attacks = _rows("turns.jsonl"), [row for row in _rows("attacks.jsonl") if row["where"] == "turn"]
    right = wrong = missed = 0
    costs: list[float] = []
    for row in turns:
        started = time.thread_time()
        found = extract(clean(row["text"]), SAID_AT)
        costs.append(1000 * (time.thread_time() - started))
        extracted, expected = {one.text for one in found}, set(row["saves"])
        right, wrong = right + len(extracted & expected), wrong + len(extracted - expected)
        missed += len(expected - extracted)
    memory = run.store("attacks").of(UserId("mina"))
    written = [row for row in attacks if memory.learn(row["text"], conversation_id=None, message_id=None)]
    costs.sort()
    values = {
        "precision": 100 * right / max(1, right + wrong),
        "recall": 100 * right / max(1, right + missed),
        "turns": len(turns),
        "attacks": len(written),
        "p95": costs[int(0.95 * (len(costs) - 1))],
    }
    return {name: Reading(float(value)) for name, value in values.items()}


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TESTS / name).read_text(encoding="utf-8").splitlines()]

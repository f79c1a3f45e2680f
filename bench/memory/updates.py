"""Contradictions: what is recalled after a newer answer to the same question, and what for a question about the past.

`updates.jsonl` has what is said, in order, the question, a piece of the answer of now and one of the answer before;
some lines ask for the past, too. Each case is a user of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.memory.run import Run, rows
from server.memory import MemoryStore
from server.types import UserId


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def updates(_: object) -> AsyncIterator[Round]:
        yield lambda number: asyncio.to_thread(_measured, run)

    return [Figure("updates", _UPDATES, updates, rounds=1)]


_UPDATES = (
    Measure("now", "contradictions: the answer of now is recalled and the old one is not", "%", Bound(100)),
    Measure("was", "the same, asked for the past: the old answer is recalled", "%", Bound(100)),
    Measure("history", "the same: the history of the answer of now has the old one", "%", Bound(100)),
)


def _measured(run: Run) -> Mapping[str, Reading]:
    store = run.store("updates")
    cases = rows("updates.jsonl")[: run.sizes.cases]
    now = [_now(run, store, number, case) for number, case in enumerate(cases)]
    was = [_was(run, store, number, case) for number, case in enumerate(cases) if "past" in case]
    history = [_history(store, number, case) for number, case in enumerate(cases)]
    return {"now": _share(now), "was": _share(was or [True]), "history": _share(history)}


def _now(run: Run, store: MemoryStore, number: int, case: Mapping[str, Any]) -> bool:
    memory = store.of(UserId(f"user-{number}"))
    for at, said in enumerate(case["said"]):
        memory.learn(said, conversation_id="chat", message_id=f"message-{at}")
    found = [one.text for one in memory.recall(case["asked"])]
    right = any(case["now"] in text for text in found) and not any(case["was"] in text for text in found)
    if not right:
        run.report(f"  {case['asked']!r} finds {found}; it should have {case['now']!r} and not {case['was']!r}")
    return right


def _was(run: Run, store: MemoryStore, number: int, case: Mapping[str, Any]) -> bool:
    found = [one.text for one in store.of(UserId(f"user-{number}")).recall(case["past"])]
    right = any(case["was"] in text for text in found)
    if not right:
        run.report(f"  {case['past']!r} finds {found}; it should have {case['was']!r}")
    return right


def _history(store: MemoryStore, number: int, case: Mapping[str, Any]) -> bool:
    memory = store.of(UserId(f"user-{number}"))
    return any(
        any(case["was"] in older.text for older in memory.history(one.id))
        for one in memory.list()
        if case["now"] in one.text
    )


def _share(which: list[bool]) -> Reading:
    return Reading(100 * sum(which) / len(which), note=f"{sum(which)} of {len(which)}")

"""The relevance gate over one user's memories, English and Korean: what unrelated questions get, what others find.

`gate.jsonl` has memories, questions on which one of them bears, and questions on which none does. The profile is
left out of the count: it belongs beside every question. The gate was set with the first half of the questions (every
other line) in sight and not the second, so both are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.memory.run import Run, rows
from server.memory import UserMemory
from server.types import Memory, UserId

MAX_REPORTED = 5  # failures that are reported


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def gate(_: object) -> AsyncIterator[Round]:
        memory = await asyncio.to_thread(_filled, run)
        yield lambda number: asyncio.to_thread(_measured, run, memory)

    return [Figure("gate", _GATE, gate, rounds=1)]


_GATE = (
    Measure("irrelevant", "unrelated questions that get a memory beyond the profile", "%", Bound(2, at_most=True)),
    Measure("irrelevant-unseen", "the same, questions the gate was not set with", "%", Bound(2, at_most=True)),
    Measure("found", "questions on which a memory bears: it is found", "%", Bound(80)),
    Measure("found-unseen", "the same, questions the gate was not set with", "%", Bound(80)),
    Measure("beside", "memories that come with it and are not it, a question", ""),
)


def _filled(run: Run) -> UserMemory:
    memory = run.store("gate").of(UserId("mina"))
    for row in rows("gate.jsonl"):
        if "memory" in row:
            memory.add(row["memory"])
    return memory


def _measured(run: Run, memory: UserMemory) -> Mapping[str, Reading]:
    questions = [row for row in rows("gate.jsonl") if "question" in row]
    about = [row for row in questions if row["finds"]][: run.sizes.cases]
    unrelated = [row for row in questions if not row["finds"]][: run.sizes.cases]
    false_recalls = [[one for one in memory.recall(row["question"]) if one.why != "profile"] for row in unrelated]
    recalled = [memory.recall(row["question"]) for row in about]
    missed = [row["finds"] not in [one.text for one in found] for row, found in zip(about, recalled, strict=True)]
    _report(run, "gets", [(row, found) for row, found in zip(unrelated, false_recalls, strict=True) if found])
    _report(run, "misses", [(row, found) for row, found, no in zip(about, recalled, missed, strict=True) if no])
    beside = sum(one.why != "profile" and one.text != row["finds"] for row, found in zip(about, recalled, strict=True)
                 for one in found)  # fmt: skip
    false = [bool(found) for found in false_recalls]
    hits = [not no for no in missed]
    return {
        "irrelevant": _share(false),
        "irrelevant-unseen": _share(false[1::2]),
        "found": _share(hits),
        "found-unseen": _share(hits[1::2]),
        "beside": Reading(beside / len(about)),
    }


def _share(which: Sequence[bool]) -> Reading:
    return Reading(100 * sum(which) / len(which), note=f"{sum(which)} of {len(which)}")


def _report(run: Run, what: str, cases: Sequence[tuple[Mapping[str, Any], Sequence[Memory]]]) -> None:
    for row, found in cases[:MAX_REPORTED]:
        run.report(f"  {row['question']!r} {what} {row['finds'] or [one.text for one in found]}")

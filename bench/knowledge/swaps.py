"""The index is replaced 200 times while it is searched. No search may fail, come back empty, or see two states.

Each swap gives one file of several chunks another number, which every chunk says. So the passages of one answer must
all have the same number, and no later search may have an older one.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.knowledge.large import FOLDER, Large
from bench.knowledge.run import Run
from bench.knowledge.scale import until
from server.config import RetrievalSettings
from server.retrieval import KnowledgeBase

QUESTION: Final = "Which number has the rule of the Zanzibar lighthouse keepers?"
SECTIONS: Final = ("rope", "lamp", "oil", "stairs", "boat", "flags", "storms", "visitors")
SEARCHERS: Final = 3
_NUMBER = re.compile(r"has number (\d+)")


def figures(run: Run) -> list[Figure]:
    large = Large(run, run.sizes.chunks, run.sizes.files)

    @asynccontextmanager
    async def swaps(_: object) -> AsyncIterator[Round]:
        await asyncio.to_thread(large.made)
        base = KnowledgeBase(large.root, large.place / "index", large.embedder, RetrievalSettings(debounce_ms=10))
        _write(large, 0)
        await base.start()
        await asyncio.to_thread(until, lambda: bool(_numbers(base)))
        yield lambda number: asyncio.to_thread(_swapped, base, large, number)
        await base.close()

    return [Figure("swaps", _SWAPS, swaps, rounds=1)]


_SWAPS = (
    Measure("failed", "200 swaps under load: searches that failed", "", Bound(0, at_most=True)),
    Measure("empty", "the same: searches that found nothing", "", Bound(0, at_most=True)),
    Measure("mixed", "the same: searches that saw two states, or an older one", "", Bound(0, at_most=True)),
    Measure("swap", "file saved to swapped, with the searches beside it", "s"),
)


@dataclass
class Seen:
    """What the searches have come to."""

    searches: int = 0
    failed: int = 0
    empty: int = 0
    mixed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _swapped(base: KnowledgeBase, large: Large, number: int) -> Mapping[str, Reading]:
    seen, stop, took = Seen(), threading.Event(), []
    searchers = [threading.Thread(target=_search, args=(base, seen, stop)) for _ in range(SEARCHERS)]
    for thread in searchers:
        thread.start()
    first = number * large.run.sizes.swaps
    try:
        for at in range(first + 1, first + large.run.sizes.swaps + 1):
            began = time.perf_counter()
            _write(large, at)
            until(partial(_says, base, at), 0.01)
            took.append(time.perf_counter() - began)
    finally:
        stop.set()
        for thread in searchers:
            thread.join()
    note = f"{seen.searches} searches by {SEARCHERS} threads without a pause, {len(took)} swaps"
    return {
        "failed": Reading(seen.failed, note=note),
        "empty": Reading(seen.empty, note=note),
        "mixed": Reading(seen.mixed, note=note),
        "swap": Reading(sum(took) / len(took), note=note),
    }


def _says(base: KnowledgeBase, number: int) -> bool:
    return _numbers(base) == {number}


def _write(large: Large, number: int) -> None:
    """In one step, as editors do it."""
    path = large.root / FOLDER / "rule.md"
    text = "\n".join(
        f"# {section}\n\nThe rule of the Zanzibar lighthouse keepers on {section} has number {number}.\n"
        for section in SECTIONS
    )
    new = path.with_name("rule.tmp")
    new.write_text(text)
    os.replace(new, path)


def _search(base: KnowledgeBase, seen: Seen, stop: threading.Event) -> None:
    newest = 0
    while not stop.is_set():
        try:
            numbers = _numbers(base)
        except Exception:  # noqa: BLE001  whatever it is, it is counted
            with seen.lock:
                seen.searches, seen.failed = seen.searches + 1, seen.failed + 1
            continue
        with seen.lock:
            seen.searches += 1
            seen.empty += not numbers
            seen.mixed += len(numbers) > 1 or (bool(numbers) and max(numbers) < newest)
        newest = max(newest, *numbers) if numbers else newest


def _numbers(base: KnowledgeBase) -> set[int]:
    passages = base.search(QUESTION, [FOLDER]).passages
    return {int(found[1]) for passage in passages if (found := _NUMBER.search(passage.text))}

"""How an index of 100,000 chunks holds: searches, new files, changes, starts, memory.

A search's time is without the embedding of its question, which depends on the model alone. New files and the questions
asked meanwhile are embedded for real.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.context import ROOT
from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.knowledge import sets
from bench.knowledge.embedders import Fast
from bench.knowledge.large import FOLDER, Large
from bench.knowledge.run import Run
from server.config import RetrievalSettings
from server.retrieval import KnowledgeBase

PATIENCE_S = 60.0
CHANGED_CHUNKS = 10


def figures(run: Run) -> list[Figure]:
    large = Large(run, run.sizes.chunks, run.sizes.files)

    @asynccontextmanager
    async def search(_: object) -> AsyncIterator[Round]:
        base = await asyncio.to_thread(large.made)
        base.open()
        questions = await asyncio.to_thread(large.questions, run.sizes.searches)
        await asyncio.to_thread(_searched, base, large, questions[:50])
        yield lambda number: asyncio.to_thread(_searched, base, large, questions)
        await base.close()

    @asynccontextmanager
    async def saved(_: object) -> AsyncIterator[Round]:
        base = await asyncio.to_thread(large.made)
        await base.start()
        questions = await asyncio.to_thread(large.questions, 200)
        yield lambda number: asyncio.to_thread(_saved, base, large, questions, number)
        await base.close()

    @asynccontextmanager
    async def changed(_: object) -> AsyncIterator[Round]:
        small = replace(large, chunks=run.sizes.small, files=max(1, run.sizes.small // 10))
        bases = []
        for one in (large, small):
            await asyncio.to_thread(one.made)
            bases.append(KnowledgeBase(one.root, one.place / "index", Fast(run.embedder), RetrievalSettings()))
            await bases[-1].start()
            await asyncio.to_thread(_settled, bases[-1])
        yield lambda number: asyncio.to_thread(_changed, bases[0], bases[1], large.texts, run.sizes.changes, number)
        for base in bases:
            await base.close()

    @asynccontextmanager
    async def start(_: object) -> AsyncIterator[Round]:
        await asyncio.to_thread(large.made)
        yield lambda number: asyncio.to_thread(_started, large)

    return [
        Figure("search", _SEARCH, search),
        Figure("saved", _SAVED, saved),
        Figure("change", _CHANGE, changed),
        Figure("start", _START, start, rounds=run.sizes.starts),
    ]


_SEARCH = (
    Measure("p50", "100,000 chunks, a search without the embedding: median", "ms", Bound(10, at_most=True)),
    Measure("p95", "the same: 95th percentile", "ms", Bound(25, at_most=True)),
)
_SAVED = (
    Measure("p95", "100,000 chunks, 8 searches a second: file saved to answered from, 95th percentile", "s",
            Bound(1, at_most=True)),
    Measure("p50", "the same: median", "s"),
    Measure("failed", "the searches meanwhile that failed", "", Bound(0, at_most=True)),
)  # fmt: skip
_CHANGE = (
    Measure("ratio", "a change of 10 chunks: time at 100,000 chunks over time at 1,000", "×", Bound(3, at_most=True),
            "ms", "at 100,000", "at 1,000"),
)  # fmt: skip
_START = (
    Measure("start", "100,000 chunks, new process: index opened to first answer", "s", Bound(5, at_most=True)),
    Measure("memory", "memory that the index takes, a chunk", "kB"),
    Measure("own", "the same without mapped files", "kB"),
    Measure("disk", "disk that the index takes, a chunk", "kB"),
)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many are at most; of the values themselves."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, int(share * len(ordered))))]


# ── searches ─────────────────────────────────────────────────────────────────────────────────────


def _searched(base: KnowledgeBase, large: Large, questions: Sequence[str]) -> Mapping[str, Reading]:
    took = []
    for question in questions:
        embedding, began = large.embedder.seconds, time.perf_counter()
        base.search(question, [FOLDER])
        took.append(1000 * (time.perf_counter() - began - (large.embedder.seconds - embedding)))
    note = f"{len(questions)} questions, half Korean"
    return {"p50": Reading(statistics.median(took), note=note), "p95": Reading(percentile(took, 0.95), note=note)}


# ── new files ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Load:
    """What the searches beside a figure have come to."""

    asked: int = 0
    failed: int = 0


@contextmanager
def under_load(base: KnowledgeBase, questions: Sequence[str], rate: float) -> Iterator[Load]:
    """Searches at that rate, each with a question that has not been embedded before."""
    load, stop = Load(), threading.Event()
    numbers = itertools.count()

    def ask(question: str) -> None:
        load.asked += 1
        try:
            base.search(question, [FOLDER])
        except Exception:  # noqa: BLE001  whatever it is, it is counted
            load.failed += 1

    def keep_asking() -> None:
        due = time.monotonic()
        for question in itertools.cycle(questions):
            due += 1 / rate
            if stop.wait(max(0.0, due - time.monotonic())):
                return
            threading.Thread(target=ask, args=(f"{question} ({next(numbers)})",)).start()

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        yield load
    finally:
        stop.set()
        thread.join()


def _saved(base: KnowledgeBase, large: Large, questions: Sequence[str], number: int) -> Mapping[str, Reading]:
    took = []
    with under_load(base, questions, large.run.sizes.rate) as load:
        for at in range(large.run.sizes.saves):
            name = f"Quorvix{number:02}{at:03}"
            question = f"What is the access code of {name}?"
            large.embedder.embed([question])
            path = large.root / FOLDER / "new" / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"The access code of {name} is {at + 4711}. It opens the gate of the yard.\n")
            took.append(until(partial(_answered_from, base, question, path.name)))
    note = f"{len(took)} files, {load.asked} searches meanwhile"
    return {
        "p95": Reading(percentile(took, 0.95), note=note),
        "p50": Reading(statistics.median(took), note=note),
        "failed": Reading(load.failed, note=note),
    }


def _answered_from(base: KnowledgeBase, question: str, name: str) -> bool:
    return any(one.file.endswith(name) for one in base.search(question, [FOLDER]).passages)


def until(met: Callable[[], bool], pause: float = 0.02) -> float:
    """Waits for it and gives the seconds that it took. Raises TimeoutError."""
    began = time.perf_counter()
    while not met():
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError(f"it has not come within {PATIENCE_S:.0f} s")
        time.sleep(pause)
    return time.perf_counter() - began


# ── changes ──────────────────────────────────────────────────────────────────────────────────────


def _changed(
    large: KnowledgeBase, small: KnowledgeBase, texts: Sequence[str], times: int, number: int
) -> Mapping[str, Reading]:
    paragraphs = sets.varied(texts, seed=1000 + number)
    took: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(times):
        content = "\n\n".join(itertools.islice(paragraphs, CHANGED_CHUNKS)).encode()
        for which, base in enumerate((large, small)):
            before = base.history()[0].number
            began = time.perf_counter()
            base.save(FOLDER, "changed.txt", content)
            until(partial(_is_past, base, before), 0.001)
            took[which].append(1000 * (time.perf_counter() - began))
    ours, against = statistics.median(took[0]), statistics.median(took[1])
    return {"ratio": Reading(ours / against, ours, against, f"{times} changes of one file")}


def _is_past(base: KnowledgeBase, number: int) -> bool:
    return base.history()[0].number > number


def _settled(base: KnowledgeBase) -> None:
    """Waits until the first scan of the disk is over."""
    until(lambda: not base.status().busy)
    time.sleep(2)


# ── starts ───────────────────────────────────────────────────────────────────────────────────────


def _started(large: Large) -> Mapping[str, Reading]:
    """A new process each time."""
    question = large.questions(2)[0]
    command = [sys.executable, "-m", "bench.knowledge.starter", str(large.root), str(large.place / "index"),
               str(large.run.embedder_folder), question]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the new process failed: {done.stderr.strip()[-500:]}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    disk = sum(path.stat().st_size for path in _files(large.place / "index"))
    chunks = told["chunks"]
    note = f"{chunks} chunks; files in the page cache, imports and the embedder's weights not counted"
    return {
        "start": Reading(told["seconds"], note=note),
        "memory": Reading(told["memory"] / chunks / 1000, note=f"{told['memory'] / 1e6:.0f} MB after 200 searches"),
        "own": Reading(told["own"] / chunks / 1000, note=f"{told['own'] / 1e6:.0f} MB"),
        "disk": Reading(disk / chunks / 1000, note=f"{disk / 1e6:.0f} MB"),
    }


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())

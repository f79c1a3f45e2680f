"""A note is saved beside a large file that is being indexed, and is found: with the real embedder, on a machine that
embeds the large file meanwhile."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.knowledge.run import Run
from bench.knowledge.scale import until
from server.config import RetrievalSettings
from server.retrieval import KnowledgeBase

FOLDER: Final = "notes"
SYLLABLES: Final = ("ka", "lo", "mi", "ra", "tu", "ne", "so", "vi", "pe", "da", "gu", "shi")
STEPS_S: Final = (0.5, 5.0, 10.0)  # after the large file was saved: while it is read, chunked, embedded


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def beside(_: object) -> AsyncIterator[Round]:
        yield lambda number: _measured(run, number)

    return [Figure("note", _NOTE, beside, rounds=1)]


_NOTE = (
    Measure(
        "slowest",
        "a note saved beside a file of 30 MB that is being indexed: saved to found",
        "s",
        Bound(2, at_most=True),
    ),
)


async def _measured(run: Run, number: int) -> Mapping[str, Reading]:
    place = run.folder / f"notes-{number}"
    root = place / "knowledge"
    (root / FOLDER).mkdir(parents=True)
    base = KnowledgeBase(root, place / "index", run.embedder, RetrievalSettings())
    await base.start()
    took = []
    try:
        await asyncio.to_thread(base.save, FOLDER, "large.txt", large_text(run.sizes.note_bytes).encode())
        began = time.monotonic()
        for at, step in enumerate(STEPS_S):
            await asyncio.sleep(max(0.0, began + step - time.monotonic()))
            word = f"quillfeather{at}"
            saved = time.perf_counter()
            await asyncio.to_thread(base.save, FOLDER, f"{at}.md", f"The {word} is kept in drawer {at}.".encode())
            await asyncio.to_thread(until, partial(_finds, base, word), 0.02)
            took.append(time.perf_counter() - saved)
        status = base.status()
    finally:
        await base.close()
        shutil.rmtree(place)
    progress = status.progress
    done = f"{progress.bytes / 1e6:.1f} of {progress.of_bytes / 1e6:.1f} MB were done" if progress else "it was done"
    each = ", ".join(f"{seconds:.2f}" for seconds in took)
    return {"slowest": Reading(max(took), note=f"{each} s, {STEPS_S} s after the large one; then {done}")}


def _finds(base: KnowledgeBase, word: str) -> bool:
    found = base.search(f"Where is the {word}?", [FOLDER]).passages
    return any(word in passage.text for passage in found)


def large_text(size: int) -> str:
    """Paragraphs of made words."""
    draw = random.Random(3)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(5_000)]
    parts: list[str] = []
    length = 0
    while length < size:
        sentences = [" ".join(draw.choices(words, k=12)).capitalize() + "." for _ in range(6)]
        parts.append(" ".join(sentences))
        length += len(parts[-1]) + 2
    return "\n\n".join(parts)

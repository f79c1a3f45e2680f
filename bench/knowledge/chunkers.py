"""What size of chunk finds most: the chunking set in an index for each size, all else as it ships."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from bench.figure import Figure, Measure, Reading, Round
from bench.knowledge import quality
from bench.knowledge.quality import FIRST, Overlap
from bench.knowledge.run import Run
from bench.knowledge.sets import Spanned
from server.config import RetrievalSettings

TOKENS: Final = (64, 96, 128, 160, 224, 320)
QUICK_TOKENS: Final = (64, 160)


def figures(run: Run) -> list[Figure]:
    sizes = TOKENS if run.sizes.questions is None else QUICK_TOKENS

    @asynccontextmanager
    async def chunkers(_: object) -> AsyncIterator[Round]:
        texts, asked = quality.chunking_part(run)
        yield lambda number: asyncio.to_thread(_measured, run, sizes, texts, asked)

    measures = [
        Measure(f"{tokens}-{name}", f"chunks of {tokens} tokens, k=5, ranking alone: {title}", "%")
        for tokens in sizes
        for name, title in (("recall", "recall"), ("iou", "IoU"))
    ]
    return [Figure("chunkers", tuple(measures), chunkers, rounds=1)]


def _measured(
    run: Run, sizes: Sequence[int], texts: Mapping[str, str], asked: Sequence[Spanned]
) -> Mapping[str, Reading]:
    readings = {}
    for tokens in sizes:
        name = f"chunks-{tokens}"
        base = run.base(name, dict(texts), RetrievalSettings(chunk_tokens=tokens))
        found: list[Overlap] = []
        for question in asked:
            ranking = quality.ranking(base.search(question.text, [name], traced=True))
            found.append(quality.overlap(question, ranking[:FIRST], texts))
        note = f"{base.history()[0].chunks} chunks"
        readings[f"{tokens}-recall"] = Reading(100 * statistics.mean(one.recall for one in found), note=note)
        readings[f"{tokens}-iou"] = Reading(100 * statistics.mean(one.iou for one in found), note=note)
    return readings

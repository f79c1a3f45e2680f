"""A thousand times the same: adapters in and out, answers cancelled. What is taken must be given back."""

from __future__ import annotations

import asyncio
import ctypes.util
import gc
import random
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

import psutil

from bench import chats, models, ours
from bench.context import Bench
from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.figures.latency import unload_all
from server.engine import LocalEngine
from server.types import TokenDelta

WARM_SHARE = 10  # the first tenth of the cycles may fill caches and the allocator's pools


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(psutil.Process().memory_info().rss)


def trim() -> None:
    """Gives what earlier figures have freed back to the system, where it would hide what this one takes."""
    gc.collect()
    libc = ctypes.util.find_library("c")
    if sys.platform == "linux" and libc:
        ctypes.CDLL(libc).malloc_trim(0)


def growth(before: int, after: int) -> Reading:
    """In per cent; what was given back counts as none."""
    return Reading(max(0.0, 100 * (after - before) / before), after / 2**20, before / 2**20)


@asynccontextmanager
async def loads(bench: Bench) -> AsyncIterator[Round]:
    model = models.chat_model(bench)
    adapters = models.adapters(bench, model)
    names = models.adapter_names(adapters)

    async with ours.started(bench, model, adapters) as engine:

        async def one_round(number: int) -> Mapping[str, Reading]:
            cycles, before = bench.sizes.cycles, 0
            for cycle in range(cycles):
                if cycle == cycles // WARM_SHARE:
                    before = resident()
                name = names[cycle % len(names)]
                await engine.load_adapter(name)
                await engine.unload_adapter(name)
            return {"rss": growth(before, resident()), "held": Reading(engine.stats().adapter_bytes / 2**20)}

        await unload_all(engine)
        trim()
        yield one_round


@asynccontextmanager
async def cancels(bench: Bench) -> AsyncIterator[Round]:
    """One answer at a time, dropped before or after some of its tokens, each from a new prompt.

    The prefix store is small, so that the first tenth fills it.
    """
    model = models.chat_model(bench)
    async with ours.started(bench, model, settings={"prefix_bytes": 32 * 2**20}) as engine:

        async def one_round(number: int) -> Mapping[str, Reading]:
            cycles, before, further = bench.sizes.cycles, 0, 0
            for cycle in range(cycles):
                if cycle == cycles // WARM_SHARE:
                    before = resident()
                further = max(further, await _cancel_one(bench, engine, cycle, models.vocabulary(model)))
            return {
                "rss": growth(before, resident()),
                "steps": Reading(further, note=f"the engine counts {engine.stats().cancelled:,} cancels"),
            }

        trim()
        yield one_round


async def _cancel_one(bench: Bench, engine: LocalEngine, cycle: int, vocabulary: int) -> int:
    """How many steps the engine began after the cancel."""
    drawn = chats.draw("cancel", cycle, count=1, length=bench.sizes.prompt, new=1, vocabulary=vocabulary)
    texts = random.Random(cycle).randrange(4)
    async with aclosing(engine.generate(ours.request(drawn.prompts[0], 1024))) as events:
        if texts:
            async for event in events:
                texts -= isinstance(event, TokenDelta)
                if not texts:
                    break
        else:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.001)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
    begun = engine.stats().steps
    while (health := engine.health()).running or health.waiting:  # noqa: ASYNC110  the engine tells by being asked
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.002)  # a step that began in between would be counted by now
    return engine.stats().steps - begun


def _memory(title: str) -> Measure:
    return Measure("rss", title, "%", Bound(5, at_most=True), "MiB", ours="after", against="after the first tenth")


FIGURES = (
    Figure(
        "loads",
        (
            _memory("1,000 loads and unloads: growth of the process's memory"),
            Measure("held", "the same: adapters' bytes held at the end", "MiB", Bound(0, at_most=True)),
        ),
        loads,
        rounds=1,
    ),
    Figure(
        "cancels",
        (
            _memory("1,000 cancels: growth of the process's memory"),
            Measure("steps", "the same: most steps finished after a cancel", "steps", Bound(1, at_most=True)),
        ),
        cancels,
        rounds=1,
    ),
)

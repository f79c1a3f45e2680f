"""What others' work does to a running chat: gaps between tokens, and the first token of a cold adapter."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench import chats, models, ours
from bench.context import Bench
from bench.figure import Bound, Figure, Measure, Reading, Round
from server.engine import LocalEngine
from server.errors import AdapterNotFound
from server.types import TokenDelta


@dataclass
class Stream:
    """When each piece of one chat's text came, by the monotonic clock."""

    came: list[float] = field(default_factory=list)

    async def read(self, engine: LocalEngine, prompt: tuple[int, ...]) -> None:
        """Until the task is cancelled. Raises RuntimeError when the answer ends before."""
        new = min(engine.stats().max_tokens, engine.model.context_length - len(prompt))
        async with aclosing(engine.generate(ours.request(prompt, new))) as events:
            async for event in events:
                if isinstance(event, TokenDelta):
                    self.came.append(time.monotonic())
        raise RuntimeError("a stream came to its end while it was watched")

    def gaps(self, begin: float, end: float) -> list[float]:
        """Seconds between texts, for those that came in the window; and the gap that is open at its end, where it is
        longer than they are: the stream stands still."""
        pairs = zip(self.came, self.came[1:], strict=False)
        closed = [later - earlier for earlier, later in pairs if begin < later <= end]
        still = end - max((moment for moment in self.came if moment <= end), default=begin)
        return [*closed, still] if still > max(closed, default=0.0) else closed


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@asynccontextmanager
async def streams(bench: Bench) -> AsyncIterator[Round]:
    """Base streams; the adapters that load are not theirs."""
    model = models.chat_model(bench)
    adapters = models.adapters(bench, model)
    async with ours.started(bench, model, adapters) as engine:

        async def one_round(number: int) -> Mapping[str, Reading]:
            await unload_all(engine)
            watched = [Stream() for _ in range(bench.sizes.streams)]
            async with AsyncExitStack() as stack:
                tasks = [
                    asyncio.create_task(each.read(engine, plain_prompt(bench, engine, number, place)))
                    for place, each in enumerate(watched)
                ]
                stack.push_async_callback(_cancel, tasks)
                idle, busy = await _watch(bench, engine, number, model, adapters, watched, tasks)
            p50, p99 = statistics.median(idle), percentile(busy, 0.99)
            return {"gap": Reading(p99 / p50, 1000 * p99, 1000 * p50, f"{len(busy)} gaps, longest {max(busy):.2f} s")}

        await ours.first_token(engine, plain_prompt(bench, engine, -1, 0))
        yield one_round


async def _watch(
    bench: Bench,
    engine: LocalEngine,
    number: int,
    model: Path,
    adapters: Path,
    watched: Sequence[Stream],
    tasks: Sequence[asyncio.Task[None]],
) -> tuple[list[float], list[float]]:
    """(gaps while nothing else happens, gaps while adapters load and a long prompt is read)."""
    while not all(len(stream.came) > 1 for stream in watched):
        await _unless_ended(tasks, 0.02)
    begin = time.monotonic()
    await _unless_ended(tasks, bench.sizes.idle_s)
    disturbed = time.monotonic()
    long_prompt = chats.draw(
        "long", number, count=1, length=bench.sizes.long_prompt, new=1, vocabulary=models.vocabulary(model)
    ).prompts[0]
    await asyncio.gather(_load_all(engine, adapters), ours.first_token(engine, long_prompt))
    end = time.monotonic()
    await _unless_ended(tasks, 0)
    idle = [gap for stream in watched for gap in stream.gaps(begin, disturbed)]
    return idle, [gap for stream in watched for gap in stream.gaps(disturbed, end)]


async def _unless_ended(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Waits, and raises what a stream raised."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _load_all(engine: LocalEngine, adapters: Path) -> None:
    for name in models.adapter_names(adapters):
        await engine.load_adapter(name)


async def unload_all(engine: LocalEngine) -> None:
    for info in engine.adapters():
        with suppress(AdapterNotFound):  # it was not loaded
            await engine.unload_adapter(info.name)


def plain_prompt(bench: Bench, engine: LocalEngine, number: int, place: int) -> tuple[int, ...]:
    """Plain words: their answers come a token at a time, not held back for half a character."""
    return tuple(engine.tokenizer.encode(chats.message("stream", number, place, engine.tokenizer, bench.sizes.prompt)))


@asynccontextmanager
async def cold(bench: Bench) -> AsyncIterator[Round]:
    """For each adapter: the first token when it is not loaded, then when it is. Its files are in the page cache."""
    model = models.chat_model(bench)
    adapters = models.adapters(bench, model)
    names = models.adapter_names(adapters)
    async with ours.started(bench, model, adapters) as engine:

        async def one_round(number: int) -> Mapping[str, Reading]:
            await unload_all(engine)
            asked = chats.draw(
                "cold", number, count=2 * len(names), length=bench.sizes.prompt, new=1,
                vocabulary=models.vocabulary(model),
            ).prompts  # fmt: skip
            first, again = [], []
            for name, prompt, other in zip(names, asked[::2], asked[1::2], strict=True):
                first.append(1000 * await ours.first_token(engine, prompt, name))
                again.append(1000 * await ours.first_token(engine, other, name))
            more = statistics.median(late - early for late, early in zip(first, again, strict=True))
            return {"more": Reading(more, statistics.median(first), statistics.median(again))}

        await one_round(-1)
        yield one_round


FIGURES = (
    Figure(
        "streams",
        (
            Measure(
                "gap", "8 streams while 8 adapters load and a 4,000-token prompt is read: p99 of the gaps between "
                "tokens, of the idle median", "×", Bound(3, at_most=True), "ms", ours="p99", against="idle median",
            ),
        ),
        streams,
    ),
    Figure(
        "cold-adapter",
        (
            Measure(
                "more", "first token with an adapter that is not loaded, more than with a loaded one", "ms",
                Bound(50, at_most=True), "ms", ours="cold", against="warm",
            ),
        ),
        cold,
    ),
)  # fmt: skip

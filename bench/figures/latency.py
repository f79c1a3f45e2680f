"""What others' work does to a running chat: gaps between tokens, and the first token of a cold adapter."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
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

    async def read(self, engine: LocalEngine, prompt: tuple[int, ...], adapter: str | None = None) -> None:
        """Until the task is cancelled. Raises RuntimeError when the answer ends before."""
        new = min(engine.stats().max_tokens, engine.model.context_length - len(prompt))
        async with aclosing(engine.generate(ours.request(prompt, new, adapter))) as events:
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
            long_prompt = chats.draw(
                "long", number, count=1, length=bench.sizes.long_prompt, new=1, vocabulary=models.vocabulary(model)
            ).prompts[0]

            async def disturb() -> str:
                await asyncio.gather(_load_all(engine, adapters), ours.first_token(engine, long_prompt))
                return ""

            return {"gap": await gaps_beside(bench, engine, number, [None] * bench.sizes.streams, disturb)}

        await ours.first_token(engine, plain_prompt(bench, engine, -1, 0))
        yield one_round


async def gaps_beside(
    bench: Bench,
    engine: LocalEngine,
    number: int,
    adapters: Sequence[str | None],
    disturb: Callable[[], Awaitable[str]],
) -> Reading:
    """How many times longer the 99th percentile of the gaps between tokens is, in ms, while `disturb` runs than the
    median before. One stream for each of `adapters`; what `disturb` returns is added to the remark."""
    await unload_all(engine)
    watched = [Stream() for _ in adapters]
    async with AsyncExitStack() as stack:
        tasks = [
            asyncio.create_task(each.read(engine, plain_prompt(bench, engine, number, place), adapter))
            for place, (each, adapter) in enumerate(zip(watched, adapters, strict=True))
        ]
        stack.push_async_callback(_cancel, tasks)
        while not all(len(stream.came) > 1 for stream in watched):
            await _unless_ended(tasks, 0.02)
        begin = time.monotonic()
        await _unless_ended(tasks, bench.sizes.idle_s)
        disturbed = time.monotonic()
        said = await disturb()
        end = time.monotonic()
        await _unless_ended(tasks, 0)
    idle = statistics.median([gap for stream in watched for gap in stream.gaps(begin, disturbed)])
    busy = [gap for stream in watched for gap in stream.gaps(disturbed, end)]
    p99 = percentile(busy, 0.99)
    return Reading(p99 / idle, 1000 * p99, 1000 * idle, f"{len(busy)} gaps, longest {max(busy):.2f} s{said}")


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

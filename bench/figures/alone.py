"""One chat alone: how fast it decodes against `generate`, and how much of the memory's speed that takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from bench import chats, machine, models, ours, peers
from bench.context import Bench
from bench.figure import Bound, Figure, Measure, Reading, Round, ratio


@asynccontextmanager
async def alone(bench: Bench, *, key: str, quantize: ours.Quantize) -> AsyncIterator[Round]:
    """Decoding is timed from the first token to the last on both sides."""
    model = models.chat_model(bench)
    width = models.bytes_a_token(model, 4)
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(peers.started(bench, "generate", model))
        engine = await stack.enter_async_context(ours.started(bench, model, quantize=quantize))

        async def one_round(number: int) -> Mapping[str, Reading]:
            asked = one_chat(bench, key, number, models.vocabulary(model))
            memory = machine.read_bandwidth(bench.device, bench.sizes.bandwidth_bytes)
            mine = await ours.run_alone(engine, asked)
            theirs = await peer.run(asked, engine.tokenizer.decode, alone=True)
            return {
                "ratio": ratio(mine.speed, theirs.speed, chats.alike(mine, theirs)),
                "share": share(mine.speed * width, memory),
            }

        await one_round(-1)
        yield one_round


def one_chat(bench: Bench, key: str, number: int, vocabulary: int) -> chats.Chats:
    return chats.draw(key, number, count=1, length=bench.sizes.prompt, new=bench.sizes.alone, vocabulary=vocabulary)


def share(used: float, there: float) -> Reading:
    """Bytes a second in per cent of those there are."""
    return Reading(100 * used / there, used / 1e9, there / 1e9)


def share_measure(bound: Bound | None = None) -> Measure:
    return Measure(
        "share", "one chat, base: weights read, of the memory's speed", "%", bound, "GB/s",
        ours="decoding", against="memory",
    )  # fmt: skip


def _ratio(title: str, least: float) -> Measure:
    return Measure("ratio", title, "×", Bound(least), "tokens/s", against="generate")


FIGURES = (
    Figure(
        "alone",
        (_ratio("one chat, base, decoding, against `generate`", 1.15), share_measure()),
        partial(alone, key="alone", quantize="none"),
    ),
    Figure(
        "alone-int8",
        (_ratio("the same, ours in int8", 1.6),),
        partial(alone, key="alone-int8", quantize="int8"),
    ),
)

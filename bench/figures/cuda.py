"""On a GPU: a random Llama in bfloat16, made where it is measured, as large as the card takes twice.

64 chats of 64 prompt and 32 new tokens over 32 adapters of rank 16. Peers without a bound are left out where they do
not run.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from bench import chats, machine, models, ours, peers
from bench.context import Bench
from bench.figure import Bound, Figure, Measure, Reading, Round, Unavailable, ratio
from bench.figures.alone import one_chat, share, share_measure
from bench.figures.latency import gaps_beside, plain_prompt
from bench.figures.throughput import WARM_TOKENS, all_chats, mixed, roomy
from server.errors import ModelError


@asynccontextmanager
async def alone(bench: Bench, *, quantize: ours.Quantize = "none") -> AsyncIterator[Round]:
    """One chat's decoding against what the card's memory gives. A quantized engine is Unavailable where the model's
    card does not say that its weights are so."""
    model = models.large_model(bench)
    width = models.bytes_a_token(model, 2)
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(
                ours.started(bench, model, quantize=quantize, settings=roomy(bench))
            )
        except (ours.NotQuantized, ModelError) as error:
            if quantize == "none":
                raise
            raise Unavailable(str(error)) from error

        async def one_round(number: int) -> Mapping[str, Reading]:
            asked = one_chat(bench, "cuda-alone", number, models.vocabulary(model))
            if quantize != "none":
                return {"speed": Reading((await ours.run_alone(engine, asked)).speed)}
            memory = machine.read_bandwidth(bench.device, bench.sizes.bandwidth_bytes)
            mine = await ours.run_alone(engine, asked)
            return {"share": share(mine.speed * width, memory), "speed": Reading(mine.speed)}

        await one_round(-1)
        yield one_round


@asynccontextmanager
async def against(bench: Bench, *, kind: str, needed: bool, works: Mapping[str, bool]) -> AsyncIterator[Round]:
    """All the run's chats, ours against a peer's. `works` says of each measure whether its chats have adapters. A peer
    that is not `needed` is Unavailable where it fails."""
    model = models.large_model(bench)
    adapters = models.adapters(bench, model) if any(works.values()) else None
    async with AsyncExitStack() as stack:
        try:
            peer = await stack.enter_async_context(peers.started(bench, kind, model, adapters))
        except (peers.PeerFailed, TimeoutError) as error:
            if needed:
                raise
            raise Unavailable(f"{kind} does not start here: {error}") from error
        engine = await stack.enter_async_context(ours.started(bench, model, adapters, settings=roomy(bench)))

        async def one_round(number: int, new: int = bench.sizes.new) -> Mapping[str, Reading]:
            readings = {}
            for name, adapted in works.items():
                key = f"cuda {kind} {name}"
                asked = chats.shorter(all_chats(bench, key, number, model, adapters if adapted else None), new)
                mine = await ours.run(engine, asked)
                try:
                    theirs = await peer.run(asked, engine.tokenizer.decode)
                except (peers.PeerFailed, TimeoutError) as error:
                    if needed:
                        raise
                    raise Unavailable(f"{kind} does not answer here: {error}") from error
                readings[name] = ratio(mine.speed, theirs.speed, chats.alike(mine, theirs))
            return readings

        await one_round(-1, WARM_TOKENS)
        yield one_round


@asynccontextmanager
async def loads(bench: Bench) -> AsyncIterator[Round]:
    """Streams, each with an adapter of one half, while those of the other half load and unload again and again."""
    model = models.large_model(bench)
    adapters = models.adapters(bench, model)
    names = models.adapter_names(adapters)
    used, others = names[: len(names) // 2], names[len(names) // 2 :]
    async with ours.started(bench, model, adapters, settings=roomy(bench)) as engine:

        async def disturb() -> str:
            count, until = 0, time.monotonic() + bench.sizes.idle_s
            while count == 0 or time.monotonic() < until:
                for name in others:
                    await engine.load_adapter(name)
                for name in others:
                    await engine.unload_adapter(name)
                count += len(others)
            return f", {count} loads"

        async def one_round(number: int) -> Mapping[str, Reading]:
            carried = [used[place % len(used)] for place in range(bench.sizes.streams)]
            return {"gap": await gaps_beside(bench, engine, number, carried, disturb)}

        await ours.first_token(engine, plain_prompt(bench, engine, -1, 0))
        yield one_round


def _speed(title: str) -> Measure:
    return Measure("speed", title, "tokens/s")


def _ratio(name: str, title: str, against: str, least: float | None = None) -> Measure:
    return Measure(name, title, "×", None if least is None else Bound(least), "tokens/s", against=against)


FIGURES = (
    Figure("cuda-alone", (share_measure(Bound(60)), _speed("the same: its decoding")), alone, device="cuda"),
    Figure(
        "cuda-alone-int8", (_speed("the same, `--quantize int8`"),), partial(alone, quantize="int8"), device="cuda"
    ),
    Figure(
        "cuda-alone-int4", (_speed("the same, `--quantize int4`"),), partial(alone, quantize="int4"), device="cuda"
    ),
    Figure(
        "cuda-mixed",
        (
            Measure(
                "ratio", "64 chats over 32 adapters against the base alone", "×", Bound(0.85), "tokens/s",
                ours="32 adapters", against="base",
            ),
        ),
        mixed("cuda-mixed", models.large_model),
        device="cuda",
    ),
    Figure(
        "cuda-loads",
        (
            Measure(
                "gap", "16 streams of 16 adapters while 16 others load and unload: p99 of the gaps between tokens, of "
                "the idle median", "×", Bound(3, at_most=True), "ms", ours="p99", against="idle median",
            ),
        ),
        loads,
        device="cuda",
    ),
    Figure(
        "cuda-generate",
        (_ratio("ratio", "64 chats, 32 adapters, against peft one at a time", "peft-one", 10),),
        partial(against, kind="peft-one", needed=True, works={"ratio": True}),
        device="cuda",
    ),
    Figure(
        "cuda-batching",
        (_ratio("ratio", "64 chats, base, against transformers' continuous batching", "continuous"),),
        partial(against, kind="continuous", needed=False, works={"ratio": False}),
        device="cuda",
    ),
    Figure(
        "cuda-vllm",
        (
            _ratio("adapters", "64 chats, 32 adapters, against vLLM with LoRA", "vllm"),
            _ratio("base", "64 chats, base, against the same vLLM", "vllm"),
        ),
        partial(against, kind="vllm", needed=False, works={"adapters": True, "base": False}),
        device="cuda",
    ),
)  # fmt: skip

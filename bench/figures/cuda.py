"""On a GPU: a random 7B Llama in bfloat16, made where it is measured.

64 chats of 64 prompt and 32 new tokens over 32 adapters of rank 16.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from bench import chats, machine, models, ours, peers
from bench.context import Bench
from bench.figure import Bound, Figure, Measure, Reading, Round, ratio
from bench.figures.alone import one_chat, share, share_measure
from bench.figures.throughput import WARM_TOKENS, mixed, roomy


@asynccontextmanager
async def bandwidth(bench: Bench) -> AsyncIterator[Round]:
    """One chat's decoding against what the GPU's memory gives."""
    model = models.large_model(bench)
    width = models.bytes_a_token(model, 2)
    async with ours.started(bench, model, settings=roomy(bench)) as engine:

        async def one_round(number: int) -> Mapping[str, Reading]:
            memory = machine.read_bandwidth(bench.device, bench.sizes.bandwidth_bytes)
            mine = await ours.run_alone(engine, one_chat(bench, "cuda-alone", number, models.vocabulary(model)))
            return {"share": share(mine.speed * width, memory)}

        await one_round(-1)
        yield one_round


@asynccontextmanager
async def against_generate(bench: Bench) -> AsyncIterator[Round]:
    """All chats and adapters, against peft's `set_adapter` and `generate`, one chat at a time."""
    model = models.large_model(bench)
    adapters = models.adapters(bench, model)
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(peers.started(bench, "peft-one", model, adapters))
        engine = await stack.enter_async_context(ours.started(bench, model, adapters, settings=roomy(bench)))
        names = models.adapter_names(adapters)

        async def one_round(number: int, new: int = bench.sizes.new) -> Mapping[str, Reading]:
            sizes = bench.sizes
            asked = chats.draw(
                "cuda-generate", number, count=sizes.chats, length=sizes.prompt, new=new,
                vocabulary=models.vocabulary(model), adapters=names,
            )  # fmt: skip
            mine = await ours.run(engine, asked)
            theirs = await peer.run(asked, engine.tokenizer.decode)
            return {"ratio": ratio(mine.speed, theirs.speed, chats.alike(mine, theirs))}

        await one_round(-1, WARM_TOKENS)
        yield one_round


FIGURES = (
    Figure("cuda-alone", (share_measure(Bound(60)),), bandwidth, device="cuda"),
    Figure(
        "cuda-mixed",
        (
            Measure(
                "ratio", "64 chats over 32 adapters against the base alone, random 7B Llama, bfloat16", "×",
                Bound(0.85), "tokens/s", ours="32 adapters", against="base",
            ),
        ),
        mixed("cuda-mixed", models.large_model),
        device="cuda",
    ),
    Figure(
        "cuda-generate",
        (
            Measure(
                "ratio", "64 chats, 32 adapters, against peft one at a time", "×", Bound(10), "tokens/s",
                against="peft-one",
            ),
        ),
        against_generate,
        device="cuda",
    ),
)  # fmt: skip

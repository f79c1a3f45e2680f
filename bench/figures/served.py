"""Through real servers: HTTP against `transformers serve`, and what our own server costs over WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from bench import chats, models, ours, servers
from bench.context import Bench
from bench.figure import Bound, Figure, Measure, Reading, Round, ratio
from server.config import PromptSettings
from server.engine import LocalEngine, ModelTokenizer
from server.prompting import PromptLibrary, UserProfile, compose
from server.types import PromptBundle, TurnContext

_SETTLE_S = 2.0  # what a server does after its answers must not slow the other side


@asynccontextmanager
async def http(bench: Bench, *, key: str, batching: bool) -> AsyncIterator[Round]:
    """The same messages to both servers, a client for each chat."""
    model = models.chat_model(bench)
    tokenizer = ModelTokenizer(str(model))
    async with AsyncExitStack() as stack:
        place = servers.workspace(bench.folder / "workspace", bench.sizes.new)
        mine = await stack.enter_async_context(servers.tailor(bench, model, place))
        theirs = await stack.enter_async_context(servers.transformers(bench, model, batching=batching))

        async def one_round(number: int) -> Mapping[str, Reading]:
            sizes = bench.sizes
            texts = [chats.message(key, number, each, tokenizer, sizes.prompt) for each in range(sizes.chats)]
            own = await servers.ask_http(mine, texts, sizes.new)
            other = await servers.ask_http(theirs, texts, sizes.new)
            return {"ratio": ratio(own.speed, other.speed, chats.alike(own, other))}

        await servers.ask_http(mine, ["Hello"], 2)
        await servers.ask_http(theirs, ["Hello"], 2)
        yield one_round


@asynccontextmanager
async def websockets(bench: Bench) -> AsyncIterator[Round]:
    """The same composed prompts through `/ws` and straight into an engine of the same settings."""
    model = models.chat_model(bench)
    place = servers.workspace(bench.folder / "workspace", bench.sizes.new)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(servers.tailor(bench, model, place))
        engine = await stack.enter_async_context(ours.started(bench, model))
        sockets = await stack.enter_async_context(servers.sockets(served, bench.sizes.chats))
        library = PromptLibrary(place / "prompts", "general")

        async def one_round(number: int) -> Mapping[str, Reading]:
            sizes = bench.sizes
            texts = [
                chats.message("sockets", number, each, engine.tokenizer, sizes.prompt) for each in range(sizes.chats)
            ]
            bundles = [_composed(engine, library, text) for text in texts]
            through, turns = await servers.ask_sockets(sockets, texts)
            asked = tuple(bundle.token_ids for bundle in bundles)
            await asyncio.sleep(_SETTLE_S)
            alone = await ours.run(engine, chats.Chats(asked, (None,) * len(asked), sizes.new))
            _check([len(prompt) for prompt in asked], sizes.new, turns)
            return {"ratio": ratio(through.speed, alone.speed, chats.alike(through, alone))}

        await one_round(-1)
        yield one_round


def _composed(engine: LocalEngine, library: PromptLibrary, question: str) -> PromptBundle:
    """What the server makes of a first message."""
    return compose(
        library.get("general"),
        question=question,
        history=(),
        context=TurnContext(),
        user=UserProfile(),
        tokenizer=engine.tokenizer,
        context_length=engine.model.context_length,
        settings=PromptSettings(),
    )


def _check(prompts: list[int], new: int, turns: list[servers.Turn]) -> None:
    """Both sides must have done the same work. Raises ServerFailed."""
    for length, turn in zip(prompts, turns, strict=True):
        if (turn.prompt_tokens, turn.completion_tokens) != (length, new):
            did = f"{turn.prompt_tokens} and {turn.completion_tokens}"
            raise servers.ServerFailed(f"the server's turn has {did} tokens, the engine's {length} and {new}")


FIGURES = (
    Figure(
        "base-serve",
        (
            Measure(
                "ratio", "16 HTTP clients, base, against `transformers serve`", "×", Bound(5), "tokens/s",
                against="transformers serve",
            ),
        ),
        partial(http, key="base-serve", batching=False),
    ),
    Figure(
        "base-serve-batching",
        (
            Measure(
                "ratio", "the same, against its `--continuous-batching`", "×", None, "tokens/s",
                against="transformers serve",
            ),
        ),
        partial(http, key="base-serve-batching", batching=True),
    ),
    Figure(
        "sockets",
        (
            Measure(
                "ratio", "16 chats over WebSockets against the engine alone", "×", Bound(0.95), "tokens/s",
                ours="server", against="engine",
            ),
        ),
        websockets,
        times=3,
    ),
)  # fmt: skip

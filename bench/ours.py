"""Our engine as the figures use it: its public interface and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import ValidationError

from bench.chats import Chats, Timed
from bench.context import Bench
from server.config import EngineSettings, ModelSettings
from server.engine import AdapterCatalogue, LocalEngine
from server.types import GenerationDone, GenerationRequest, ModelCard, SamplingParams, TokenDelta, Usage

Quantize = Literal["none", "int8", "int4"]


class NotQuantized(Exception):
    """The engine took the setting and serves the plain weights all the same."""


@asynccontextmanager
async def started(
    bench: Bench,
    model: Path,
    adapters: Path | None = None,
    *,
    quantize: Quantize = "none",
    settings: Mapping[str, int] = MappingProxyType({}),
    dtype: str = "auto",
) -> AsyncIterator[LocalEngine]:
    """An engine with the run's number of rows, and room for the run's adapters, until the block ends.

    Raises NotQuantized: a figure must not pass for what it is not.
    """
    try:
        placed = ModelSettings.model_validate({"device": bench.device, "quantize": quantize, "dtype": dtype})
    except ValidationError as error:
        raise NotQuantized(f"the engine has no model.quantize {quantize}, or no model.dtype {dtype}: {error}") from None
    rows = {"max_batch": bench.sizes.chats, "max_loras": bench.sizes.adapters}
    engine = LocalEngine(
        str(model),
        EngineSettings.model_validate({**rows, **settings}),
        placed,
        AdapterCatalogue(adapters or bench.folder / "no-adapters"),
    )
    await engine.start()
    try:
        if not took(engine.model, quantize):
            raise NotQuantized(f"model.quantize is {quantize}, and the model's card says otherwise: {engine.model}")
        yield engine
    finally:
        await engine.close()


_UNQUANTIZED = ("left out", "plain products", "exact float32")


def took(card: ModelCard, quantize: Quantize) -> bool:
    """Whether the model's card says that its weights are so; it also names what was asked for and left out."""
    said = f"{card.dtype} {card.reason} {card.path}"
    instead = (*_UNQUANTIZED, "not int4") if quantize == "int4" else _UNQUANTIZED
    return quantize == "none" or (quantize in said and not any(words in said for words in instead))


def request(prompt: tuple[int, ...], new: int, adapter: str | None = None) -> GenerationRequest:
    return GenerationRequest(prompt, SamplingParams(temperature=0.0, max_tokens=new), adapter)


@dataclass(frozen=True)
class Answer:
    """One chat's answer. `decode_s` runs from the first text to the end, and `decoded` counts the tokens in it."""

    text: str
    usage: Usage
    decode_s: float
    decoded: int


async def answer(engine: LocalEngine, asked: GenerationRequest) -> Answer:
    """Raises RuntimeError when fewer tokens come than were asked for."""
    texts: list[str] = []
    first_at, first_tokens = 0.0, asked.sampling.max_tokens
    async with aclosing(engine.generate(asked)) as events:
        async for event in events:
            if isinstance(event, TokenDelta):
                if not texts:
                    first_at, first_tokens = time.perf_counter(), event.tokens
                texts.append(event.text)
            elif isinstance(event, GenerationDone):
                ended = time.perf_counter()
                usage = event.usage
                if usage.completion_tokens != asked.sampling.max_tokens:
                    raise RuntimeError(f"{usage.completion_tokens} tokens came instead of {asked.sampling.max_tokens}")
                return Answer("".join(texts), usage, ended - first_at, usage.completion_tokens - first_tokens)
    raise RuntimeError("the engine ended an answer without saying so")


async def run(engine: LocalEngine, chats: Chats) -> Timed:
    """All chats at once."""
    asked = [request(prompt, chats.new, name) for prompt, name in zip(chats.prompts, chats.adapters, strict=True)]
    began = time.perf_counter()
    answers = await asyncio.gather(*(answer(engine, each) for each in asked))
    return Timed(time.perf_counter() - began, chats.tokens, tuple(each.text for each in answers))


async def run_alone(engine: LocalEngine, chats: Chats) -> Timed:
    """The one chat's decoding: from its first text to its end."""
    (prompt,), (adapter,) = chats.prompts, chats.adapters
    done = await answer(engine, request(prompt, chats.new, adapter))
    if not done.decoded:
        raise RuntimeError("the answer came in one piece: its decoding cannot be timed")
    return Timed(done.decode_s, done.decoded, (done.text,))


async def first_token(engine: LocalEngine, prompt: tuple[int, ...], adapter: str | None = None) -> float:
    """Seconds from asking to the end of an answer of one token."""
    began = time.perf_counter()
    await answer(engine, request(prompt, 1, adapter))
    return time.perf_counter() - began

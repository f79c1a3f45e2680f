"""Our engine as it is measured: counted answers, and nothing that passes for what it is not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import ours
from bench.chats import Chats
from bench.context import Bench
from server.types import FinishReason, GenerationDone, GenerationEvent, GenerationRequest, TokenDelta, Usage


class Scripted:
    """Yields events as they are given."""

    def __init__(self, *events: GenerationEvent) -> None:
        self.events = events
        self.asked: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        self.asked.append(request)
        for event in self.events:
            yield event


def done(tokens: int) -> GenerationDone:
    return GenerationDone(FinishReason.LENGTH, Usage(3, tokens, 0, 0.0, 0.0, 0.0))


def engine(*events: GenerationEvent) -> Any:
    return Scripted(*events)


async def test_requests_are_greedy_and_name_their_adapter() -> None:
    scripted = engine(TokenDelta("a", 2), done(2))
    await ours.run(scripted, Chats(((1, 2), (3, 4)), ("x", None), 2))
    assert [(asked.prompt, asked.adapter) for asked in scripted.asked] == [((1, 2), "x"), ((3, 4), None)]
    assert {(asked.sampling.temperature, asked.sampling.max_tokens) for asked in scripted.asked} == {(0.0, 2)}


async def test_an_answer_that_is_too_short_is_refused() -> None:
    with pytest.raises(RuntimeError, match="3 tokens came instead of 4"):
        await ours.run(engine(TokenDelta("abc", 3), done(3)), Chats(((1,),), (None,), 4))


async def test_an_answer_without_an_end_is_refused() -> None:
    with pytest.raises(RuntimeError, match="without saying so"):
        await ours.run(engine(TokenDelta("abc", 3)), Chats(((1,),), (None,), 3))


async def test_decoding_counts_what_comes_after_the_first_text() -> None:
    """The first text may hold several tokens, where the first of them was half a character."""
    scripted = engine(TokenDelta("é", 2), TokenDelta("b", 1), TokenDelta("c", 1), done(4))
    timed = await ours.run_alone(scripted, Chats(((1,),), (None,), 4))
    assert (timed.tokens, timed.texts) == (2, ("ébc",))


@pytest.mark.parametrize("events", [(done(3),), (TokenDelta("abc", 3), done(3))])
async def test_an_answer_in_one_piece_cannot_be_timed(events: tuple[GenerationEvent, ...]) -> None:
    with pytest.raises(RuntimeError, match="cannot be timed"):
        await ours.run_alone(engine(*events), Chats(((1,),), (None,), 3))


class Recorder(Scripted):
    """Stands for LocalEngine: keeps what it is made with."""

    model = SimpleNamespace(dtype="int8 weights", reason="", path="")

    def __init__(self, *made_with: Any) -> None:
        super().__init__()
        self.made_with = made_with
        self.life: list[str] = []

    async def start(self) -> None:
        self.life.append("started")

    async def close(self) -> None:
        self.life.append("closed")


class Plain(Recorder):
    model = SimpleNamespace(dtype="float32", reason="exact", path="packed")


async def test_an_engine_that_ignores_int8_is_found_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "LocalEngine", Plain)
    with pytest.raises(ours.NotQuantized, match=r"model\.quantize is int8"):
        async with ours.started(bench, bench.folder, quantize="int8"):
            pass
    async with ours.started(bench, bench.folder):
        pass


async def test_settings_reach_the_engine(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "LocalEngine", Recorder)
    chosen = {"max_batch": 3, "prefix_bytes": 0}
    async with ours.started(bench, tmp_path / "m", tmp_path / "a", quantize="int8", settings=chosen) as started:
        path, settings, model_settings, catalogue = cast(Recorder, started).made_with
    assert path == str(tmp_path / "m")
    assert (settings.max_batch, settings.prefix_bytes, settings.max_loras) == (3, 0, bench.sizes.adapters)
    assert (model_settings.device, model_settings.quantize) == ("cpu", "int8")
    assert catalogue.root == tmp_path / "a"


async def test_the_engine_is_closed_whatever_happens(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "LocalEngine", Recorder)
    with pytest.raises(ZeroDivisionError):
        async with ours.started(bench, bench.folder) as started:
            raise ZeroDivisionError
    assert cast(Recorder, started).life == ["started", "closed"]


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("our own decoder, int8 weights and activations", {"int8"}),
        ("our own decoder, 7-bit weights and int8 activations (not int8 weights and activations: off)", {"int8"}),
        ("our own decoder, int4 weights, the output layer's of int8", {"int8", "int4"}),
        ("our own decoder, not int4 weights: its kernel takes bfloat16 alone; int8 weights", {"int8"}),
        ("our own decoder, not int4 weights: no; not int8 weights: no; plain products", set()),
        ("our own decoder, plain products; int8 is for 16-bit numbers on a card and was left out", set()),
        ("our own decoder, not int8 weights alone: no; exact float32 with packed weights", set()),
    ],
)
def test_what_was_fallen_back_from_does_not_pass_for_it(path: str, kinds: set[str]) -> None:
    card = SimpleNamespace(dtype="bfloat16", reason="cuda as set", path=path)
    assert {kind for kind in ("int8", "int4") if ours.took(card, kind)} == kinds
    assert ours.took(card, "none")

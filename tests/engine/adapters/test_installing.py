"""Loads beside answers: on a device a part a step, and nobody sees half of an adapter."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import torch

from server.engine.adapters import installing
from server.engine.adapters.installing import Installation
from server.engine.adapters.lora_layers import LoraBank, LoraGroup
from server.engine.adapters.reading import LoraPair
from server.engine.forward.paths import DecoderForward
from tests.engine.conftest import EngineFactory, as_on_a_device, ask, until
from tests.engine.oracle import prompt

LAYERS = {f"layer{number}": (6, 8) for number in range(50)}


def bank(fixed_rank: int) -> LoraBank:
    return LoraBank([(name,) for name in LAYERS], LAYERS, 2, torch.zeros(1), fixed_rank)


def pairs(seed: int) -> dict[str, LoraPair]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: LoraPair(torch.randn(4, 6, generator=generator), torch.randn(8, 4, generator=generator), 1.0)
        for name in LAYERS
    }


def advances(installation: Installation, *, beside_answers: bool) -> int:
    """How often it is advanced until all is in place."""
    return next(count for count in range(1, 100) if installation.advance(beside_answers=beside_answers))


@pytest.mark.parametrize(
    ("fixed_rank", "beside_answers", "steps"), [(8, True, 4), (8, False, 1), (0, True, 1), (0, False, 1)]
)
def test_a_device_copies_a_part_a_step_beside_answers(fixed_rank: int, beside_answers: bool, steps: int) -> None:
    stacks = bank(fixed_rank)
    assert advances(Installation(stacks, 1, stacks.pack(pairs(0))), beside_answers=beside_answers) == steps
    x = torch.randn(1, 6)
    for name, pair in pairs(0).items():
        y = torch.zeros(1, 8)
        stacks.group(name).add(x, y, stacks.plan([(1, 1)]))
        torch.testing.assert_close(y[0], pair.b @ (pair.a @ x[0]), atol=1e-5, rtol=1e-5)


def test_what_fails_half_way_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = bank(8)
    write = LoraGroup.write

    def sometimes(self: LoraGroup, *args: object) -> None:
        if self.names[0] == "layer30":
            raise torch.OutOfMemoryError("out of memory")
        write(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(LoraGroup, "write", sometimes)
    installation = Installation(stacks, 1, stacks.pack(pairs(0)))
    assert not installation.advance(beside_answers=True)
    with pytest.raises(torch.OutOfMemoryError):
        installation.advance(beside_answers=True)
    assert not stacks.occupied
    assert not any(group._a.any() for group in stacks._groups.values())


async def test_streams_go_on_while_an_adapter_is_copied(
    tiny, adapters, engines: EngineFactory, exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most so many groups between two steps, and the right answers of all."""
    as_on_a_device(monkeypatch)
    monkeypatch.setattr(installing, "GROUPS_A_STEP", 2)
    engine = await engines(tiny("llama"), adapters)
    await exact(engine, prompt(1, 20), "a")
    between: list[Counter[str]] = [Counter()]
    write, run = LoraGroup.write, DecoderForward.run

    def counted_write(self: LoraGroup, *args: object) -> None:
        between[-1]["groups"] += 1
        write(self, *args)  # type: ignore[arg-type]

    def counted_run(self: DecoderForward, chunks):
        between.append(Counter())
        return run(self, chunks)

    monkeypatch.setattr(LoraGroup, "write", counted_write)
    monkeypatch.setattr(DecoderForward, "run", counted_run)
    free = {"logit_bias": dict.fromkeys(engine.tokenizer.stop_ids, -100.0)}
    stream = asyncio.ensure_future(ask(engine, prompt(2, 10), max_tokens=120, adapter="a", **free))
    await until(lambda: len(between) > 3, "some steps")
    await exact(engine, prompt(3, 20), "b")
    assert not stream.done(), "it was to run beside"
    await stream
    assert sum(part["groups"] for part in between) > 8
    assert max(part["groups"] for part in between) <= 2

"""Recorded steps, on any processor: the recorder is what a GPU adds, the still memory is tested here."""

from __future__ import annotations

import random

import pytest
import torch

from server.engine.adapters.lora_layers import linear_layers
from server.engine.adapters.reading import LoraPair
from server.engine.cache.kv import rounded
from server.engine.forward.chunk import Part
from server.engine.forward.linears import choose_linear
from server.engine.forward.paths import DecoderForward, choose_path
from tests.engine.conftest import reference

CPU = torch.device("cpu")


def build(folder, record) -> DecoderForward:
    model = reference(folder)
    layers = linear_layers(model)
    path = DecoderForward(model, choose_linear("none", CPU, torch.float32), layers, 4, record)
    torch.manual_seed(0)
    for place in (0, 2, 3):
        path.bank.write(place, path.bank.laid({
            name: LoraPair(torch.randn(4, inside) * 0.2, torch.randn(outside, 4) * 0.2, 1.0)
            for name, (inside, outside) in layers.items()
        }))
    path.arena.fit(9, 256, {})
    return path


class Recorder:
    """Counts recordings, and runs them anew each time."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, compute):
        self.made += 1
        return compute


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
@torch.inference_mode()
def test_recorded_steps_give_the_logits_of_unrecorded_ones(tiny, name: str) -> None:
    record = Recorder()
    recorded, plain = build(tiny(name), record), build(tiny(name), None)
    dice = random.Random(name)
    texts = [[dice.randrange(3, 300) for _ in range(dice.randrange(3, 60))] for _ in range(6)]
    loras, places = [None, None, 0, 2, 2, 3], [4, 0, 5, 1, 3, 2]
    rows = list(zip(texts, places, loras, strict=True))
    for path in (recorded, plain):
        path.run([Part(text, place, 0, lora) for text, place, lora in rows])
    assert record.made == 0, "prompts are not recorded"
    for step in range(12):
        running = rows if step < 6 else rows[1:4]
        parts = [Part((dice.randrange(300),), place, len(text) + step, lora) for text, place, lora in running]
        torch.testing.assert_close(recorded.run(parts), plain.run(parts), atol=1e-5, rtol=0)
    assert record.made == 2, "one recording for each size"


@torch.inference_mode()
def test_what_moves_in_memory_is_recorded_anew(tiny) -> None:
    record = Recorder()
    recorded, plain = build(tiny("llama"), record), build(tiny("llama"), None)

    def step(length: int) -> None:
        parts = [Part((7,), 0, length), Part((8,), 1, length, 2)]
        torch.testing.assert_close(recorded.run(parts), plain.run(parts), atol=1e-5, rtol=0)

    for path in (recorded, plain):
        path.run([Part((5, 6), 0, 0), Part((5, 6, 7), 1, 0, 2)])
    step(2)
    for path in (recorded, plain):
        path.bank.write(1, path.bank.laid({
            name: LoraPair(torch.ones(12, inside), torch.ones(outside, 12), 0.01)
            for name, (inside, outside) in linear_layers(reference(tiny("llama"))).items()
        }))
    step(3)
    for path in (recorded, plain):
        path.arena.fit(9, 600, {0: 64, 1: 64})
    step(4)
    assert record.made == 3


def test_sizes_are_few() -> None:
    assert [rounded(n) for n in (0, 1, 2, 3, 5, 8, 9, 16, 17, 60)] == [0, 1, 2, 4, 8, 8, 16, 16, 24, 64]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_on_a_gpu_steps_are_cuda_graphs(tiny) -> None:
    def load():
        return reference(tiny("llama")).to("cuda")

    chosen = choose_path(load(), load, choose_linear("none", torch.device("cuda"), torch.float32), 4)
    assert "CUDA graphs" in chosen.reason

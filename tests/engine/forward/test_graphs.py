"""Captured steps, on any processor: the capture is what a GPU adds, the static memory is tested here."""

from __future__ import annotations

import random

import pytest
import torch

from server.engine.adapters.lora_layers import linear_layers
from server.engine.adapters.reading import LoraPair
from server.engine.cache.kv import bucket_size
from server.engine.forward.chunk import RowChunk
from server.engine.forward.linears import choose_linear
from server.engine.forward.paths import DecoderForward, choose_path
from tests.engine.conftest import reference

CPU = torch.device("cpu")


def build(folder, capture) -> DecoderForward:
    model = reference(folder)
    layers = linear_layers(model)
    path = DecoderForward(model, choose_linear("none", CPU, torch.float32), layers, 4, capture)
    torch.manual_seed(0)
    for stack_index in (0, 2, 3):
        path.bank.write(
            stack_index,
            path.bank.pack(
                {
                    name: LoraPair(torch.randn(4, inside) * 0.2, torch.randn(outside, 4) * 0.2, 1.0)
                    for name, (inside, outside) in layers.items()
                }
            ),
        )
    path.arena.fit(9, 256, {})
    return path


class Capture:
    """Counts captures, and computes anew at each replay."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, compute):
        self.made += 1
        return compute


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
@torch.inference_mode()
def test_captured_steps_give_the_logits_of_uncaptured_ones(tiny, name: str) -> None:
    capture = Capture()
    captured, plain = build(tiny(name), capture), build(tiny(name), None)
    dice = random.Random(name)
    texts = [[dice.randrange(3, 300) for _ in range(dice.randrange(3, 60))] for _ in range(6)]
    stack_indices, kv_slots = [None, None, 0, 2, 2, 3], [4, 0, 5, 1, 3, 2]
    rows = list(zip(texts, kv_slots, stack_indices, strict=True))
    for path in (captured, plain):
        path.run([RowChunk(text, kv_slot, 0, stack_index) for text, kv_slot, stack_index in rows])
    assert capture.made == 0, "prompts are not captured"
    for step in range(12):
        running = rows if step < 6 else rows[1:4]
        chunks = [
            RowChunk((dice.randrange(300),), kv_slot, len(text) + step, stack_index)
            for text, kv_slot, stack_index in running
        ]
        torch.testing.assert_close(captured.run(chunks), plain.run(chunks), atol=1e-5, rtol=0)
    assert capture.made == 2, "one capture for each size"


@torch.inference_mode()
def test_what_moves_in_memory_is_captured_anew(tiny) -> None:
    capture = Capture()
    captured, plain = build(tiny("llama"), capture), build(tiny("llama"), None)

    def step(length: int) -> None:
        chunks = [RowChunk((7,), 0, length), RowChunk((8,), 1, length, 2)]
        torch.testing.assert_close(captured.run(chunks), plain.run(chunks), atol=1e-5, rtol=0)

    for path in (captured, plain):
        path.run([RowChunk((5, 6), 0, 0), RowChunk((5, 6, 7), 1, 0, 2)])
    step(2)
    for path in (captured, plain):
        path.bank.write(
            1,
            path.bank.pack(
                {
                    name: LoraPair(torch.ones(12, inside), torch.ones(outside, 12), 0.01)
                    for name, (inside, outside) in linear_layers(reference(tiny("llama"))).items()
                }
            ),
        )
    step(3)
    for path in (captured, plain):
        path.arena.fit(9, 600, {0: 64, 1: 64})
    step(4)
    assert capture.made == 3


def test_sizes_are_few() -> None:
    assert [bucket_size(n) for n in (0, 1, 2, 3, 5, 8, 9, 16, 17, 60)] == [0, 1, 2, 4, 8, 8, 16, 16, 24, 64]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_on_a_gpu_steps_are_cuda_graphs(tiny) -> None:
    def load():
        return reference(tiny("llama")).to("cuda")

    chosen = choose_path(load(), load, choose_linear("none", torch.device("cuda"), torch.float32), 4)
    assert "CUDA graphs" in chosen.reason

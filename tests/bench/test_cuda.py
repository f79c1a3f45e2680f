"""The figures for a GPU, as far as a machine without one can try them: on the processor, with a tiny model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.context import FULL_CUDA, LLAMA_7B, Bench
from bench.figure import Figure, State, measure
from bench.figures import cuda
from bench.figures.throughput import roomy
from server.config import EngineSettings


@pytest.mark.slow
@pytest.mark.parametrize("figure", cuda.FIGURES, ids=lambda figure: figure.name)
async def test_they_measure_something(bench: Bench, figure: Figure) -> None:
    lines: list[str] = []
    (outcome,) = await measure(figure, replace(bench, report=lines.append), rounds=1)
    assert outcome.state in {State.MET, State.MISSED}, lines
    assert outcome.value is not None
    assert outcome.value > 0
    assert outcome.ours


def test_they_run_on_a_gpu_alone() -> None:
    assert {figure.device for figure in cuda.FIGURES} == {"cuda"}


def test_a_gpus_run_has_room_for_its_rows_and_adapters(bench: Bench) -> None:
    settings = EngineSettings(**roomy(replace(bench, device="cuda", sizes=FULL_CUDA)))
    shape, sizes = LLAMA_7B, FULL_CUDA
    head = shape.hidden // shape.heads
    row_bytes = 2 * 2 * shape.layers * shape.kv_heads * head * (sizes.prompt + sizes.new)
    assert sizes.chats * row_bytes < settings.kv_bytes
    attention = 2 * (2 * shape.hidden) + 2 * (shape.hidden + shape.kv_heads * head)
    widths = attention + 3 * (shape.hidden + shape.intermediate)
    assert sizes.adapters * 4 * sizes.rank * shape.layers * widths < settings.adapter_bytes
    assert roomy(bench) == {}

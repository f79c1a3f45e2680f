"""The operators of a decode step: plain twins against the models' own code, Triton's kernels against the twins. Triton
interprets them here; on a card (`-m gpu`) they are compiled, and captured."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from server.engine import kernels
from server.engine.kernels import int8_linear, lora_expand, lora_shrink, plain, rotary_write, silu_mul
from tests.engine.forward.captures import Tape

NAN = float("nan")
TYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def fused() -> ModuleType:
    """Triton's kernels, interpreted (tests/conftest.py says so before Triton is imported)."""
    pytest.importorskip("triton")
    if os.environ["TRITON_INTERPRET"] != "1":
        pytest.skip("on a card they are compiled")
    return importlib.import_module("server.engine.kernels.fused")


class Rotary:
    """What `rotary_write` is given, for so many tokens."""

    def __init__(self, tokens: int, heads: int, kv_heads: int, dim: int, dtype: torch.dtype, normed: bool) -> None:
        self.heads, self.kv_heads, self.dim = heads, kv_heads, dim
        self.qkv = torch.randn(tokens, (heads + 2 * kv_heads) * dim).to(dtype)
        self.weights = [torch.rand(dim).to(dtype) + 0.5 if normed else None for _ in range(2)]
        angles = torch.rand(tokens, dim // 2).repeat(1, 2) * 7
        self.cos, self.sin = angles.cos().to(dtype), angles.sin().to(dtype)
        self.places = torch.randn(4 * tokens, 2, kv_heads, dim).to(dtype)
        self.slots = torch.randperm(4 * tokens)[:tokens]

    def run(self, compute: Any) -> tuple[torch.Tensor, torch.Tensor]:
        places = self.places.clone()
        q = compute(self.qkv, *self.weights, 1e-6, self.cos, self.sin, places, self.slots, self.heads, self.kv_heads)
        return q, places


SIZES = [(1, 4, 2, 64), (3, 6, 1, 96), (17, 2, 2, 128)]


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", SIZES)
def test_rotation_and_norms_are_those_of_the_models(size: Any, dtype: torch.dtype, normed: bool) -> None:
    given = Rotary(*size, dtype, normed)
    q, places = given.run(rotary_write)
    heads = given.qkv.view(len(given.qkv), -1, given.dim)
    own_q, own_k, own_v = heads.split((given.heads, given.kv_heads, given.kv_heads), 1)
    if normed:
        norms = [Qwen3RMSNorm(given.dim, 1e-6) for _ in given.weights]
        for norm, weight in zip(norms, given.weights, strict=True):
            norm.weight = torch.nn.Parameter(weight)
        own_q, own_k = norms[0](own_q), norms[1](own_k)
    wanted_q, wanted_k = apply_rotary_pos_emb(own_q[None], own_k[None], given.cos[None], given.sin[None], 2)
    torch.testing.assert_close(q, wanted_q[0])
    torch.testing.assert_close(places[given.slots, 0], wanted_k[0])
    torch.testing.assert_close(places[given.slots, 1], own_v, atol=0, rtol=0)
    others = [place for place in range(len(places)) if place not in given.slots.tolist()]
    torch.testing.assert_close(places[others], given.places[others], atol=0, rtol=0)
    assert q.is_contiguous()


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])  # the interpreter cuts bfloat16 off
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel_rotates_and_writes_as_its_twin(
    fused: ModuleType, size: Any, dtype: torch.dtype, normed: bool
) -> None:
    given = Rotary(*size, dtype, normed)
    wanted, found = given.run(plain.rotary_write), given.run(fused.rotary_write)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 4e-3, "rtol": 4e-3}
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (3, 1500), (5, 2048)])
def test_the_kernel_gates_as_its_twin(fused: ModuleType, rows: int, width: int, dtype: torch.dtype) -> None:
    gate_up = torch.randn(rows, 2 * width).to(dtype) * 4
    torch.testing.assert_close(fused.silu_mul(gate_up), plain.silu_mul(gate_up))
    gate, up = gate_up.double().chunk(2, 1)
    torch.testing.assert_close(silu_mul(gate_up).double(), torch.nn.functional.silu(gate) * up, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("rows", "out", "inside"), [(1, 32, 256), (3, 70, 200), (17, 64, 600)])
def test_the_kernel_multiplies_8_bit_weights_as_its_twin(
    fused: ModuleType, rows: int, out: int, inside: int, dtype: torch.dtype
) -> None:
    x, scales = torch.randn(rows, inside).to(dtype), torch.rand(out).to(dtype) / 127
    weight = torch.randint(-127, 128, (out, inside), dtype=torch.int8)
    found = fused.int8_linear(x, weight, scales)
    wanted = x.double() @ weight.double().t() * scales.double()
    torch.testing.assert_close(found.double(), wanted, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(found, int8_linear(x, weight, scales), atol=2e-2, rtol=2e-2)


class Lora:
    """Stacks of adapters of different ranks, with NaN beyond each one's rank: nobody may read there."""

    def __init__(self, rows: int, dtype: torch.dtype, *, rank: int = 24, widths: tuple[int, int] = (64, 3)) -> None:
        self.width, self.slices = widths
        self.in_features, self.layers, self.rank, adapters = 200, 2, rank, 4
        self.x = torch.randn(rows, self.in_features).to(dtype)
        self.y = torch.randn(rows, self.width * self.slices).to(dtype)
        self.a = torch.randn(adapters, self.in_features, self.layers, rank).to(dtype) * 0.1
        self.b = torch.randn(adapters, self.slices, rank, self.width).to(dtype) * 0.1
        self.ranks = torch.tensor([rank, 8, 0, 16], dtype=torch.int32)
        for adapter, used in enumerate(self.ranks.tolist()):
            self.a[adapter, :, :, used:] = NAN
            self.b[adapter, :, used:] = NAN
        self.slice_layers = torch.tensor([0, *[1] * (self.slices - 1)], dtype=torch.int32)
        self.indices = torch.randint(-1, adapters, (rows,), dtype=torch.int32)
        self.gains = torch.randn(adapters, self.width * self.slices).to(dtype) * 0.3
        self.gains[1] = 0
        self.bias = torch.randn(self.width * self.slices).to(dtype)

    def run(self, shrink: Any, expand: Any, bias: bool = True) -> torch.Tensor:
        y = self.y.clone()
        inner = shrink(self.x, self.a, self.indices, self.ranks)
        expand(inner, y, self.b, self.slice_layers, self.indices, self.ranks, self.gains, self.bias if bias else None)
        return y

    def wanted(self, bias: bool = True) -> torch.Tensor:
        y = self.y.double()
        for row, adapter in enumerate(self.indices.tolist()):
            if adapter < 0:
                continue
            used = int(self.ranks[adapter])
            for number, layer in enumerate(self.slice_layers.tolist()):
                inner = self.x[row].double() @ self.a[adapter, :, layer, :used].double()
                own = slice(number * self.width, (number + 1) * self.width)
                y[row, own] += inner @ self.b[adapter, number, :used].double()
            plainly = y[row] - self.bias.double() if bias else y[row]
            y[row] += self.gains[adapter].double() * plainly
        return y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_each_row_gets_its_own_adapters_change(rows: int, dtype: torch.dtype, bias: bool) -> None:
    given = Lora(rows, dtype)
    tolerance = {torch.float32: 1e-4, torch.float16: 8e-3, torch.bfloat16: 6e-2}[dtype]
    found = given.run(lora_shrink, lora_expand, bias)
    torch.testing.assert_close(found.double(), given.wanted(bias), atol=tolerance, rtol=tolerance)
    base = given.indices < 0
    torch.testing.assert_close(found[base], given.y[base], atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("rows", "rank", "widths"), [(1, 24, (64, 1)), (3, 48, (192, 3)), (17, 24, (64, 4))])
def test_the_kernels_change_rows_as_their_twins(
    fused: ModuleType, rows: int, rank: int, widths: tuple[int, int], dtype: torch.dtype
) -> None:
    for bias in (True, False):
        given = Lora(rows, dtype, rank=rank, widths=widths)
        found = given.run(fused.lora_shrink, fused.lora_expand, bias)
        tolerance = 1e-4 if dtype == torch.float32 else 8e-3
        torch.testing.assert_close(found.double(), given.wanted(bias), atol=tolerance, rtol=tolerance)
        base = given.indices < 0
        torch.testing.assert_close(found[base], given.y[base], atol=0, rtol=0)


def test_a_long_sum_is_made_in_parts(fused: ModuleType) -> None:
    given = Lora(2, torch.float32)
    given.x, given.a = torch.randn(2, 1100), torch.randn(4, 1100, 2, 24) * 0.1
    inner = fused.lora_shrink(given.x, given.a, torch.tensor([0, 0], dtype=torch.int32), given.ranks)
    assert inner.shape == (kernels.splits_of(1100), 2, 48) == (2, 2, 48)
    torch.testing.assert_close(inner.sum(0), given.x @ given.a[0].flatten(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", ["plain", "fused"])
def test_a_rows_bits_depend_on_no_other_row(way: str, request: pytest.FixtureRequest) -> None:
    module = plain if way == "plain" else request.getfixturevalue("fused")
    given = Lora(9, torch.float32)
    whole = given.run(module.lora_shrink, module.lora_expand)
    for row in range(9):
        alone = Lora(1, torch.float32)
        alone.__dict__ |= {name: value for name, value in vars(given).items() if name not in ("x", "y", "indices")}
        alone.x, alone.y, alone.indices = given.x[row, None], given.y[row, None], given.indices[row, None]
        torch.testing.assert_close(alone.run(module.lora_shrink, module.lora_expand)[0], whole[row], atol=0, rtol=0)
    given.x[4] = NAN
    given.indices[4] = 0
    broken = given.run(module.lora_shrink, module.lora_expand)
    others = [row for row in range(9) if row != 4]
    torch.testing.assert_close(broken[others], whole[others], atol=0, rtol=0)


def test_operators_keep_to_their_descriptions() -> None:
    rotary, lora = Rotary(3, 4, 2, 64, torch.float32, True), Lora(3, torch.float32)
    inner = lora_shrink(lora.x, lora.a.nan_to_num(), lora.indices, lora.ranks)
    arguments: list[tuple[Any, tuple[Any, ...]]] = [
        (
            rotary_write,
            (rotary.qkv, *rotary.weights, 1e-6, rotary.cos, rotary.sin, rotary.places, rotary.slots, 4, 2),
        ),
        (silu_mul, (torch.randn(3, 8),)),
        (lora_shrink, (lora.x, lora.a.nan_to_num(), lora.indices, lora.ranks)),
        (
            lora_expand,
            (inner, lora.y, lora.b, lora.slice_layers, lora.indices, lora.ranks, lora.gains, lora.bias),
        ),
    ]
    for operator, given in arguments:
        torch.library.opcheck(operator, given, test_utils=("test_schema", "test_faketensor"))


def test_twins_can_be_captured() -> None:
    rotary, lora = Rotary(3, 4, 2, 64, torch.float32, True), Lora(3, torch.float32)
    gate_up = torch.randn(3, 8)
    for compute in (
        lambda: rotary.run(plain.rotary_write)[0],
        lambda: lora.run(plain.lora_shrink, plain.lora_expand),
        lambda: plain.silu_mul(gate_up),
    ):
        replay = Tape()(compute)
        torch.testing.assert_close(replay(), compute(), atol=0, rtol=0)


# ── on a card ────────────────────────────────────────────────────────────────────────────────────

on_a_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")


@pytest.mark.gpu
@on_a_card
@pytest.mark.parametrize("captured", [False, True])
def test_on_a_card_the_kernels_compute_what_their_twins_do(captured: bool) -> None:
    assert kernels.uses_triton(torch.device("cuda")), "torch's builds for CUDA bring Triton"
    with torch.device("cuda"):
        torch.manual_seed(0)
        rotary = Rotary(64, 32, 8, 128, torch.bfloat16, True)
        lora = Lora(64, torch.bfloat16, rank=64, widths=(512, 3))
        gate_up = torch.randn(64, 4000).bfloat16()

        def compute(module: Any) -> list[torch.Tensor]:
            return [
                *rotary.run(module.rotary_write),
                module.silu_mul(gate_up),
                lora.run(module.lora_shrink, module.lora_expand),
            ]

        wanted = compute(plain)
        found = compute(kernels)
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                found = compute(kernels)
            graph.replay()
        torch.cuda.synchronize()
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=5e-2, rtol=5e-2)

"""int4 weights: how they are made, packed and had back, and their products, as far as a processor can tell; on a card
the kernels themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from server.engine.forward import int4
from server.engine.forward.int4 import GROUP, Int4CpuLinear, Int4DeviceLinear, dense_weight, quantize_groups

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZES = [(64, 96), (160, 48), (128, 400), (576, 64)]  # inputs in 2, 4 and 8 tiles of 16; outputs
gpu = pytest.mark.gpu
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")


def weights(in_features: int, out_features: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator) * torch.logspace(-3, 1, out_features)[:, None]
    return weight, torch.randn(out_features, generator=generator)


def rows(count: int, in_features: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, in_features, generator=torch.Generator().manual_seed(seed))


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def dense(weight: torch.Tensor) -> torch.Tensor:
    """The formula of the kernels, group by group, without rounding."""
    codes, both = quantize_groups(weight)
    found = torch.empty_like(weight, dtype=torch.float64)
    for group in range(weight.shape[1] // GROUP):
        part = slice(group * GROUP, (group + 1) * GROUP)
        scale, zero = both[group].double().unbind(-1)
        found[:, part] = (codes[:, part].double() - 8) * scale[:, None] + zero[:, None]
    return found


# ── the numbers ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("in_features", "out_features"), SIZES)
def test_no_weight_is_off_by_more_than_its_group_s_step_allows(in_features: int, out_features: int) -> None:
    weight, _ = weights(in_features, out_features)
    groups = weight.view(out_features, -1, GROUP)
    spans = (groups.amax(-1) - groups.amin(-1)).repeat_interleave(GROUP, 1)
    # Half a step of 15, and what scale and zero are rounded by in bfloat16, up to 8 steps away.
    assert float(((dense(weight) - weight).abs() / spans).max()) < 0.5 / 15 + 0.05
    assert float((dense(weight) - weight).square().mean(1).div(weight.square().mean(1)).sqrt().max()) < 0.12


def test_numbers_of_sixteen_steps_stay_what_they_are() -> None:
    """Most of all those of a file that was in groups of 32 before."""
    codes = torch.randint(0, 16, (64, 5, GROUP), generator=torch.Generator().manual_seed(0))
    codes[..., 0], codes[..., 1] = 0, 15
    weight = ((codes.float() - 8) * 0.25 + 0.5).flatten(1)
    found, both = quantize_groups(weight)
    assert torch.equal(found, codes.flatten(1).to(torch.uint8))
    assert torch.equal(dense_weight(found, both).float(), weight)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_groups_of_one_number(value: float) -> None:
    weight = torch.full((16, 64), value)
    codes, both = quantize_groups(weight)
    assert torch.allclose(dense_weight(codes, both).float(), weight)


# ── packed for a device ──────────────────────────────────────────────────────────────────────────


def pack_as_documented(pairs: torch.Tensor, tiles: int) -> torch.Tensor:
    """What PyTorch's `matrix_to_m16n8k16_Bint4_layout` does, lane by lane: of 16 bytes beside each other, lane 4n + t
    takes t, t + 4, t + 8 and t + 12 of output n; higher halves first."""
    outs, ins = pairs.shape[0] // 8, pairs.shape[1] // (8 * tiles)
    packed = torch.zeros(outs, ins, 32, tiles // 2, dtype=torch.int64)
    for lane in range(32):
        for word in range(tiles // 2):
            for number in range(4):
                first = word * 16 + lane % 4 + 4 * number
                octets = pairs[lane // 4 :: 8, first :: 8 * tiles].long()
                packed[:, :, lane, word] |= (octets >> 4) << (4 * number) | (octets & 15) << (16 + 4 * number)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


@pytest.fixture
def on_a_processor(monkeypatch):
    """The layer for devices, with its two operators in plain words."""

    def product(x, packed, both):
        weight = dense_weight(int4.unpack(packed), both)
        return (x.float() @ weight.float().t()).bfloat16()

    monkeypatch.setattr(int4, "_pack", pack_as_documented)
    monkeypatch.setattr(int4, "_product", product)


@pytest.mark.parametrize("tiles", [2, 4, 8])
def test_what_is_packed_can_be_unpacked(tiles: int) -> None:
    codes = torch.randint(0, 16, (24, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    packed = pack_as_documented(codes[:, ::2] << 4 | codes[:, 1::2], tiles)
    assert packed.shape == (3, 256 // (16 * tiles), 32, tiles // 2)
    assert torch.equal(int4.unpack(packed), codes)


@pytest.mark.usefixtures("on_a_processor")
@pytest.mark.parametrize(("in_features", "out_features"), SIZES)
@pytest.mark.parametrize("biased", [True, False])
def test_a_layer_for_devices_is_the_formula(monkeypatch, in_features: int, out_features: int, biased: bool) -> None:
    """However few weights are quantized at a time."""
    monkeypatch.setattr(int4, "_SLICE", 32 * in_features)
    weight, bias = weights(in_features, out_features)
    weight, bias = weight.bfloat16(), bias.bfloat16()
    linear = Int4DeviceLinear(weight, bias if biased else None, CPU)
    expected_weight = dense(weight.float())
    assert linear.weight().dtype == torch.bfloat16
    assert torch.equal(linear.weight(), expected_weight.float().bfloat16())
    for count in (0, 1, 16, int4._DENSE_ROWS, int4._DENSE_ROWS + 1, 300):
        x = rows(count, in_features).bfloat16()
        found = linear(x)
        assert found.shape == (count, out_features)
        assert found.dtype == torch.bfloat16
        if count:
            expected = x.double() @ expected_weight.t() + (bias.double() if biased else 0)
            assert off(found, expected) < 0.02


@pytest.mark.parametrize(("out", "in_features"), [(12, 64), (16, 48)])
def test_sizes_that_do_not_fit_are_named(out: int, in_features: int) -> None:
    for make in (Int4CpuLinear, lambda weight, bias: Int4DeviceLinear(weight, bias, CPU)):
        with pytest.raises(ValueError, match=f"a weight of {out} × {in_features}: outputs in .*s, inputs in 32s"):
            make(torch.zeros(out, in_features), None)


@pytest.mark.parametrize(("in_features", "out_features"), SIZES)
def test_pytorch_takes_what_it_is_given(in_features: int, out_features: int) -> None:
    """Its operators for a device check shapes and types of tensors without memory."""
    with FakeTensorMode():
        weight = torch.empty(out_features, in_features, dtype=torch.bfloat16)
        linear = Int4DeviceLinear(weight, torch.empty(out_features, dtype=torch.bfloat16), CPU)
        assert linear._packed.dtype == torch.int32
        assert linear._packed.numel() * 8 == weight.numel()
        assert linear._scales_zeros.shape == (in_features // GROUP, out_features, 2)
        assert linear._scales_zeros.is_contiguous()
        assert linear._packed.is_contiguous()
        for count in (1, 16, int4._DENSE_ROWS + 1):
            found = linear(torch.empty(count, in_features, dtype=torch.bfloat16))
            assert (found.shape, found.dtype) == ((count, out_features), torch.bfloat16)
        back = linear.weight()
        assert (back.shape, back.dtype) == (weight.shape, torch.bfloat16)


# ── on a processor ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("in_features", "out_features"), SIZES)
@pytest.mark.parametrize("biased", [True, False])
def test_a_layer_for_processors_is_the_formula(monkeypatch, in_features: int, out_features: int, biased: bool) -> None:
    monkeypatch.setattr(int4, "_SLICE", 32 * in_features)
    weight, bias = weights(in_features, out_features)
    linear = Int4CpuLinear(weight, bias if biased else None)
    assert off(linear.weight(), dense(weight)) < 1e-6
    for count in (0, 1, 4, 16, 64, 100):
        x = rows(count, in_features)
        found = linear(x)
        assert found.shape == (count, out_features)
        assert found.dtype == torch.float32
        if count:
            expected = x.double() @ dense(weight).t() + (bias.double() if biased else 0)
            assert off(found, expected) < 0.01


@given(
    count=st.sampled_from([1, 2, 3, 4, 5, 16, 17, 64]),
    position=st.integers(0, 63),
    scale=st.sampled_from([1e-3, 1.0, 1e4, float("nan")]),
)
def test_no_row_disturbs_another(count: int, position: int, scale: float) -> None:
    """Bit for bit: neither how many others there are, nor what they hold."""
    linear = Int4CpuLinear(*weights(160, 96))
    own, batch = rows(1, 160), rows(count, 160, seed=2) * scale
    batch[position % count] = own[0]
    assert torch.equal(linear(batch)[position % count], linear(own)[0])


def test_a_row_without_numbers_stays_its_own() -> None:
    batch = rows(5, 160)
    batch[2] = float("nan")
    found = Int4CpuLinear(*weights(160, 96))(batch)
    assert bool(found[2].isnan().all())
    assert bool(found[[0, 1, 3, 4]].isfinite().all())


# ── on a card ────────────────────────────────────────────────────────────────────────────────────


@gpu
@no_gpu
@pytest.mark.parametrize(("in_features", "out_features"), [*SIZES, (4096, 4096)])
def test_on_a_gpu_the_kernel_is_the_formula(in_features: int, out_features: int) -> None:
    """Also captured in a graph, and with weights from the host."""
    weight, bias = weights(in_features, out_features)
    weight, bias = weight.bfloat16(), bias.bfloat16()
    linear = Int4DeviceLinear(weight, bias, CUDA)
    expected_weight = dense(weight.float())
    assert torch.equal(int4.unpack(linear._packed).cpu(), quantize_groups(weight.float())[0])
    assert off(linear.weight().cpu(), expected_weight) < 1e-6 + 2**-8
    for count in (1, 3, 16, 65, int4._DENSE_ROWS, int4._DENSE_ROWS + 1, 300):
        x = rows(count, in_features).bfloat16().cuda()
        expected = x.cpu().double() @ expected_weight.t() + bias.double()
        assert off(linear(x).cpu(), expected) < 0.02
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = linear(x)
        x.copy_(rows(count, in_features, seed=3))
        graph.replay()
        expected = x.cpu().double() @ expected_weight.t() + bias.double()
        assert off(y.cpu(), expected) < 0.02


@gpu
@no_gpu
def test_on_a_gpu_a_layer_is_never_there_unpacked() -> None:
    weight = torch.randn(16384, 8192, dtype=torch.bfloat16)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear = Int4DeviceLinear(weight, None, CUDA)
    peak = torch.cuda.max_memory_allocated() - before
    assert linear._packed.nbytes * 2 < peak < linear._packed.nbytes * 2.5 + 64 * 4 * int4._SLICE

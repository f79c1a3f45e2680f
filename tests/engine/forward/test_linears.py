"""Each way to compute a linear layer, against the product in float64; and what happens where a way is not there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from server.engine.forward.int4 import Int4CpuLinear
from server.engine.forward.linears import (
    CardInt8Linear,
    Conv1x1Linear,
    LinearChoice,
    PackedLinear,
    PlainLinear,
    _packed_conv_weight,
    choose_linear,
)
from server.quantization import Int8Linear, SevenBitLinear, WeightOnlyLinear

CPU = torch.device("cpu")
WAYS = {
    "plain": (PlainLinear, 1e-6),
    "packed": (PackedLinear, 1e-6),
    "conv1x1": (Conv1x1Linear, 1e-6),
    "int8": (Int8Linear, 0.02),
    "seven": (SevenBitLinear, 0.04),
    "weights": (WeightOnlyLinear, 0.02),
}
SIZES = [(48, 64), (160, 96), (64, 400)]


def weights(in_features: int, out_features: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of very different sizes, as a model's are."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator) * torch.logspace(-3, 1, out_features)[:, None]
    return weight, torch.randn(out_features, generator=generator)


def rows(count: int, in_features: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, in_features, generator=torch.Generator().manual_seed(seed))


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of each output channel by its own size, so that small channels count as much as large ones."""
    return float(((found.double() - expected).abs().amax(0) / expected.abs().amax(0).clamp_min(1e-9)).max())


@pytest.fixture(params=WAYS)
def way(request):
    """A way that works on this processor, and its tolerance."""
    if request.param == "int8" and choose_linear("int8", CPU, torch.float32).make is not Int8Linear:
        pytest.skip("this processor's int8 products saturate")
    return WAYS[request.param]


@pytest.mark.parametrize(("in_features", "out_features"), SIZES)
@pytest.mark.parametrize("biased", [True, False])
def test_every_way_is_the_product(way, in_features: int, out_features: int, biased: bool) -> None:
    make, tolerance = way
    weight, bias = weights(in_features, out_features)
    linear = make(weight.clone(), bias if biased else None)
    for count in (1, 2, 3, 16, 31, 33, 100):
        x = rows(count, in_features)
        expected = x.double() @ weight.double().t() + (bias.double() if biased else 0)
        size = expected.abs().amax()
        assert float((linear(x).double() - expected).abs().max() / size) < tolerance
        if count > 8 and not biased:
            assert error(linear(x), expected) < 3 * tolerance, "a small channel is lost beside large ones"


@pytest.mark.parametrize(("in_features", "out_features"), SIZES)
def test_the_weights_can_be_had_back(way, in_features: int, out_features: int) -> None:
    make, tolerance = way
    weight, _ = weights(in_features, out_features)
    back = make(weight.clone(), None).weight()
    assert back.shape == weight.shape
    assert float(((back - weight).abs().amax(1) / weight.abs().amax(1)).max()) <= tolerance
    x = rows(7, in_features)
    expected = x.double() @ back.double().t()
    assert float((make(weight, None)(x).double() - expected).abs().max() / expected.abs().max()) <= tolerance


@given(others=st.integers(0, 70), position=st.integers(0, 70), scale=st.sampled_from([1e-3, 1.0, 1e4, float("nan")]))
def test_no_row_disturbs_another(others: int, position: int, scale: float) -> None:
    """Not even one with far larger numbers, or with none: int8 scales every row by itself, and is the same bit for
    bit."""
    own, batch = rows(1, 160), rows(others + 1, 160, seed=2) * scale
    batch[min(position, others)] = own[0]
    weight, bias = weights(160, 96)
    usable = choose_linear("int8", CPU, torch.float32).make
    exact, whole = (PlainLinear, PackedLinear, Conv1x1Linear), (usable, SevenBitLinear, WeightOnlyLinear)
    for make, tolerance in [(make, 1e-6) for make in exact] + [(make, 0) for make in whole]:
        linear = make(weight, bias)
        alone, beside = linear(own)[0], linear(batch)[min(position, others)]
        size = float(alone.abs().max())
        assert float((alone - beside).abs().max()) <= tolerance * size, make.__name__


def test_no_rows_at_all(way) -> None:
    """A step that only reads prompts asks for no logits."""
    make, _ = way
    assert make(*weights(160, 96))(torch.empty(0, 160)).shape == (0, 96)


@pytest.mark.parametrize("count", [*range(1, 20), 63, 65, 71, 73, 287, 288, 289, 300, 577])
def test_a_1x1_convolution_whatever_the_number_of_rows(count: int) -> None:
    """Few rows are padded, many are cut; none of the padding comes back."""
    weight, bias = weights(160, 96)
    x = rows(count, 160)
    found = Conv1x1Linear(weight, bias)(x)
    expected = x.double() @ weight.double().t() + bias.double()
    assert found.shape == (count, 96)
    assert found.is_contiguous()
    assert float((found.double() - expected).abs().max() / expected.abs().max()) < 1e-6


def test_a_1x1_convolution_takes_row_counts_that_leave_the_weights_in_their_order() -> None:
    """Any other count would reorder all weights in each product."""
    weight, _ = weights(576, 64)
    linear = Conv1x1Linear(weight, None)
    order = torch.ops.mkldnn._get_mkldnn_serialized_md
    for count in sorted(set(linear._padded)):
        assert torch.equal(order(_packed_conv_weight(weight, count)), order(linear._packed)), count
    assert all(padded >= rows for rows, padded in enumerate(linear._padded))


@pytest.mark.parametrize("make", [way for way, _ in WAYS.values()])
def test_rows_of_zeros_and_weights_of_zeros(make) -> None:
    linear = make(torch.zeros(96, 160), torch.ones(96))
    assert torch.equal(linear(rows(3, 160)), torch.ones(3, 96))
    assert torch.isfinite(make(*weights(160, 96))(torch.zeros(2, 160))).all()


# ── the choice ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sets", "make"),
    [
        ("AVX2", Conv1x1Linear),
        ("AVX512", PackedLinear),
        ("DEFAULT", PackedLinear),
    ],
)
def test_on_a_cpu_in_float32_packed_weights(monkeypatch, sets: str, make: type) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: sets)
    assert choose_linear("none", CPU, torch.float32) == LinearChoice(make, "exact float32 with packed weights", True)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_on_a_processor_other_numbers_have_plain_products(kind: str) -> None:
    assert choose_linear("none", CPU, torch.bfloat16) == LinearChoice(PlainLinear, "plain products", True)
    left_out = choose_linear(kind, CPU, torch.bfloat16)
    assert left_out == LinearChoice(
        PlainLinear, f"plain products; {kind} is for float32 on a processor and was left out", True
    )


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_on_a_card_float32_is_not_packed(kind: str) -> None:
    left_out = choose_linear(kind, torch.device("cuda"), torch.float32)
    assert left_out.exact
    assert left_out.reason == f"plain products; {kind} is for 16-bit numbers on a card and was left out"
    assert choose_linear("none", torch.device("cuda"), torch.float32).reason == "plain products"


def test_without_a_card_the_trials_of_its_ways_say_why_not(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    chosen = choose_linear("int4", torch.device("cuda"), torch.bfloat16)
    assert chosen.exact
    assert chosen.reason.startswith("not int4 weights: it cannot be computed (")
    assert "not int8 weights: it cannot be computed (" in chosen.reason
    assert chosen.reason.endswith("; plain products")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "compute capability 8.0" in choose_linear("int4", torch.device("cuda"), torch.bfloat16).reason
    assert "bfloat16 alone" in choose_linear("int4", torch.device("cuda"), torch.float16).reason


def test_int4_is_taken_and_odd_layers_are_in_int8(caplog) -> None:
    caplog.set_level("INFO", "tailor.engine")
    chosen = choose_linear("int4", CPU, torch.float32)
    assert (chosen.reason, chosen.exact) == ("int4 weights, the output layer's of int8", False)
    assert isinstance(chosen.make_head(torch.randn(32, 64), None), (Int8Linear, SevenBitLinear, WeightOnlyLinear))
    assert isinstance(chosen.make(torch.randn(32, 64), None), Int4CpuLinear)
    for _ in range(2):
        assert isinstance(chosen.make(torch.randn(24, 64), None), (Int8Linear, SevenBitLinear, WeightOnlyLinear))
    assert [record.getMessage() for record in caplog.records] == [
        "layers of 64 to 24 do not fit int4's groups of 32: they are in int8"
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_cards_int8_is_the_formula_for_few_rows_and_for_many(dtype: torch.dtype) -> None:
    """Here by the kernel's twin."""
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 160).to(dtype), torch.randn(48).to(dtype)
    linear = CardInt8Linear(weight, bias, CPU)
    assert linear.weight().dtype == dtype
    assert float((linear.weight() - weight).abs().max()) < 0.02
    for rows in (1, 16, 64, 65, 200):
        x = torch.randn(rows, 160).to(dtype)
        expected = x.double() @ linear.weight().double().t() + bias.double()
        error = (linear(x).double() - expected).abs().max() / expected.abs().max()
        assert float(error) < 0.02


def test_int8_takes_what_this_processor_can() -> None:
    chosen = choose_linear("int8", CPU, torch.float32)
    assert chosen.make in (Int8Linear, SevenBitLinear)
    assert "int8 activations" in chosen.reason or chosen.reason == "int8 weights and activations"
    assert not chosen.exact


@pytest.mark.parametrize("make", [SevenBitLinear, WeightOnlyLinear])
def test_sums_do_not_saturate_at_the_ends_of_the_range(make) -> None:
    """Where products are added in 16 bits, pairs of the largest numbers are what goes wrong."""
    ones = torch.ones(32, 256)
    assert torch.allclose(make(ones, None)(torch.ones(3, 256)), torch.full((3, 32), 256.0), rtol=0.01)
    assert torch.allclose(make(-ones, None)(torch.ones(3, 256)), torch.full((3, 32), -256.0), rtol=0.01)


def missing(self, weight, bias) -> None:
    raise AttributeError("no such operator\nand a long story")


def wrong(self, x):
    return torch.zeros(x.shape[0], 96)


@pytest.fixture
def breaks(monkeypatch):
    def do(make: type, how: str) -> None:
        monkeypatch.setattr(make, *(("__init__", missing) if how == "missing" else ("__call__", wrong)))

    return do


WORDS = {"missing": r"it cannot be computed (no such operator)", "wrong": "the products are off by 100.0%"}


@pytest.mark.parametrize("how", WORDS)
def test_without_the_convolution_the_linear_layer_and_without_that_plain_products(breaks, how: str) -> None:
    breaks(Conv1x1Linear, how)
    assert choose_linear("none", CPU, torch.float32) == LinearChoice(
        PackedLinear, "exact float32 with packed weights", True
    )
    breaks(PackedLinear, how)
    assert choose_linear("none", CPU, torch.float32) == LinearChoice(
        PlainLinear, f"exact float32, unpacked: {WORDS[how]}", True
    )


@pytest.mark.parametrize("how", WORDS)
def test_without_int8_products_weights_of_seven_bits(breaks, how: str) -> None:
    breaks(Int8Linear, how)
    reason = f"7-bit weights and int8 activations (not int8 weights and activations: {WORDS[how]})"
    assert choose_linear("int8", CPU, torch.float32) == LinearChoice(SevenBitLinear, reason, False)


@pytest.mark.parametrize("how", WORDS)
def test_without_those_int8_weights_alone(breaks, how: str) -> None:
    breaks(Int8Linear, how)
    breaks(SevenBitLinear, how)
    reason = (
        f"int8 weights alone (not int8 weights and activations: {WORDS[how]}; "
        f"not 7-bit weights and int8 activations: {WORDS[how]})"
    )
    assert choose_linear("int8", CPU, torch.float32) == LinearChoice(WeightOnlyLinear, reason, False)


@pytest.mark.parametrize("how", WORDS)
def test_without_any_int8_the_exact_way_and_it_says_so(breaks, how: str) -> None:
    for make in (Int8Linear, SevenBitLinear, WeightOnlyLinear):
        breaks(make, how)
    chosen = choose_linear("int8", CPU, torch.float32)
    assert chosen.make in (Conv1x1Linear, PackedLinear)
    assert chosen.exact
    assert chosen.reason == (
        f"not int8 weights and activations: {WORDS[how]}; not 7-bit weights and int8 activations: {WORDS[how]}; "
        f"not int8 weights alone: {WORDS[how]}; exact float32 with packed weights"
    )


def test_operators_that_are_gone_are_not_the_end(monkeypatch) -> None:
    """They are not public: a later PyTorch may lack them."""
    for module in ("server.engine.forward.linears", "server.quantization"):
        monkeypatch.setattr(f"{module}.torch", _Without())
    chosen = choose_linear("int8", CPU, torch.float32)
    assert chosen.make is PlainLinear
    assert chosen.exact
    assert chosen.reason.count("it cannot be computed") == 4


class _Without:
    ops = SimpleNamespace()

    def __getattr__(self, name: str):
        if name in ("_weight_int8pack_mm", "_make_per_channel_quantized_tensor"):
            raise AttributeError(name)
        return getattr(torch, name)

"""Each way to compute a linear layer, against the product in float64; and what happens where a way is not there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from server.engine.linears import (
    Int8Linear,
    LinearChoice,
    PackedLinear,
    PlainLinear,
    WeightOnlyLinear,
    choose_linear,
)

CPU = torch.device("cpu")
WAYS = {"plain": (PlainLinear, 1e-6), "packed": (PackedLinear, 1e-6), "int8": (Int8Linear, 0.02),
        "weights": (WeightOnlyLinear, 0.02)}
SIZES = [(48, 64), (160, 96), (64, 400)]


def weights(inside: int, outside: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of very different sizes, as a model's are."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outside, inside, generator=generator) * torch.logspace(-3, 1, outside)[:, None]
    return weight, torch.randn(outside, generator=generator)


def rows(count: int, inside: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, inside, generator=torch.Generator().manual_seed(seed))


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of each output channel by its own size, so that small channels count as much as large ones."""
    return float(((found.double() - expected).abs().amax(0) / expected.abs().amax(0).clamp_min(1e-9)).max())


@pytest.fixture(params=WAYS)
def way(request):
    """A way that works on this processor, and its tolerance."""
    kind = {"int8": Int8Linear, "weights": WeightOnlyLinear}.get(request.param)
    if kind is Int8Linear and choose_linear("int8", CPU, torch.float32).make is not Int8Linear:
        pytest.skip("this processor's int8 products saturate")
    return WAYS[request.param]


@pytest.mark.parametrize(("inside", "outside"), SIZES)
@pytest.mark.parametrize("biased", [True, False])
def test_every_way_is_the_product(way, inside: int, outside: int, biased: bool) -> None:
    make, tolerance = way
    weight, bias = weights(inside, outside)
    linear = make(weight.clone(), bias if biased else None)
    for count in (1, 2, 3, 16, 31, 33, 100):
        x = rows(count, inside)
        expected = x.double() @ weight.double().t() + (bias.double() if biased else 0)
        size = expected.abs().amax()
        assert float((linear(x).double() - expected).abs().max() / size) < tolerance
        if count > 8 and not biased:
            assert error(linear(x), expected) < 3 * tolerance, "a small channel is lost beside large ones"


@pytest.mark.parametrize(("inside", "outside"), SIZES)
def test_the_weights_can_be_had_back(way, inside: int, outside: int) -> None:
    make, tolerance = way
    weight, _ = weights(inside, outside)
    back = make(weight.clone(), None).weight()
    assert back.shape == weight.shape
    assert float(((back - weight).abs().amax(1) / weight.abs().amax(1)).max()) <= tolerance
    x = rows(7, inside)
    expected = x.double() @ back.double().t()
    assert float((make(weight, None)(x).double() - expected).abs().max() / expected.abs().max()) <= tolerance


@given(mates=st.integers(0, 70), place=st.integers(0, 70), scale=st.sampled_from([1e-3, 1.0, 1e4, float("nan")]))
def test_no_row_disturbs_another(mates: int, place: int, scale: float) -> None:
    """Not even one with far larger numbers, or with none: int8 scales every row by itself, and is the same bit for
    bit."""
    own, crowd = rows(1, 160), rows(mates + 1, 160, seed=2) * scale
    crowd[min(place, mates)] = own[0]
    weight, bias = weights(160, 96)
    usable = choose_linear("int8", CPU, torch.float32).make  # with activations too, where the processor can
    for make, tolerance in ((PlainLinear, 1e-6), (PackedLinear, 1e-6), (usable, 0), (WeightOnlyLinear, 0)):
        linear = make(weight, bias)
        alone, beside = linear(own)[0], linear(crowd)[min(place, mates)]
        size = float(alone.abs().max())
        assert float((alone - beside).abs().max()) <= tolerance * size, make.__name__


@pytest.mark.parametrize("make", [way for way, _ in WAYS.values()])
def test_rows_of_zeros_and_weights_of_zeros(make) -> None:
    linear = make(torch.zeros(96, 160), torch.ones(96))
    assert torch.equal(linear(rows(3, 160)), torch.ones(3, 96))
    assert torch.isfinite(make(*weights(160, 96))(torch.zeros(2, 160))).all()


# ── the choice ───────────────────────────────────────────────────────────────────────────────────


def test_on_a_cpu_in_float32_packed_weights() -> None:
    assert choose_linear("none", CPU, torch.float32) == LinearChoice(
        PackedLinear, "exact float32 with packed weights", True)


@pytest.mark.parametrize(("device", "dtype"), [(CPU, torch.bfloat16), (torch.device("cuda"), torch.float32)])
def test_elsewhere_plain_products(device, dtype) -> None:
    assert choose_linear("none", device, dtype) == LinearChoice(PlainLinear, "plain products", True)
    left_out = choose_linear("int8", device, dtype)
    assert left_out.make is PlainLinear
    assert left_out.exact
    assert left_out.reason == "plain products; int8 is for float32 on a CPU and was left out"


def test_int8_takes_what_this_processor_can() -> None:
    chosen = choose_linear("int8", CPU, torch.float32)
    assert chosen.make in (Int8Linear, WeightOnlyLinear)
    assert "int8 weights" in chosen.reason
    assert not chosen.exact


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
def test_without_packed_weights_plain_ones(breaks, how: str) -> None:
    breaks(PackedLinear, how)
    assert choose_linear("none", CPU, torch.float32) == LinearChoice(
        PlainLinear, f"exact float32, unpacked: {WORDS[how]}", True)


@pytest.mark.parametrize("how", WORDS)
def test_without_int8_products_int8_weights_alone(breaks, how: str) -> None:
    breaks(Int8Linear, how)
    assert choose_linear("int8", CPU, torch.float32) == LinearChoice(
        WeightOnlyLinear, f"int8 weights alone: with activations too, {WORDS[how]} here", False)


@pytest.mark.parametrize("how", WORDS)
def test_without_any_int8_the_exact_way_and_it_says_so(breaks, how: str) -> None:
    breaks(Int8Linear, how)
    breaks(WeightOnlyLinear, how)
    chosen = choose_linear("int8", CPU, torch.float32)
    assert (chosen.make, chosen.exact) == (PackedLinear, True)
    assert chosen.reason == (f"int8 was left out: {WORDS[how]}; with weights alone, {WORDS[how]}; "
                             "exact float32 with packed weights")


def test_operators_that_are_gone_are_not_the_end(monkeypatch) -> None:
    """They are not public: a later PyTorch may lack them."""
    monkeypatch.setattr("server.engine.linears.torch", _Without())
    chosen = choose_linear("int8", CPU, torch.float32)
    assert chosen.make is PlainLinear
    assert chosen.exact
    assert chosen.reason.count("it cannot be computed") == 3


class _Without:
    ops = SimpleNamespace()

    def __getattr__(self, name: str):
        if name == "_weight_int8pack_mm":
            raise AttributeError(name)
        return getattr(torch, name)

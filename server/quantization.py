"""8-bit linear layers on a processor, each way tried against the plain product before it is used.

Weights per output channel and activations per row, with weights of 7 bits where a processor's sums would saturate (no
VNNI); or weights alone. Every row is scaled by itself, so that no row can disturb another. The operators are not public
API of PyTorch, hence the trial. Knows nothing of models.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

TRIAL_ERRORS: Final = (
    RuntimeError, AttributeError, TypeError, ValueError, NotImplementedError, AssertionError
)  # fmt: skip
ROW_COUNTS: Final = (1, 3, 16, 65)  # that a trial computes


class Linear(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, in], contiguous → [rows, out], fresh memory."""

    def weight(self) -> Tensor:
        """The weights [out, in] as the product uses them."""


LinearFactory = Callable[[Tensor, Tensor | None], Linear]


class Int8Linear:
    """int8 weights and, row by row, int8 activations (Dettmers et al., 2022, section 2.1, without outliers)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._values, self._scales = quantize(weight)
        self._zeros = torch.zeros(weight.shape[0], dtype=torch.long)
        self._packed = torch.ops.onednn.qlinear_prepack(self._values, None)
        self._values = self._values[:0]
        self._bias = bias
        self._run = torch.ops.onednn.qlinear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True).clamp_min_(1e-12).div_(127)
        quantized = x.div(scale).add_(128).round_().to(torch.uint8)
        y: Tensor = self._run(
            quantized, 1.0, 128, self._packed, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        y.mul_(scale)
        return y if self._bias is None else y.add_(self._bias)

    def weight(self) -> Tensor:
        dense: Tensor = self._packed.to_dense().t().float() * self._scales[:, None]
        return dense


class SevenBitLinear:
    """As `Int8Linear`, with weights from -64 to 64: FBGEMM adds two products in 16 bits where there is no VNNI,
    and 2 · 255 · 64 still fits. On AVX2 more than twice as fast as packed float32 at 16 rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        values, scales = quantize(weight, 64)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():  # this type of tensor is deprecated; the trial shows when it is gone
            warnings.filterwarnings("ignore", ".*quantized tensor creation.*deprecated", UserWarning)
            quantized = torch._make_per_channel_quantized_tensor(values, scales.double(), zeros, 0)
            self._packed = torch.ops.quantized.linear_prepack(quantized, None)
        self._bias = bias
        self._run = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default

    def __call__(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True).clamp_min_(1e-12)
        y: Tensor = self._run(x / scale, 1 / 127, 128, self._packed)
        y.mul_(scale)
        return y if self._bias is None else y.add_(self._bias)

    def weight(self) -> Tensor:
        dense: Tensor = torch.ops.quantized.linear_unpack(self._packed)[0].dequantize()
        return dense


class WeightOnlyLinear:
    """int8 weights, activations in bfloat16. One kernel for any number of rows: a product with the weights spread
    out takes 0.6 of the time for long prompts, and rounds differently, so that a row would depend on how many others
    there are."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._values, scales = quantize(weight)
        self._scales = scales.bfloat16()
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.bfloat16(), self._values, self._scales).float()
        return y if self._bias is None else y.add_(self._bias)

    def weight(self) -> Tensor:
        return self._values.float() * self._scales.float()[:, None]


INT8_WAYS: Final[tuple[tuple[LinearFactory, str], ...]] = (
    (Int8Linear, "int8 weights and activations"),
    (SevenBitLinear, "7-bit weights and int8 activations"),
    (WeightOnlyLinear, "int8 weights alone"),
)


def choose_int8() -> tuple[LinearFactory | None, str]:
    """The first way that passes its trial, and its name with why those before it did not; else None and why."""
    failed = ""
    for make, what in INT8_WAYS:
        wrong = try_linear(make, 0.03)
        if not wrong:
            return make, f"{what}{failed and f' ({failed})'}"
        failed += f"{failed and '; '}not {what}: {wrong}"
    return None, failed


def try_linear(
    make: LinearFactory,
    tolerance: float,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    rounded: bool = False,
    rows: Sequence[int] = ROW_COUNTS,
) -> str:
    """'' or what is wrong with it. The weights reach both ends of their range, where products that
    saturate (int8 without VNNI) go wrong. `rounded`: the products of the weights that it has made of them count, which
    are no further from them than int4 cuts off of the largest."""
    generator = torch.Generator().manual_seed(0)
    inside = 384 if rounded else 160  # the first is packed as most models' layers are
    weight = torch.empty(96, inside).uniform_(-1, 1, generator=generator).sign_()
    weight[:48] *= torch.empty(48, inside).uniform_(0, 1, generator=generator)
    weight, bias = weight.to(dtype), torch.randn(96, generator=generator).to(dtype)
    try:
        linear = make(weight, bias)
        dense = linear.weight().double().cpu() if rounded else weight.double()
        if rounded and not float((dense - weight.double()).abs().max()) <= 0.25:
            return "its weights are not those it was given"
        for count in rows:
            x = torch.randn(count, inside, generator=generator)
            x[:, ::2] = x[:, ::2].abs() * weight[0, ::2]
            x = x.to(dtype)
            expected = (x.double() @ dense.t() + bias.double()).float()
            error = float((linear(x.to(device)).cpu().float() - expected).abs().max() / expected.abs().max())
            if not error <= tolerance:
                return f"the products are off by {error:.1%}"
    except TRIAL_ERRORS as error:
        return f"it cannot be computed ({str(error).splitlines()[0][:80]})"
    return ""


def quantize(weight: Tensor, largest: int = 127) -> tuple[Tensor, Tensor]:
    """Symmetric, one scale an output channel: int8 [out, in] from -largest to largest, float32 [out]."""
    scales = weight.abs().amax(1).clamp_min(1e-12) / largest
    return (weight / scales[:, None]).round_().clamp_(-largest, largest).to(torch.int8), scales

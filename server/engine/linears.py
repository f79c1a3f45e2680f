"""Ways to compute `x Wᵀ + b`, fast for few rows, each tried against the plain product before it is used.

Exact: PyTorch's own product, or oneDNN's with weights reordered once (not public API, hence the trial).
int8: weights per output channel; either activations per row too (processors with VNNI), or weights alone. Every
row is scaled by itself, so that no row can disturb another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Kind = Literal["none", "int8"]

_MISFITS = (RuntimeError, AttributeError, TypeError, ValueError, NotImplementedError)
_ROWS_HINT = 16      # what weights are laid out for; measured as good as any from 1 to 256 rows


class Linear(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, in], contiguous → [rows, out], fresh memory."""

    def weight(self) -> Tensor:
        """The weights [out, in] as they count in the product."""


Maker = Callable[[Tensor, Tensor | None], Linear]


@dataclass(frozen=True)
class LinearChoice:
    make: Maker
    reason: str
    exact: bool = True


class PlainLinear:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)

    def weight(self) -> Tensor:
        return self._weight


class PackedLinear:
    """float32 weights in the order oneDNN reads them: the same sums, up to 2.5 times as fast at 16 rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT)
        self._bias = bias
        self._run = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._run(x, self._packed, self._bias, "none", [], "")
        return y

    def weight(self) -> Tensor:
        dense: Tensor = self._packed.to_dense()
        return dense


class Int8Linear:
    """int8 weights and, row by row, int8 activations (Dettmers et al., 2022, section 2.1, without outliers)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._values, self._scales = _quantized(weight)
        self._zeros = torch.zeros(weight.shape[0], dtype=torch.long)
        self._packed = torch.ops.onednn.qlinear_prepack(self._values, None)
        self._values = self._values[:0]
        self._bias = bias
        self._run = torch.ops.onednn.qlinear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True).clamp_min_(1e-12).div_(127)
        quantized = x.div(scale).add_(128).round_().to(torch.uint8)
        y: Tensor = self._run(quantized, 1.0, 128, self._packed, self._scales, self._zeros, None, 1.0, 0,
                              torch.float32, "none", [], "")
        y.mul_(scale)
        return y if self._bias is None else y.add_(self._bias)

    def weight(self) -> Tensor:
        dense: Tensor = self._packed.to_dense().t().float() * self._scales[:, None]
        return dense


class WeightOnlyLinear:
    """int8 weights, activations in bfloat16. One kernel for any number of rows: a product with the weights spread
    out takes 0.6 of the time for long prompts, and rounds differently, so that a row would depend on how many others
    there are."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._values, scales = _quantized(weight)
        self._scales = scales.bfloat16()
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.bfloat16(), self._values, self._scales).float()
        return y if self._bias is None else y.add_(self._bias)

    def weight(self) -> Tensor:
        return self._values.float() * self._scales.float()[:, None]


def choose_linear(kind: Kind, device: torch.device, dtype: torch.dtype) -> LinearChoice:
    """The first way that passes its trial on this processor, and why it was taken."""
    if device.type != "cpu" or dtype != torch.float32:
        why = "" if kind == "none" else "; int8 is for float32 on a CPU and was left out"
        return LinearChoice(PlainLinear, f"plain products{why}")
    if kind == "int8":
        wrong = _trial(Int8Linear, 0.03)
        if not wrong:
            return LinearChoice(Int8Linear, "int8 weights and activations, scaled row by row", False)
        also = _trial(WeightOnlyLinear, 0.03)
        if not also:
            return LinearChoice(WeightOnlyLinear, f"int8 weights alone: with activations too, {wrong} here",
                                False)
        kept = f"int8 was left out: {wrong}; with weights alone, {also}; "
    else:
        kept = ""
    wrong = _trial(PackedLinear, 1e-5)
    if not wrong:
        return LinearChoice(PackedLinear, f"{kept}exact float32 with packed weights")
    return LinearChoice(PlainLinear, f"{kept}exact float32, unpacked: {wrong}")


def _trial(make: Maker, tolerance: float) -> str:
    """'' or what is wrong with it. The weights reach both ends of their range, where products that
    saturate (int8 without VNNI) go wrong."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(96, 160).uniform_(-1, 1, generator=generator).sign_()
    weight[:48] *= torch.empty(48, 160).uniform_(0, 1, generator=generator)
    bias = torch.randn(96, generator=generator)
    try:
        linear = make(weight, bias)
        for rows in (1, 3, 16, 65):
            x = torch.randn(rows, 160, generator=generator)
            x[:, ::2] = x[:, ::2].abs() * weight[0, ::2]
            expected = (x.double() @ weight.double().t() + bias.double()).float()
            error = float((linear(x) - expected).abs().max() / expected.abs().max())
            if not error <= tolerance:
                return f"the products are off by {error:.1%}"
    except _MISFITS as error:
        return f"it cannot be computed ({str(error).splitlines()[0][:80]})"
    return ""


def _quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric, one scale an output channel: int8 [out, in], float32 [out]."""
    scales = weight.abs().amax(1).clamp_min(1e-12) / 127
    return (weight / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales

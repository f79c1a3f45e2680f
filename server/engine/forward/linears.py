"""Ways to compute `x Wᵀ + b`, fast for few rows, each tried against the plain product before it is used.

Exact: PyTorch's own product, or oneDNN's with weights reordered once (not public API, hence the trial), as a linear
layer or as a 1×1 convolution.
int8: weights per output channel and activations per row, with weights of 7 bits where a processor's sums would
saturate (no VNNI); or weights alone. Every row is scaled by itself, so that no row can disturb another. Knows nothing
of layers, adapters or batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Kind = Literal["none", "int8"]

_TRIAL_ERRORS = (RuntimeError, AttributeError, TypeError, ValueError, NotImplementedError)
_ROWS_HINT = 16  # what weights are packed for; measured as good as any from 1 to 256 rows
_ROW_COUNTS = (*range(4, 65, 4), *range(72, 289, 8))  # what the rows of a 1×1 convolution may be padded to
_LARGE = 1 << 24  # weights from here on are tried for the first 16 of those alone: each try copies them


class Linear(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, in], contiguous → [rows, out], fresh memory."""

    def weight(self) -> Tensor:
        """The weights [out, in] as the product uses them."""


LinearFactory = Callable[[Tensor, Tensor | None], Linear]


@dataclass(frozen=True)
class LinearChoice:
    make: LinearFactory
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


class Conv1x1Linear:
    """Exact float32 as a 1×1 convolution over rows as pixels: oneDNN's kernel for it takes 0.7 of the time of
    its linear layer's at 16 rows on AVX2, 0.9 at 256.

    The order in which that kernel wants the weights depends on the number of rows, and with another it would reorder
    them in each product. So rows are padded with zeros to counts for which the order is that of `_ROWS_HINT`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._out_features, self._in_features = weight.shape
        self._packed = _packed_conv_weight(weight, _ROWS_HINT)
        self._bias = bias
        counts = _compatible_row_counts(self._out_features, self._in_features, torch.get_num_threads())
        self._max_rows = counts[-1]
        self._padded = [next(count for count in counts if count >= rows) for rows in range(self._max_rows + 1)]
        self._run = torch.ops.mkldnn._convolution_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if rows > self._max_rows:
            return torch.cat([self(part) for part in torch.split(x, self._max_rows)])
        in_features, out, count = self._in_features, self._out_features, self._padded[rows]
        if count != rows:
            padded = x.new_zeros(count, in_features)
            padded[:rows] = x
            x = padded
        pixels = x.as_strided((1, in_features, 1, count), (count * in_features, 1, count * in_features, in_features))
        y: Tensor = self._run(pixels, self._packed, self._bias, (0, 0), (1, 1), (1, 1), 1, "none", [], "")
        return y.as_strided((rows, out), (out, 1))  # pixel by pixel, as its input was

    def weight(self) -> Tensor:
        dense: Tensor = self._packed.to_dense()
        return dense.flatten(1)


def _packed_conv_weight(weight: Tensor, rows: int) -> Tensor:
    kernel = weight[:, :, None, None]
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        kernel, (0, 0), (1, 1), (1, 1), 1, (1, weight.shape[1], 1, rows)
    )
    return packed


@lru_cache(maxsize=64)
def _compatible_row_counts(out: int, in_features: int, threads: int) -> tuple[int, ...]:
    """The counts of rows, rising, for which weights of this shape are packed as for `_ROWS_HINT` rows; `threads` is
    what else it depends on."""
    weight = torch.zeros(out, in_features)
    tried = _ROW_COUNTS if weight.numel() < _LARGE else _ROW_COUNTS[:16]
    order = torch.ops.mkldnn._get_mkldnn_serialized_md
    wanted = order(_packed_conv_weight(weight, _ROWS_HINT))
    return tuple(rows for rows in tried if torch.equal(order(_packed_conv_weight(weight, rows)), wanted))


class Int8Linear:
    """int8 weights and, row by row, int8 activations (Dettmers et al., 2022, section 2.1, without outliers)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._values, self._scales = _quantize(weight)
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
        values, scales = _quantize(weight, 64)
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
        self._values, scales = _quantize(weight)
        self._scales = scales.bfloat16()
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.bfloat16(), self._values, self._scales).float()
        return y if self._bias is None else y.add_(self._bias)

    def weight(self) -> Tensor:
        return self._values.float() * self._scales.float()[:, None]


_INT8: tuple[tuple[LinearFactory, str], ...] = (
    (Int8Linear, "int8 weights and activations"),
    (SevenBitLinear, "7-bit weights and int8 activations"),
    (WeightOnlyLinear, "int8 weights alone"),
)


def _choose_int8() -> tuple[LinearChoice | None, str]:
    """The first way of int8 that passes its trial, and why those before it did not."""
    failed = ""
    for make, what in _INT8:
        wrong = _trial(make, 0.03)
        if not wrong:
            return LinearChoice(make, f"{what}{failed and f' ({failed})'}", False), failed
        failed += f"{failed and '; '}not {what}: {wrong}"
    return None, failed


def choose_linear(kind: Kind, device: torch.device, dtype: torch.dtype) -> LinearChoice:
    """The first way that passes its trial on this processor, and why it was taken."""
    if device.type != "cpu" or dtype != torch.float32:
        why = "" if kind == "none" else "; int8 is for float32 on a CPU and was left out"
        return LinearChoice(PlainLinear, f"plain products{why}")
    kept = ""
    if kind == "int8":
        int8, failed = _choose_int8()
        if int8 is not None:
            return int8
        kept = f"{failed}; "
    packed: tuple[LinearFactory, ...] = (PackedLinear,)
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # measured there alone
        packed = (Conv1x1Linear, PackedLinear)
    for make in packed:
        wrong = _trial(make, 1e-5)
        if not wrong:
            return LinearChoice(make, f"{kept}exact float32 with packed weights")
    return LinearChoice(PlainLinear, f"{kept}exact float32, unpacked: {wrong}")


def _trial(make: LinearFactory, tolerance: float) -> str:
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
    except _TRIAL_ERRORS as error:
        return f"it cannot be computed ({str(error).splitlines()[0][:80]})"
    return ""


def _quantize(weight: Tensor, largest: int = 127) -> tuple[Tensor, Tensor]:
    """Symmetric, one scale an output channel: int8 [out, in] from -largest to largest, float32 [out]."""
    scales = weight.abs().amax(1).clamp_min(1e-12) / largest
    return (weight / scales[:, None]).round_().clamp_(-largest, largest).to(torch.int8), scales

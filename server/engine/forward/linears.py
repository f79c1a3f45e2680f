"""Ways to compute `x Wᵀ + b`, fast for few rows, each tried against the plain product before it is used.

Exact: PyTorch's own product, or oneDNN's with weights reordered once (not public API, hence the trial), as a linear
layer or as a 1×1 convolution.
int8: as `server.quantization` has it for processors, or weights alone, as on a card. int4: weights alone, in groups.
Each way takes weights from wherever they are to where it computes. Knows nothing of layers, adapters or batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from server.config import Quantize
from server.engine.forward.int4 import GROUP, Int4CpuLinear, Int4DeviceLinear
from server.engine.kernels import int8_linear
from server.quantization import ROW_COUNTS, TRIAL_ERRORS, Linear, LinearFactory, choose_int8, quantize, try_linear

log = logging.getLogger("tailor.engine")

_SLICE = 1 << 22  # weights packed at a time: what a card holds unpacked of a layer that comes from the host
_INT4_CAPABILITY = (8, 0)
_INT4 = "int4 weights, the output layer's of int8"
_FEW_ROWS = 128  # up to them a card reads 8-bit weights as they are; for more it spreads them out once
_TRIED = (*ROW_COUNTS, _FEW_ROWS + 1)
_ROWS_HINT = 16  # what weights are packed for; measured as good as any from 1 to 256 rows
_ROW_COUNTS = (*range(4, 65, 4), *range(72, 289, 8))  # what the rows of a 1×1 convolution may be padded to
_LARGE = 1 << 24  # weights from here on are tried for the first 16 of those alone: each try copies them


@dataclass(frozen=True)
class LinearChoice:
    """`make_head`: for the output layer, where it is another way."""

    make: LinearFactory
    reason: str
    exact: bool = True
    make_head: LinearFactory | None = None


class PlainLinear:
    def __init__(self, weight: Tensor, bias: Tensor | None, device: torch.device | None = None) -> None:
        """`device`: where it computes; None: where the weight is."""
        self._weight = weight if device is None else weight.to(device)
        self._bias = bias if bias is None or device is None else bias.to(device)

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


class CardInt8Linear:
    """int8 weights on a card, activations in bfloat16 or float16, by a kernel of ours: torch's `_weight_int8pack_mm`
    there takes float32 activations and shares no weight between rows, its `_int_mm` more than 16 rows of int8."""

    def __init__(self, weight: Tensor, bias: Tensor | None, device: torch.device) -> None:
        out, in_features = weight.shape
        self._values = torch.empty(out, in_features, dtype=torch.int8, device=device)
        self._scales, self._dtype = torch.empty(out, device=device), weight.dtype
        step = max(1, _SLICE // in_features)
        for first in range(0, out, step):
            part = weight[first : first + step].to(device).float()
            self._values[first : first + step], self._scales[first : first + step] = quantize(part)
        self._bias = None if bias is None else bias.to(device)

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) <= _FEW_ROWS:
            y: Tensor = int8_linear(x, self._values, self._scales)
        else:
            y = F.linear(x, self.weight())
        return y if self._bias is None else y.add_(self._bias)

    def weight(self) -> Tensor:
        return (self._values * self._scales[:, None]).to(self._dtype)


def _int4_or(int4: Callable[..., Linear], fits: Callable[[int, int], bool], other: LinearFactory) -> LinearFactory:
    """int4 for layers whose widths fit, the other way for the rest."""
    told: set[tuple[int, ...]] = set()

    def make(weight: Tensor, bias: Tensor | None) -> Linear:
        out, in_features = weight.shape
        if fits(out, in_features):
            return int4(weight, bias)
        if weight.shape not in told:
            told.add(tuple(weight.shape))
            log.info("layers of %d to %d do not fit int4's groups of %d: they are in int8", in_features, out, GROUP)
        return other(weight, bias)

    return make


def choose_linear(kind: Quantize, device: torch.device, dtype: torch.dtype) -> LinearChoice:
    """The first way that passes its trial on this device, and why it was taken."""
    if device.type != "cpu":
        return _choose_on_card(kind, device, dtype)
    if dtype != torch.float32:
        why = "" if kind == "none" else f"; {kind} is for float32 on a processor and was left out"
        return LinearChoice(PlainLinear, f"plain products{why}")
    kept = ""
    if kind == "int4":
        wrong = try_linear(Int4CpuLinear, 0.02, rounded=True, rows=_TRIED)
        int8, how = choose_int8()
        if not wrong and int8 is not None:
            return LinearChoice(_int4_or(Int4CpuLinear, Int4CpuLinear.fits, int8), _INT4, False, int8)
        kept = f"not int4 weights: {wrong or how}; "
    if kind != "none":
        int8, how = choose_int8()
        if int8 is not None:
            return LinearChoice(int8, f"{kept}{how}", False)
        kept = f"{kept}{how}; "
    packed: tuple[LinearFactory, ...] = (PackedLinear,)
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # measured there alone
        packed = (Conv1x1Linear, PackedLinear)
    for make in packed:
        wrong = try_linear(make, 1e-5)
        if not wrong:
            return LinearChoice(make, f"{kept}exact float32 with packed weights")
    return LinearChoice(PlainLinear, f"{kept}exact float32, unpacked: {wrong}")


def _choose_on_card(kind: Quantize, device: torch.device, dtype: torch.dtype) -> LinearChoice:
    plain = partial(PlainLinear, device=device)
    if kind == "none":
        return LinearChoice(plain, "plain products")
    if dtype not in (torch.bfloat16, torch.float16):
        return LinearChoice(plain, f"plain products; {kind} is for 16-bit numbers on a card and was left out")
    kept, int8 = "", partial(CardInt8Linear, device=device)
    if kind == "int4":
        wrong = "its kernel takes bfloat16 alone" if dtype != torch.bfloat16 else ""
        wrong = wrong or _too_old_for_int4(device)
        int4 = partial(Int4DeviceLinear, device=device)
        wrong = wrong or try_linear(int4, 0.02, device, dtype, rounded=True, rows=_TRIED)
        if not wrong:
            return LinearChoice(_int4_or(int4, Int4DeviceLinear.fits, int8), _INT4, False, int8)
        kept = f"not int4 weights: {wrong}; "
    wrong = try_linear(int8, 0.02, device, dtype, rounded=True, rows=_TRIED)
    if not wrong:
        return LinearChoice(int8, f"{kept}int8 weights", False)
    return LinearChoice(plain, f"{kept}not int8 weights: {wrong}; plain products")


def _too_old_for_int4(device: torch.device) -> str:
    """Its kernel would fail on the device instead of refusing."""
    try:
        capability = torch.cuda.get_device_capability(device)
    except TRIAL_ERRORS as error:
        return f"it cannot be computed ({str(error).splitlines()[0][:80]})"
    return "" if capability >= _INT4_CAPABILITY else "its kernel takes compute capability 8.0 or newer"

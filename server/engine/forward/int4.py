"""Linear layers whose weights are int4 numbers, with a scale and a zero for every 32 inputs: 5 bits a weight.

The products are PyTorch's own: `_weight_int4pack_mm` on a device, `_weight_int4pack_mm_for_cpu` on a processor. A
weight is `(code - 8) · scale + zero` for both, with codes from 0 to 15, and scale and zero in bfloat16. Knows nothing
of which way is chosen, nor of layers, adapters or batches.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

GROUP = 32  # the smallest that the kernels take, with the smallest error: docs/log.md

_SLICE = 1 << 22  # weights quantized at a time: what a device holds unpacked of a layer that comes from the host
_DENSE_ROWS = 128  # with more, the device's kernel, which is made for few, takes longer than spreading the weights out


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight float32 [out, in], in a multiple of `GROUP` → codes uint8 [out, in] from 0 to 15, and scales and zeros
    bfloat16 [in / GROUP, out, 2], as the kernels read them.

    Asymmetric, each the nearest of 16 steps between its group's least and greatest (the plain scheme of Dettmers and
    Zettlemoyer, 2023, section 3)."""
    groups = weight.reshape(len(weight), -1, GROUP)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    scale = ((high - low) / 15).clamp_min_(1e-12).bfloat16().float()
    zero = (low + 8 * scale).bfloat16().float()
    codes = (groups - zero).div_(scale).round_().clamp_(-8, 7).add_(8)
    both = torch.cat([scale, zero], -1).transpose(0, 1).bfloat16().contiguous()
    return codes.to(torch.uint8).flatten(1), both


def dense_weight(codes: Tensor, scales_zeros: Tensor) -> Tensor:
    """The weights, bfloat16 [out, in], of what `quantize_groups` gives: one rounding, as in the device's kernel."""
    scales, zeros = scales_zeros.transpose(0, 1).unbind(-1)
    values = codes.to(torch.bfloat16).sub_(8).view(len(codes), -1, GROUP)
    return torch.addcmul(zeros[..., None], values, scales[..., None]).flatten(1)


def _by_slices(weight: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """What `quantize_groups` gives, a slice of the outputs after the other, each a multiple of 16 but the last."""
    step = max(16, _SLICE // weight.shape[1] // 16 * 16)
    for first in range(0, weight.shape[0], step):
        yield quantize_groups(weight[first : first + step].to(device).float())


class Int4DeviceLinear:
    """int4 weights on a device with compute capability 8.0, in bfloat16: `_weight_int4pack_mm` (tinygemm).

    weight [out, in] and bias [out], on any device; x bfloat16, on `device`. Raises ValueError where the sizes do not
    fit (`fits`).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, device: torch.device) -> None:
        out, in_features = weight.shape
        if not self.fits(out, in_features):
            raise ValueError(f"a weight of {out} × {in_features}: outputs in 8s, inputs in {GROUP}s")
        tiles = next(tiles for tiles in (8, 4, 2) if in_features % (16 * tiles) == 0)
        packed, scales_zeros = [], []
        for codes, both in _by_slices(weight, device):
            packed.append(_pack(codes[:, ::2] << 4 | codes[:, 1::2], tiles))
            scales_zeros.append(both)
        self._packed, self._scales_zeros = torch.cat(packed), torch.cat(scales_zeros, 1)
        self._bias = None if bias is None else bias.to(device)

    @staticmethod
    def fits(out: int, in_features: int) -> bool:
        return out % 8 == 0 and in_features % GROUP == 0

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[0] > _DENSE_ROWS:
            return F.linear(x, self.weight(), self._bias)
        if not x.shape[0]:
            return x.new_empty(0, self._scales_zeros.shape[1])
        y = _product(x, self._packed, self._scales_zeros)
        return y if self._bias is None else y.add_(self._bias)

    def weight(self) -> Tensor:
        return dense_weight(unpack(self._packed), self._scales_zeros)


def _pack(pairs: Tensor, tiles: int) -> Tensor:
    """Pairs of codes uint8 [out, in / 2], the first in the higher bits → int32 [out / 8, in / (16 tiles), 32,
    tiles / 2], in the order in which tensor cores take them."""
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), tiles)
    return packed


def _product(x: Tensor, packed: Tensor, scales_zeros: Tensor) -> Tensor:
    y: Tensor = torch.ops.aten._weight_int4pack_mm(x, packed, GROUP, scales_zeros)
    return y


def unpack(packed: Tensor) -> Tensor:
    """`_pack` undone: codes uint8 [out, in]. The order is that of PyTorch's `matrix_to_m16n8k16_Bint4_layout`: lane
    4n + t of 32 has the codes of output n of 8, and of inputs 8i + 2t and 8i + 2t + 1 of 32, the even ones in the
    lower half of its 32 bits."""
    outs, ins, _, words = packed.shape
    octets = packed.view(torch.uint8)
    codes = torch.stack([octets & 15, octets >> 4], -1)
    lanes = codes.view(outs, ins, 8, 4, words, 2, 4)  # …, output, t, word, odd, i
    return lanes.permute(0, 2, 1, 4, 6, 3, 5).reshape(outs * 8, ins * words * 32)


class Int4CpuLinear:
    """int4 weights on a processor, activations in bfloat16. Each row is summed by itself, in one order.

    weight [out, in] and bias [out], float32; x float32. Raises ValueError where the sizes do not fit (`fits`).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        out, in_features = weight.shape
        if not self.fits(out, in_features):
            raise ValueError(f"a weight of {out} × {in_features}: outputs in 16s, inputs in {GROUP}s")
        codes, scales_zeros = zip(*_by_slices(weight, torch.device("cpu")), strict=True)
        self._scales_zeros = torch.cat(scales_zeros, 1)
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.cat(codes).int(), 1)
        self._run = torch.ops.aten._weight_int4pack_mm_for_cpu.default
        self._bias = bias

    @staticmethod
    def fits(out: int, in_features: int) -> bool:
        return out % 16 == 0 and in_features % GROUP == 0

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._run(x.bfloat16(), self._packed, GROUP, self._scales_zeros).float()
        return y if self._bias is None else y.add_(self._bias)

    def weight(self) -> Tensor:
        """How codes are packed depends on the processor: they are asked for, as products with the identity."""
        identity = torch.eye(self._scales_zeros.shape[0] * GROUP, dtype=torch.bfloat16)
        plain = torch.zeros_like(self._scales_zeros)
        plain[..., 0] = 1
        codes = self._run(identity, self._packed, GROUP, plain).t().float()
        scales, zeros = self._scales_zeros.float().transpose(0, 1)[..., None, :].unbind(-1)
        return torch.addcmul(zeros, codes.reshape(len(codes), -1, GROUP), scales).flatten(1)

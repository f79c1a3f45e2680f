"""The operators in plain PyTorch: what the kernels are tested against, and what stands in for them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def rotary_write(
    qkv: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    places: Tensor,
    slots: Tensor,
    heads: int,
    kv_heads: int,
) -> Tensor:
    each = qkv.view(qkv.shape[0], heads + 2 * kv_heads, -1)
    q, k, v = torch.split(each, [heads, kv_heads, kv_heads], 1)
    q, k = (_rotated(_normed(part, weight, eps), cos, sin) for part, weight in ((q, q_weight), (k, k_weight)))
    places.index_copy_(0, slots, torch.stack((k, v), 1))
    return q.contiguous()


def _normed(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        return x
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]


def silu_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=1)
    return (F.silu(gate.float()) * up.float()).to(gate_up.dtype)


def lora_shrink(x: Tensor, a: Tensor, indices: Tensor, ranks: Tensor) -> Tensor:
    own = a.index_select(0, indices.clamp_min(0).long()).flatten(2)  # [rows, in, layers · rank]
    return (x.float()[:, :, None] * own.float()).sum(1)[None] if x.device.type == "cpu" else _products(x, own)[None]


def _products(x: Tensor, own: Tensor) -> Tensor:
    return torch.bmm(x[:, None], own)[:, 0].float()


def lora_expand(
    inner: Tensor,
    y: Tensor,
    b: Tensor,
    slice_layers: Tensor,
    indices: Tensor,
    ranks: Tensor,
    gains: Tensor,
    bias: Tensor | None,
) -> None:
    rows, rank = y.shape[0], b.shape[2]
    chosen = indices.clamp_min(0).long()
    used = torch.arange(rank, device=y.device) < ranks.index_select(0, chosen)[:, None]  # [rows, rank]
    sums = inner.sum(0).view(rows, -1, rank).index_select(1, slice_layers)  # [rows, slices, rank]
    sums = torch.where(used[:, None], sums, 0)
    own = torch.where(used[:, None, :, None], b.index_select(0, chosen), 0).float()  # [rows, slices, rank, width]
    changed = y.float() + (sums[..., None] * own).sum(2).flatten(1)
    gain = gains.index_select(0, chosen).float()
    scaled = changed + gain * (changed - (0 if bias is None else bias.float()))
    changed = torch.where(gain == 0, changed, scaled)
    y.copy_(torch.where((indices >= 0)[:, None], changed.to(y.dtype), y))


def int8_linear(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return F.linear(x, (weight * scales[:, None]).to(x.dtype))

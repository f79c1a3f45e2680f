"""Operators of a decode step that a device computes in one kernel each, where plain PyTorch takes several.

Each is a custom operator with a plain twin, which computes it wherever Triton does not: on a processor, and on a card
whose Triton fails its trial at the start. Shapes alone decide what is launched, and nothing waits for the device: all
can be captured. A row's numbers never depend on other rows. Knows nothing of layers, adapters' files or batches.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from server.engine.kernels import plain


class _Triton:
    wanted = True


def use_triton(wanted: bool) -> None:
    """For all that is computed or captured from now on, in this process."""
    _Triton.wanted = wanted


def uses_triton(device: torch.device) -> bool:
    return _Triton.wanted and device.type == "cuda" and importlib.util.find_spec("triton") is not None


def _kernels(like: Tensor) -> Any:
    """The module that computes it."""
    if not uses_triton(like.device):
        return plain
    from server.engine.kernels import fused  # Triton comes with torch's builds for CUDA alone

    return fused


@torch.library.custom_op("tailor::rotary_write", mutates_args=("places",))
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
    """Norms queries and keys where there are weights, rotates them, and writes keys and values to their places.

    qkv [tokens, (heads + 2 · kv heads) · dim], contiguous; q_weight, k_weight [dim], of an RMS norm of each head in
    float32; cos and sin [tokens, dim], whose halves are alike (Su et al., 2021, in pairs of one number from each half);
    places [n, 2, kv heads, dim], keys before values; slots [tokens] int64 → queries [tokens, heads, dim], contiguous.
    """
    q: Tensor = _kernels(qkv).rotary_write(qkv, q_weight, k_weight, eps, cos, sin, places, slots, heads, kv_heads)
    return q


@rotary_write.register_fake
def _(
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
    return qkv.new_empty(qkv.shape[0], heads, cos.shape[1])


@torch.library.custom_op("tailor::silu_mul", mutates_args=())
def silu_mul(gate_up: Tensor) -> Tensor:
    """SwiGLU (Shazeer, 2020): gate_up [rows, 2 · width] → silu(first half) · second half [rows, width], in float32 and
    rounded once."""
    product: Tensor = _kernels(gate_up).silu_mul(gate_up)
    return product


@silu_mul.register_fake
def _(gate_up: Tensor) -> Tensor:
    return gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)


@torch.library.custom_op("tailor::lora_shrink", mutates_args=())
def lora_shrink(x: Tensor, a: Tensor, indices: Tensor, ranks: Tensor) -> Tensor:
    """Each row times its own adapter's A (the gathered products of Punica: Chen et al., 2023, section 4).

    x [rows, in]; a [adapters, in, layers, rank]; indices [rows] int32, -1 for none; ranks [adapters] int32: how much of
    `rank` an adapter uses, the rest is not read → [splits, rows, layers · rank] float32, whose sum over `splits` it is;
    rows without an adapter and numbers beyond a rank hold anything.
    """
    inner: Tensor = _kernels(x).lora_shrink(x, a, indices, ranks)
    return inner


@lora_shrink.register_fake
def _(x: Tensor, a: Tensor, indices: Tensor, ranks: Tensor) -> Tensor:
    splits = splits_of(x.shape[1]) if uses_triton(x.device) else 1
    return x.new_empty(splits, x.shape[0], a.shape[2] * a.shape[3], dtype=torch.float32)


@torch.library.custom_op("tailor::lora_expand", mutates_args=("y",))
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
    """Adds to each row of y its own adapter's change, in float32 and rounded once; others stay.

    inner as `lora_shrink` gives it; y [rows, out], contiguous; b [adapters, slices, rank, width], where slices · width
    is out; slice_layers [slices] int32: which of inner's layers each slice belongs to; indices, ranks as there; gains
    [adapters, out]: DoRA's factor less 1 (Liu et al., 2024, equation 5), on all but the bias [out].
    """
    _kernels(y).lora_expand(inner, y, b, slice_layers, indices, ranks, gains, bias)


@lora_expand.register_fake
def _(
    inner: Tensor,
    y: Tensor,
    b: Tensor,
    slice_layers: Tensor,
    indices: Tensor,
    ranks: Tensor,
    gains: Tensor,
    bias: Tensor | None,
) -> None: ...


@torch.library.custom_op("tailor::int8_linear", mutates_args=())
def int8_linear(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """x [rows, in] times weights of 8 bits [out, in], one scale an output [out] → [rows, out], in x's type. Few rows:
    each program reads its weights once for sixteen of them."""
    y: Tensor = _kernels(x).int8_linear(x, weight, scales)
    return y


@int8_linear.register_fake
def _(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def splits_of(in_features: int) -> int:
    """In how many parts a row's sum over `in_features` is made, so that few rows fill a card; by the shape alone."""
    return min(16, max(1, in_features // 512))

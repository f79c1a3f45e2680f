# ruff: noqa: N803  (what a kernel is compiled for is in capitals)
"""The operators as Triton kernels, one launch each. Sums are made in float32, in an order that shapes alone decide.

Knows nothing of layers, batches, or which operators there are besides."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from server.engine.kernels import splits_of

_SHRINK_BLOCK = 64  # of the sum over a row, at a time
_EXPAND_BLOCK = 128  # outputs of a program
_SILU_BLOCK = 1024
_INT8_ROWS, _INT8_OUTS, _INT8_BLOCK = 16, 32, 256  # of a program, and of its sum at a time


@triton.jit
def _rotary_write(
    qkv, q_weight, k_weight, eps, cos, sin, places, slots, queries,
    heads, kv_heads, dim,
    HALF: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """A program for each token and head: queries, then keys, then values."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    half = dim // 2
    at = tl.arange(0, HALF)
    inside = at < half
    begin = qkv + token * (heads + 2 * kv_heads) * dim + head * dim
    first = tl.load(begin + at, mask=inside, other=0.0)
    second = tl.load(begin + half + at, mask=inside, other=0.0)
    is_query = head < heads
    is_value = head >= heads + kv_heads
    place = tl.load(slots + token)
    key = places + place * 2 * kv_heads * dim + (head - heads) * dim
    if is_value:  # the heads of values follow those of keys, there as here
        tl.store(key + at, first, mask=inside)
        tl.store(key + half + at, second, mask=inside)
    else:
        if NORMED:
            wide_first, wide_second = first.to(tl.float32), second.to(tl.float32)
            mean = (tl.sum(wide_first * wide_first, 0) + tl.sum(wide_second * wide_second, 0)) / dim
            scale = 1.0 / tl.sqrt(mean + eps)
            of_query, of_key = at < tl.where(is_query, half, 0), at < tl.where(is_query, 0, half)
            first_weight = tl.load(q_weight + at, mask=of_query, other=0.0)
            first_weight += tl.load(k_weight + at, mask=of_key, other=0.0)
            second_weight = tl.load(q_weight + half + at, mask=of_query, other=0.0)
            second_weight += tl.load(k_weight + half + at, mask=of_key, other=0.0)
            first = (wide_first * scale).to(first.dtype) * first_weight
            second = (wide_second * scale).to(second.dtype) * second_weight
        c = tl.load(cos + token * dim + at, mask=inside, other=0.0).to(tl.float32)
        s = tl.load(sin + token * dim + at, mask=inside, other=0.0).to(tl.float32)
        x, y = first.to(tl.float32), second.to(tl.float32)
        rotated_first, rotated_second = (x * c - y * s).to(first.dtype), (y * c + x * s).to(first.dtype)
        if is_query:
            query = queries + token * heads * dim + head * dim
            tl.store(query + at, rotated_first, mask=inside)
            tl.store(query + half + at, rotated_second, mask=inside)
        else:
            tl.store(key + at, rotated_first, mask=inside)
            tl.store(key + half + at, rotated_second, mask=inside)


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
    tokens, dim = cos.shape
    queries = qkv.new_empty(tokens, heads, dim)
    normed = q_weight is not None and k_weight is not None
    _rotary_write[tokens, heads + 2 * kv_heads](
        qkv, q_weight if normed else qkv, k_weight if normed else qkv, eps, cos.contiguous(), sin.contiguous(), places,
        slots, queries, heads, kv_heads, dim, HALF=triton.next_power_of_2(dim // 2), NORMED=normed,
        enable_fp_fusion=True,
    )  # fmt: skip
    return queries


@triton.jit
def _silu_mul(gate_up, product, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(gate_up + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    result = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(product + row * width + at, result.to(product.dtype.element_ty), mask=inside)


def silu_mul(gate_up: Tensor) -> Tensor:
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    product = gate_up.new_empty(rows, width)
    _silu_mul[rows, triton.cdiv(width, _SILU_BLOCK)](gate_up, product, width, BLOCK=_SILU_BLOCK, enable_fp_fusion=True)
    return product


@triton.jit
def _lora_shrink(
    x, a, indices, ranks, inner,
    rows, in_features, a_stride, part, layers: tl.constexpr, rank: tl.constexpr,
    RANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program for each row, part of the sum, and layer."""
    row, split, layer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    index = tl.load(indices + row)
    if index < 0:
        return
    used = (
        (tl.load(ranks + index) + 7) // 8 * 8
    )  # it is a multiple of 8: so the compiler knows, and loads as many at once
    column = tl.arange(0, RANK)
    own = a + index.to(tl.int64) * a_stride + layer * rank
    sums = tl.zeros([RANK], dtype=tl.float32)
    last = tl.minimum((split + 1) * part, in_features)
    for begin in range(split * part, last, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        inside = at < last
        values = tl.load(x + row.to(tl.int64) * in_features + at, mask=inside, other=0.0).to(tl.float32)
        weights = tl.load(
            own + at[:, None] * (layers * rank) + column[None, :],
            mask=inside[:, None] & (column < used)[None, :],
            other=0.0,
        ).to(tl.float32)
        sums += tl.sum(values[:, None] * weights, axis=0)
    target = inner + ((split * rows + row).to(tl.int64) * layers + layer) * rank
    tl.store(target + column, sums, mask=column < rank)


def lora_shrink(x: Tensor, a: Tensor, indices: Tensor, ranks: Tensor) -> Tensor:
    (rows, in_features), (_, _, layers, rank) = x.shape, a.shape
    splits = splits_of(in_features)
    part = triton.cdiv(triton.cdiv(in_features, splits), _SHRINK_BLOCK) * _SHRINK_BLOCK
    inner = x.new_empty(splits, rows, layers * rank, dtype=torch.float32)
    _lora_shrink[rows, splits, layers](
        x, a, indices, ranks, inner, rows, in_features, a.stride(0), part, layers=layers, rank=rank,
        RANK=triton.next_power_of_2(rank), BLOCK=_SHRINK_BLOCK, enable_fp_fusion=True,
    )  # fmt: skip
    return inner


@triton.jit
def _lora_expand(
    inner, y, b, slice_layers, indices, ranks, gains, bias,
    rows, out, b_stride, width, layers: tl.constexpr, rank: tl.constexpr, splits: tl.constexpr,
    BIAS: tl.constexpr, RANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program for each row and block of a slice's outputs."""
    row, number, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    index = tl.load(indices + row)
    if index < 0:
        return
    used = (
        (tl.load(ranks + index) + 7) // 8 * 8
    )  # it is a multiple of 8: so the compiler knows, and loads as many at once
    layer = tl.load(slice_layers + number)
    column = tl.arange(0, RANK)
    sums = tl.zeros([RANK], dtype=tl.float32)
    for split in range(splits):
        source = inner + ((split * rows + row).to(tl.int64) * layers + layer) * rank
        sums += tl.load(source + column, mask=column < used, other=0.0)
    within = block * BLOCK + tl.arange(0, BLOCK)
    inside = within < width
    weights = tl.load(
        b + index.to(tl.int64) * b_stride + number.to(tl.int64) * rank * width + column[:, None] * width
        + within[None, :],
        mask=(column < used)[:, None] & inside[None, :],
        other=0.0,
    ).to(tl.float32)  # fmt: skip
    at = number * width + within
    target = y + row.to(tl.int64) * out + at
    changed = tl.load(target, mask=inside, other=0.0).to(tl.float32) + tl.sum(sums[:, None] * weights, axis=0)
    gain = tl.load(gains + index.to(tl.int64) * out + at, mask=inside, other=0.0).to(tl.float32)
    plain = changed
    if BIAS:
        plain = changed - tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    changed = tl.where(gain == 0, changed, changed + gain * plain)
    tl.store(target, changed.to(y.dtype.element_ty), mask=inside)


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
    (splits, rows, _), (_, slices, rank, width) = inner.shape, b.shape
    block = min(_EXPAND_BLOCK, triton.next_power_of_2(width))
    grid: Any = (rows, slices, triton.cdiv(width, block))
    _lora_expand[grid](
        inner, y, b, slice_layers, indices, ranks, gains, y if bias is None else bias, rows, y.shape[1], b.stride(0),
        width, layers=inner.shape[2] // rank, rank=rank, splits=splits, BIAS=bias is not None,
        RANK=triton.next_power_of_2(rank), BLOCK=block, enable_fp_fusion=True,
    )  # fmt: skip


@triton.jit
def _int8_linear(
    x, weight, scales, y, rows, out, in_features, ROWS: tl.constexpr, OUTS: tl.constexpr, BLOCK: tl.constexpr
):
    """A program for some outputs of some rows."""
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    number = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    sums = tl.zeros([ROWS, OUTS], dtype=tl.float32)
    for begin in range(0, in_features, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        values = tl.load(
            x + row[:, None].to(tl.int64) * in_features + at[None, :],
            mask=(row < rows)[:, None] & (at < in_features)[None, :],
            other=0.0,
        )
        weights = tl.load(
            weight + number[None, :].to(tl.int64) * in_features + at[:, None],
            mask=(number < out)[None, :] & (at < in_features)[:, None],
            other=0,
        )
        sums += tl.dot(values, weights.to(values.dtype))  # 8 bits are exact in any of the types
    sums *= tl.load(scales + number, mask=number < out, other=0.0).to(tl.float32)[None, :]
    target = y + row[:, None].to(tl.int64) * out + number[None, :]
    tl.store(target, sums.to(y.dtype.element_ty), mask=(row < rows)[:, None] & (number < out)[None, :])


def int8_linear(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    (rows, in_features), out = x.shape, weight.shape[0]
    y = x.new_empty(rows, out)
    _int8_linear[triton.cdiv(out, _INT8_OUTS), triton.cdiv(rows, _INT8_ROWS)](
        x,
        weight,
        scales,
        y,
        rows,
        out,
        in_features,
        ROWS=_INT8_ROWS,
        OUTS=_INT8_OUTS,
        BLOCK=_INT8_BLOCK,
        enable_fp_fusion=True,
    )
    return y

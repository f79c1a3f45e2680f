"""Attention for rows of many chats packed into one sequence, behind transformers' attention interface.

The model computes everything else on [1, tokens] as if it were one text; here each row's tokens see the
row's own keys and values alone. Knows nothing of sampling, adapters or scheduling.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everyone reads)
from transformers import AttentionInterface

from server.engine.kv import RowKV

NAME = "tailor_packed"
_UNSUPPORTED = ("s_aux", "position_bias", "alibi")  # arguments that change the result and are not applied here


@dataclass(frozen=True)
class PackedRow:
    """Columns [begin, end) of the packed sequence belong to `kv`."""

    begin: int
    end: int
    kv: RowKV


@dataclass
class _Step:
    rows: Sequence[PackedRow]
    masks: dict[tuple[int, int | None, int], Tensor] = field(default_factory=dict)
    like: Tensor = field(default_factory=lambda: torch.empty(0))  # the type and device of masks


_current = threading.local()  # the attention function is global, a step belongs to its model thread


@contextmanager
def packed(rows: Sequence[PackedRow]) -> Iterator[None]:
    """While it is open, attention on this thread works on these rows."""
    _current.step = _Step(rows)
    try:
        yield
    finally:
        _current.step = None


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """query [1, heads, T, dim], key and value [1, kv heads, T, dim] → [1, T, heads, dim].

    Appends to each row's keys and values. Raises NotImplementedError for what it cannot reproduce.
    """
    for name in _UNSUPPORTED:
        if extra.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
    step: _Step = _current.step
    layer = int(getattr(module, "layer_idx"))  # noqa: B009  (Module types every attribute as a module)
    window = sliding_window if sliding_window is not None else getattr(module, "sliding_window", None)
    groups = query.shape[1] // key.shape[1]
    step.like = query
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for place, row in enumerate(step.rows):
        keys, values = row.kv.append(layer, key[0, :, row.begin:row.end], value[0, :, row.begin:row.end])
        queries = query[0, :, row.begin:row.end]
        first = max(0, row.kv.length - window + 1) if window else 0
        mask = _mask(step, place, row, window, first, groups)
        out[0, row.begin:row.end] = _row(queries, keys[:, first:], values[:, first:], mask, scaling, softcap)
    return out, None


def _row(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, softcap: float | None) -> Tensor:
    """q [heads, c, dim], k and v [kv heads, n, dim] → [c, heads, dim]. Heads that share keys are folded
    into the query's length, so that no key is copied."""
    heads, count, _ = q.shape
    folded = q.reshape(k.shape[0], -1, q.shape[2])
    if softcap is None:
        result = F.scaled_dot_product_attention(folded[None], k[None], v[None], attn_mask=mask, scale=scaling)[0]
    else:
        scores = folded @ k.transpose(1, 2) * (scaling if scaling is not None else q.shape[2] ** -0.5)
        scores = softcap * torch.tanh(scores / softcap)
        if mask is not None:
            scores = scores + mask
        result = torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v
    return result.reshape(heads, count, -1).transpose(0, 1)


def _mask(step: _Step, place: int, row: PackedRow, window: int | None, first: int, groups: int) -> Tensor | None:
    """None for a single new token, which sees all that is left; else additive [groups · c, n], the same
    for every layer with this window."""
    count = row.end - row.begin
    if count == 1:
        return None
    known = step.masks.get((place, window, groups))
    if known is None:
        like = step.like
        at = torch.arange(row.kv.length, row.kv.length + count, device=like.device)[:, None]
        to = torch.arange(first, row.kv.length + count, device=like.device)[None, :]
        hidden = to > at
        if window:
            hidden |= to <= at - window
        known = like.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf).repeat(groups, 1)
        step.masks[(place, window, groups)] = known
    return known


AttentionInterface.register(NAME, attend)

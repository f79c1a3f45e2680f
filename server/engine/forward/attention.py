"""Attention for a step's tokens of many rows, each seeing its own row's keys and values alone.

Rows that add one token are one product over the arena, cut at a length that most of them need; longer rows and
prompts' chunks have one each. On a CPU the values of rows of one token are summed as an embedding bag's rows are,
which is faster than a batched product. Also stands behind transformers' attention interface, for models whose other
layers are computed by transformers. Knows nothing of sampling, adapters or scheduling.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everyone reads)
from transformers import AttentionInterface

from server.engine.cache.kv import KVArena

NAME = "tailor_packed"
_UNSUPPORTED = ("s_aux", "position_bias", "alibi")  # arguments that change the result and are not applied here
_CUT = 16            # keys and values of the common product are cut at a multiple of it
_CALL_TOKENS = 256   # a product of its own costs as much as so many more tokens in the common one


class Span(NamedTuple):
    """Columns [begin, end) of the step belong to the row at `place`, which holds `length` tokens before."""

    begin: int
    end: int
    place: int
    length: int


@dataclass
class Common:
    """Rows of one token that are computed together: arena places [first, last) up to `tokens` of each.

    `source` and `lengths` [places]: the step's token for each place (any, where there is none) and how many are
    before it; `places` and `columns`, which are real. `straight`: they are the whole step, in its order. `masks` by
    window, additive [places, kv heads, queries, tokens]; `bags`: see `_bags`.
    """

    first: int
    last: int
    tokens: int
    source: Tensor
    places: Tensor
    columns: Tensor
    lengths: Tensor
    straight: bool = False
    masks: dict[int, Tensor] = field(default_factory=dict)
    bags: tuple[Tensor, Tensor] | None = None


@dataclass
class Single:
    """A prompt's chunk; `masks` by window, additive [tokens, keys]."""

    span: Span
    masks: dict[int, Tensor]


class AttentionStep:
    """Where each token goes and what it sees, worked out once for all layers."""

    def __init__(self, arena: KVArena, spans: Sequence[Span]) -> None:
        self._arena = arena
        device = arena.shape.device
        self.positions = torch.tensor([s.length + n for s in spans for n in range(s.end - s.begin)], device=device)
        self._places = torch.tensor([s.place for s in spans for _ in range(s.end - s.begin)], device=device)
        ones = [span for span in spans if span.end - span.begin == 1]
        self._common = [_common(rows, device, len(rows) == len(spans)) for rows in _grouped(ones)]
        self._alone = [Single(span, {}) for span in spans if span.end - span.begin > 1]

    @classmethod
    def of(cls, arena: KVArena, positions: Tensor, places: Tensor, common: Common) -> AttentionStep:
        """A step of one token a row, from tensors that are already there."""
        step = cls(arena, ())
        step.positions, step._places, step._common = positions, places, [common]
        return step

    def attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int = 0,
        softcap: float | None = None,
    ) -> Tensor:
        """q [tokens, heads, dim], k and v [tokens, kv heads, dim] → [tokens, heads, value dim].

        Keys and values are kept. `window`: how far back a token sees, itself included; 0 is all.
        """
        self._arena.write(layer, self._places, self.positions, k, v)
        keys, values = self._arena.keys[layer], self._arena.values[layer]
        groups = q.shape[1] // k.shape[1]
        out = q.new_empty(q.shape[0], q.shape[1], v.shape[2])
        for common in self._common:
            seen = (q if common.straight else q.index_select(0, common.source)).reshape(
                -1, k.shape[1], groups, q.shape[2])
            found = _one_each(common, seen, keys, values, window, scale, softcap).flatten(1, 2)
            if common.straight:
                return found
            out.index_copy_(0, common.columns, found.index_select(0, common.places))
        for single in self._alone:
            out[single.span.begin:single.span.end] = _alone(single, q, keys, values, scale, window, softcap)
        return out


def _grouped(ones: Sequence[Span]) -> list[list[Span]]:
    """Which rows of one token are computed together, so that the sum is cheap: the shorter ones, and each longer one
    by itself."""
    ones = sorted(ones, key=lambda s: s.length)
    best, cost = 0, sum(s.length + _CALL_TOKENS for s in ones)
    for count in range(2, len(ones) + 1):
        places = [s.place for s in ones[:count]]
        spread = (max(places) - min(places) + 1) * _cut(ones[count - 1].length + 1) + _CALL_TOKENS
        total = spread + sum(s.length + _CALL_TOKENS for s in ones[count:])
        if total < cost:
            best, cost = count, total
    together = [ones[:best]] if best else []
    return together + [[one] for one in ones[best:]]


def _cut(tokens: int) -> int:
    return -(-tokens // _CUT) * _CUT


def _common(spans: Sequence[Span], device: torch.device, whole_step: bool) -> Common:
    first = min(span.place for span in spans)
    last = max(span.place for span in spans) + 1
    source, lengths = [spans[0].begin] * (last - first), [0] * (last - first)
    for span in spans:
        source[span.place - first] = span.begin
        lengths[span.place - first] = span.length
    return Common(
        first, last, _cut(max(lengths) + 1),
        torch.tensor(source, device=device),
        torch.tensor([span.place - first for span in spans], device=device),
        torch.tensor([span.begin for span in spans], device=device),
        torch.tensor(lengths, device=device),
        whole_step and len(spans) == last - first and source == sorted(source),
    )


def _alone(
    single: Single, q: Tensor, keys: Tensor, values: Tensor, scale: float, window: int, softcap: float | None
) -> Tensor:
    """One row's tokens [tokens, heads, value dim]. Heads that share keys are folded into the query's length,
    so that no key is copied."""
    span = single.span
    count, end = span.end - span.begin, span.length + span.end - span.begin
    first = max(0, span.length - window + 1) if window else 0
    k, v = keys[span.place, :, first:end], values[span.place, :, first:end]
    groups = q.shape[1] // k.shape[0]
    folded = q[span.begin:span.end].transpose(0, 1).reshape(1, k.shape[0], groups * count, -1)
    mask = single.masks.get(window)
    if mask is None:
        at = torch.arange(span.length, end, device=q.device)[:, None]
        to = torch.arange(first, end, device=q.device)[None, :]
        mask = single.masks[window] = _hiding(at, to, window, q).repeat(groups, 1)
    found = _product(folded, k[None], v[None], mask, scale, softcap)[0]
    return found.reshape(q.shape[1], count, -1).transpose(0, 1)


def _one_each(
    common: Common, q: Tensor, keys: Tensor, values: Tensor, window: int, scale: float, softcap: float | None
) -> Tensor:
    """As `_product`, for rows that ask one token each."""
    mask = _mask(common, window, q)
    cut = slice(common.first, common.last), slice(None), slice(0, common.tokens)
    if q.device.type != "cpu" or softcap is not None or q.dtype != torch.float32:
        return _product(q, keys[cut], values[cut], mask, scale, softcap)
    scores = torch.baddbmm(mask.flatten(0, 1), q.flatten(0, 1), keys[cut].flatten(0, 1).transpose(1, 2), alpha=scale)
    at, begins = _bags(common, q, values.shape[2])
    shares = torch.softmax(scores, -1).view(-1)
    found = F.embedding_bag(at, values.view(-1, values.shape[3]), begins, mode="sum", per_sample_weights=shares)
    return found.view(*q.shape[:3], -1)


def _mask(common: Common, window: int, q: Tensor) -> Tensor:
    known = common.masks.get(window)
    if known is None:
        to = torch.arange(common.tokens, device=q.device)[None, :]
        hiding = _hiding(common.lengths[:, None], to, window, q)[:, None, None]
        known = common.masks[window] = hiding.expand(-1, q.shape[1], q.shape[2], -1).contiguous()
    return known


def _hiding(at: Tensor, to: Tensor, window: int, like: Tensor) -> Tensor:
    """Additive: a token at the position `at` [n, 1] sees none of `to` [1, keys] after it, nor beyond the window."""
    hidden = to > at
    if window:
        hidden |= to <= at - window
    return like.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)


def _bags(common: Common, q: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """Of all queries, one after the other: which rows of a layer's values [places · kv heads · room, dim] they see, and
    where each one's rows begin among these."""
    if common.bags is None:
        _, heads, queries, _ = q.shape
        first = room * torch.arange(common.first * heads, common.last * heads, dtype=torch.int32)
        at = first[:, None, None] + torch.arange(common.tokens, dtype=torch.int32)
        at = at.expand(-1, queries, -1).flatten()
        common.bags = at, torch.arange(0, len(at), common.tokens, dtype=torch.int32)
    return common.bags


def _product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    """q [rows, kv heads, queries, dim], k and v [rows, kv heads, keys, dim] → [rows, kv heads, queries, dim]."""
    if softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    scores = softcap * torch.tanh(q @ k.transpose(2, 3) * (scale / softcap))
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


# ── behind transformers ──────────────────────────────────────────────────────────────────────────

_current = threading.local()  # the attention function is global, a step belongs to its model thread


class Attends(Protocol):
    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, softcap: float | None
    ) -> Tensor:
        """As `AttentionStep.attend`."""


@contextmanager
def serving(step: Attends) -> Iterator[None]:
    """While it is open, transformers' attention on this thread works on this step."""
    _current.step = step
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
    """query [1, heads, tokens, dim], key and value [1, kv heads, tokens, dim] → [1, tokens, heads, dim].

    Raises NotImplementedError for what it cannot reproduce.
    """
    for name in _UNSUPPORTED:
        if extra.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
    layer = int(getattr(module, "layer_idx"))  # noqa: B009  (Module types every attribute as a module)
    window = sliding_window if sliding_window is not None else getattr(module, "sliding_window", None)
    scale = scaling if scaling is not None else query.shape[3] ** -0.5
    step: Attends = _current.step
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return step.attend(layer, q, k, v, scale, window or 0, softcap)[None], None


AttentionInterface.register(NAME, attend)

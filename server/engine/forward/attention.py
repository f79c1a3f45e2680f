"""Attention for a step's tokens of many rows, each seeing its own row's keys and values alone.

Rows that add one token (decodes) are one product over the arena, up to a length that most of them need; longer rows
and prompts' chunks (prefills) have one each. On a CPU the values that decodes attend to are summed as embedding bags,
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
_KEY_MULTIPLE = 16  # keys and values of a group are read up to a multiple of it
_CALL_TOKENS = 256  # a product of its own costs as much as so many more tokens in a group's


class Span(NamedTuple):
    """Tokens [begin, end) of the step belong to the row in `kv_slot`, which has `computed` ones before them there."""

    begin: int
    end: int
    kv_slot: int
    computed: int


@dataclass
class DecodeGroup:
    """Rows of one token that are computed together: the arena's slots [first, last), up to `tokens` of each.

    `gather` and `computed` [slots]: the step's token for each slot (any, where there is none) and how many are
    before it; `occupied` and `token_indices`: the slots that have one, from `first` on, and which of the step's it is.
    `contiguous`: they are the whole step, in its order. `masks` by window, additive [slots, kv heads, queries,
    tokens]; `bag_indices`: see `_bag_indices`.
    """

    first: int
    last: int
    tokens: int
    gather: Tensor
    occupied: Tensor
    token_indices: Tensor
    computed: Tensor
    contiguous: bool = False
    masks: dict[int, Tensor] = field(default_factory=dict)
    bag_indices: tuple[Tensor, Tensor] | None = None


@dataclass
class PrefillSpan:
    """A prompt's chunk; `masks` by window, additive [tokens, keys]."""

    span: Span
    masks: dict[int, Tensor]


class AttentionStep:
    """Where each token's keys and values go and what it attends to, worked out once for all layers."""

    def __init__(
        self,
        arena: KVArena,
        positions: Tensor,
        kv_slots: Tensor,
        decodes: Sequence[DecodeGroup],
        prefills: Sequence[PrefillSpan] = (),
    ) -> None:
        """positions and kv_slots [tokens]. Allocates nothing."""
        self._arena = arena
        self.positions = positions
        self._kv_slots = kv_slots
        self._decodes = decodes
        self._prefills = prefills

    @classmethod
    def from_spans(cls, arena: KVArena, spans: Sequence[Span]) -> AttentionStep:
        device = arena.shape.device
        positions = torch.tensor([s.computed + n for s in spans for n in range(s.end - s.begin)], device=device)
        kv_slots = torch.tensor([s.kv_slot for s in spans for _ in range(s.end - s.begin)], device=device)
        decodes = [span for span in spans if span.end - span.begin == 1]
        groups = [_decode_group(rows, device, len(rows) == len(spans)) for rows in _group_decodes(decodes)]
        prefills = [PrefillSpan(span, {}) for span in spans if span.end - span.begin > 1]
        return cls(arena, positions, kv_slots, groups, prefills)

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
        self._arena.write(layer, self._kv_slots, self.positions, k, v)
        keys, values = self._arena.keys[layer], self._arena.values[layer]
        groups = q.shape[1] // k.shape[1]
        out = q.new_empty(q.shape[0], q.shape[1], v.shape[2])
        for group in self._decodes:
            queries = (q if group.contiguous else q.index_select(0, group.gather)).reshape(
                -1, k.shape[1], groups, q.shape[2]
            )
            attended = _attend_decodes(group, queries, keys, values, window, scale, softcap).flatten(1, 2)
            if group.contiguous:
                return attended
            out.index_copy_(0, group.token_indices, attended.index_select(0, group.occupied))
        for prefill in self._prefills:
            out[prefill.span.begin : prefill.span.end] = _attend_prefill(
                prefill, q, keys, values, scale, window, softcap
            )
        return out


def _group_decodes(decodes: Sequence[Span]) -> list[list[Span]]:
    """Which rows of one token are computed together, so that the sum is cheap: the shorter ones, and each longer one
    by itself."""
    decodes = sorted(decodes, key=lambda s: s.computed)
    best, cost = 0, sum(s.computed + _CALL_TOKENS for s in decodes)
    for count in range(2, len(decodes) + 1):
        slots = [s.kv_slot for s in decodes[:count]]
        group_cost = (max(slots) - min(slots) + 1) * _round_up(decodes[count - 1].computed + 1) + _CALL_TOKENS
        total = group_cost + sum(s.computed + _CALL_TOKENS for s in decodes[count:])
        if total < cost:
            best, cost = count, total
    together = [decodes[:best]] if best else []
    return together + [[decode] for decode in decodes[best:]]


def _round_up(tokens: int) -> int:
    return -(-tokens // _KEY_MULTIPLE) * _KEY_MULTIPLE


def _decode_group(spans: Sequence[Span], device: torch.device, whole_step: bool) -> DecodeGroup:
    first = min(span.kv_slot for span in spans)
    last = max(span.kv_slot for span in spans) + 1
    gather, computed = [spans[0].begin] * (last - first), [0] * (last - first)
    for span in spans:
        gather[span.kv_slot - first] = span.begin
        computed[span.kv_slot - first] = span.computed
    return DecodeGroup(
        first,
        last,
        _round_up(max(computed) + 1),
        torch.tensor(gather, device=device),
        torch.tensor([span.kv_slot - first for span in spans], device=device),
        torch.tensor([span.begin for span in spans], device=device),
        torch.tensor(computed, device=device),
        whole_step and len(spans) == last - first and gather == sorted(gather),
    )


def _attend_prefill(
    prefill: PrefillSpan, q: Tensor, keys: Tensor, values: Tensor, scale: float, window: int, softcap: float | None
) -> Tensor:
    """One row's tokens [tokens, heads, value dim]. Heads that share keys are folded into the query's length,
    so that no key is copied."""
    span = prefill.span
    count, end = span.end - span.begin, span.computed + span.end - span.begin
    first = max(0, span.computed - window + 1) if window else 0
    k, v = keys[span.kv_slot, :, first:end], values[span.kv_slot, :, first:end]
    groups = q.shape[1] // k.shape[0]
    folded = q[span.begin : span.end].transpose(0, 1).reshape(1, k.shape[0], groups * count, -1)
    mask = prefill.masks.get(window)
    if mask is None:
        query_positions = torch.arange(span.computed, end, device=q.device)[:, None]
        key_positions = torch.arange(first, end, device=q.device)[None, :]
        mask = prefill.masks[window] = _additive_mask(query_positions, key_positions, window, q).repeat(groups, 1)
    attended = _sdpa(folded, k[None], v[None], mask, scale, softcap)[0]
    return attended.reshape(q.shape[1], count, -1).transpose(0, 1)


def _attend_decodes(
    group: DecodeGroup, q: Tensor, keys: Tensor, values: Tensor, window: int, scale: float, softcap: float | None
) -> Tensor:
    """As `_sdpa`, for rows of one token each."""
    mask = _decode_mask(group, window, q)
    read = slice(group.first, group.last), slice(None), slice(0, group.tokens)
    if q.device.type != "cpu" or softcap is not None or q.dtype != torch.float32:
        return _sdpa(q, keys[read], values[read], mask, scale, softcap)
    scores = torch.baddbmm(mask.flatten(0, 1), q.flatten(0, 1), keys[read].flatten(0, 1).transpose(1, 2), alpha=scale)
    indices, offsets = _bag_indices(group, q, values.shape[2])
    weights = torch.softmax(scores, -1).view(-1)
    rows = values.view(-1, values.shape[3])
    attended = F.embedding_bag(indices, rows, offsets, mode="sum", per_sample_weights=weights)
    return attended.view(*q.shape[:3], -1)


def _decode_mask(group: DecodeGroup, window: int, q: Tensor) -> Tensor:
    known = group.masks.get(window)
    if known is None:
        key_positions = torch.arange(group.tokens, device=q.device)[None, :]
        mask = _additive_mask(group.computed[:, None], key_positions, window, q)[:, None, None]
        known = group.masks[window] = mask.expand(-1, q.shape[1], q.shape[2], -1).contiguous()
    return known


def _additive_mask(query_positions: Tensor, key_positions: Tensor, window: int, like: Tensor) -> Tensor:
    """Causal: a query [n, 1] sees none of the keys [1, keys] after its position, nor those before the window."""
    hidden = key_positions > query_positions
    if window:
        hidden |= key_positions <= query_positions - window
    return like.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)


def _bag_indices(group: DecodeGroup, q: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Indices and offsets of an embedding bag for each query: which rows of a layer's values [slots · kv heads ·
    capacity, dim] it attends to."""
    if group.bag_indices is None:
        _, heads, queries, _ = q.shape
        first = capacity * torch.arange(group.first * heads, group.last * heads, dtype=torch.int32)
        indices = first[:, None, None] + torch.arange(group.tokens, dtype=torch.int32)
        indices = indices.expand(-1, queries, -1).flatten()
        group.bag_indices = indices, torch.arange(0, len(indices), group.tokens, dtype=torch.int32)
    return group.bag_indices


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    """q [rows, kv heads, queries, dim], k and v [rows, kv heads, keys, dim] → [rows, kv heads, queries, dim]."""
    if softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    scores = softcap * torch.tanh(q @ k.transpose(2, 3) * (scale / softcap))
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


# ── behind transformers ──────────────────────────────────────────────────────────────────────────

_current = threading.local()  # the attention function is global, a step belongs to its model thread


class SupportsAttend(Protocol):
    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, softcap: float | None
    ) -> Tensor:
        """As `AttentionStep.attend`."""


@contextmanager
def active_step(step: SupportsAttend) -> Iterator[None]:
    """Within it, transformers' attention on this thread computes this step."""
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
    step: SupportsAttend = _current.step
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return step.attend(layer, q, k, v, scale, window or 0, softcap)[None], None


AttentionInterface.register(NAME, attend)

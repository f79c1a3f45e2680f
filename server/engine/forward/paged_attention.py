"""Attention for a step's tokens of many rows whose keys and values are in pages.

On a device FlashAttention reads the pages where they are (torch's `varlen_attn_out` with a block table; Dao, 2023).
What it does not take (float32, a soft cap, older cards, a processor) is computed plainly, from copies of the pages.
Knows nothing of sampling, adapters or scheduling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from server.engine.cache.pages import SPARE_PAGE, KVPages
from server.engine.forward.chunk import RowChunk

_FLASH_DIM = 256  # the widest head that FlashAttention takes; widths are multiples of 8
_FLASH_CAPABILITY = (8, 0)  # Ampere


@cache
def _varlen_attn_out() -> Callable[..., Tensor] | None:
    """torch's attention over pages; None before torch 2.13."""
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return None
    return getattr(varlen, "varlen_attn_out", None)


def unsupported_by_flash(shape_dim: int, value_dim: int, dtype: torch.dtype, device: torch.device) -> str:
    """Why FlashAttention cannot read such pages; '' where it can."""
    if device.type != "cuda":
        return f"FlashAttention needs a CUDA device, not {device.type}"
    if _varlen_attn_out() is None:
        return f"torch {torch.__version__} has no attention over pages; 2.13 has"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"FlashAttention does not take {str(dtype).removeprefix('torch.')}"
    if shape_dim != value_dim or shape_dim > _FLASH_DIM or shape_dim % 8:
        return f"FlashAttention does not take heads of {shape_dim} and {value_dim} numbers"
    if torch.cuda.get_device_capability(device) < _FLASH_CAPABILITY:
        return "FlashAttention needs a card of compute capability 8.0 or newer"
    return ""


@dataclass(frozen=True)
class RowTables:
    """Of a step's rows, on their device. `positions`, `places` [tokens]: each token's in its row, and in the pool;
    `ends` [rows] int32: keys that a row's last token sees; `table` [rows, pages] int32; `query_starts` [rows + 1]
    int32: where each row's tokens begin; `key_starts` [rows + 1] int32: rising, asked for and not read by
    FlashAttention 2. `spans`: (tokens, keys that the last of them sees) of each row, known to the host; None: a
    captured step, of one token each."""

    positions: Tensor
    places: Tensor
    ends: Tensor
    table: Tensor
    query_starts: Tensor
    key_starts: Tensor
    spans: tuple[tuple[int, int], ...] | None

    @classmethod
    def of(cls, chunks: Sequence[RowChunk], pages: KVPages) -> RowTables:
        device, size = pages.shape.device, pages.page_size
        counts = [len(chunk.tokens) for chunk in chunks]
        widest = max(pages.count(chunk.computed + count) for chunk, count in zip(chunks, counts, strict=True))
        positions = np.concatenate([np.arange(c.computed, c.computed + n) for c, n in zip(chunks, counts, strict=True)])
        table = np.full((len(chunks), widest), SPARE_PAGE, np.int32)
        for row, chunk in enumerate(chunks):
            own = chunk.pages[:widest]
            table[row, : len(own)] = own
        pages_by_token = table[np.repeat(np.arange(len(chunks)), counts), positions // size]
        places = pages_by_token.astype(np.int64) * size + positions % size
        ends = np.array([c.computed + n for c, n in zip(chunks, counts, strict=True)], np.int32)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        wide = to_device(np.stack([positions, places]), device)
        narrow = to_device(np.concatenate([ends, starts, table.ravel()]), device)
        rows = len(chunks)
        return cls(
            wide[0],
            wide[1],
            narrow[:rows],
            narrow[2 * rows + 1 :].view(rows, widest),
            narrow[rows : 2 * rows + 1],
            torch.arange(0, (rows + 1) * widest * size, widest * size, dtype=torch.int32, device=device),
            tuple(zip(counts, ends.tolist(), strict=True)),
        )


def to_device(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """A copy that the host does not wait for."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class PagedStep:
    """What a step's tokens attend to, worked out once for all layers. `flash`: FlashAttention reads the pages."""

    def __init__(self, pages: KVPages, tables: RowTables, *, flash: bool) -> None:
        self.pages = pages
        self.tables = tables
        self._flash = flash

    @property
    def positions(self) -> Tensor:
        return self.tables.positions

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int = 0, softcap: float | None = None
    ) -> Tensor:
        """As `AttentionStep.attend`."""
        self.pages.write(layer, self.tables.places, k, v)
        return self.attend_written(layer, q, scale, window, softcap)

    def attend_written(
        self, layer: int, q: Tensor, scale: float, window: int = 0, softcap: float | None = None
    ) -> Tensor:
        """q [tokens, heads, dim], whose keys and values are in their places → [tokens, heads, value dim]. `window`: how
        far back a token sees, itself included; 0 is all."""
        keys, values = self.pages.keys(layer), self.pages.values(layer)
        if self._flash and softcap is None:
            return self._attend_flash(q, keys, values, scale, window)
        if self.tables.spans is None:
            return self._attend_decodes(q, keys, values, scale, window, softcap)
        return self._attend_rows(self.tables.spans, q, keys, values, scale, window, softcap)

    def _attend_flash(self, q: Tensor, keys: Tensor, values: Tensor, scale: float, window: int) -> Tensor:
        tables = self.tables
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        attend = _varlen_attn_out()
        assert attend is not None  # narrows a type: checked by `unsupported_by_flash`
        attend(
            out,
            q,
            keys,
            values,
            tables.query_starts,
            tables.key_starts,
            1 if tables.spans is None else max(count for count, _ in tables.spans),
            tables.table.shape[1] * self.pages.page_size,
            scale=scale,
            window_size=(window - 1, 0) if window else (-1, 0),
            enable_gqa=q.shape[1] != keys.shape[2],
            seqused_k=tables.ends,
            block_table=tables.table,
            num_splits=1,  # the same sums whoever else is in the step
        )
        return out

    def _attend_decodes(
        self, q: Tensor, keys: Tensor, values: Tensor, scale: float, window: int, softcap: float | None
    ) -> Tensor:
        """A token of each row; shapes are those of the table, whatever the rows hold."""
        table, ends = self.tables.table, self.tables.ends
        k, v = (part[table].flatten(1, 2) for part in (keys, values))  # [rows, tokens, kv heads, dim]
        at = torch.arange(k.shape[1], device=q.device)[None]
        hidden = at >= ends[:, None]
        if window:
            hidden = hidden | (at < ends[:, None] - window)
        # What others have left there need not be finite.
        k, v = (part.masked_fill(hidden[:, :, None, None], 0) for part in (k, v))
        return _attend(q[:, None], k, v, hidden[:, None], scale, softcap)[:, 0]

    def _attend_rows(
        self,
        spans: Sequence[tuple[int, int]],
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: float,
        window: int,
        softcap: float | None,
    ) -> Tensor:
        """A row after the other, as many keys as it has."""
        outs, begin = [], 0
        for row, (count, end) in enumerate(spans):
            pages = self.tables.table[row, : self.pages.count(end)]
            k, v = (part[pages].flatten(0, 1)[None, :end] for part in (keys, values))
            at = torch.arange(end - count, end, device=q.device)[:, None]
            keys_at = torch.arange(end, device=q.device)[None]
            hidden = keys_at > at
            if window:
                hidden = hidden | (keys_at <= at - window)
            outs.append(_attend(q[None, begin : begin + count], k, v, hidden[None], scale, softcap)[0])
            begin += count
        return torch.cat(outs)


def _attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, scale: float, softcap: float | None) -> Tensor:
    """q [rows, queries, heads, dim], k and v [rows, keys, kv heads, dim], hidden [rows, queries, keys] →
    [rows, queries, heads, value dim]."""
    groups = q.shape[2] // k.shape[2]
    q, k, v = (part.transpose(1, 2) for part in (q, k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)))
    mask = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device).masked_fill_(hidden, -math.inf)[:, None]
    if softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)
    scores = softcap * torch.tanh(q @ k.transpose(2, 3) * (scale / softcap)) + mask
    return (torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype) @ v).transpose(1, 2)

"""Keys and values of running rows: one buffer a row and layer, and a budget in bytes over all of them.

A row reserves room for its whole length when it is admitted, so that no running row is ever stopped for
memory. Knows nothing of models; shapes are learnt from the first tensors that arrive.
"""

from __future__ import annotations

import torch
from torch import Tensor


class RowKV:
    """One row's keys and values. `length` tokens are final; a step writes behind them, then commits.

    Only the model thread touches it.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes [heads, tokens, dim] behind the final tokens and gives all so far, [heads, length + tokens, dim]."""
        end = self.length + keys.shape[1]
        held = self._layers.get(layer)
        if held is None:
            held = (_buffer(keys, self.capacity), _buffer(values, self.capacity))
            self._layers[layer] = held
        held[0][:, self.length:end] = keys
        held[1][:, self.length:end] = values
        return held[0][:, :end], held[1][:, :end]

    def commit(self, tokens: int) -> None:
        self.length += tokens

    def bytes_per_token(self) -> int:
        return sum(t.element_size() * t.shape[0] * t.shape[2] for pair in self._layers.values() for t in pair)


def _buffer(like: Tensor, capacity: int) -> Tensor:
    return torch.empty(like.shape[0], capacity, like.shape[2], dtype=like.dtype, device=like.device)


class KVBudget:
    """How many tokens of keys and values may be reserved at once. Not thread-safe: the caller locks."""

    def __init__(self, total_bytes: int, bytes_per_token: int) -> None:
        self.total = total_bytes // max(bytes_per_token, 1)
        self._held: dict[int, int] = {}

    @property
    def used(self) -> int:
        return sum(self._held.values())

    def reserve(self, owner: int, tokens: int) -> bool:
        """False, and nothing reserved, where it does not fit now."""
        if owner in self._held:
            raise ValueError(f"row {owner} has reserved already")
        if self.used + tokens > self.total:
            return False
        self._held[owner] = tokens
        return True

    def release(self, owner: int) -> None:
        self._held.pop(owner, None)

    def owners(self) -> frozenset[int]:
        return frozenset(self._held)

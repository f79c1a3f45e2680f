"""Keys and values of finished prompts, kept so that the next one that begins alike need not compute them.

`PrefixIndex` knows which blocks there are, `BlockPool` holds their tensors. A block is `BLOCK_SIZE` tokens behind
its parent; it is found only by its parent, the load of the adapter it was computed with, and its very tokens
(compared at each look, never by hash alone), after vLLM's prefix caching and SGLang's radix tree (Zheng et al.,
2024, section 3). The least recently used leaf goes first. Neither is thread-safe. Knows nothing of models, text or
queues.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from server.engine.cache.kv import KVArena, KVShape, zeros

BLOCK_SIZE = 16

Key = tuple[int, tuple[int, ...]]  # parent, tokens; the parent of a first block is the root of its adapter's load


@dataclass(eq=False)
class Block:
    id: int  # never used twice
    pool_index: int
    key: Key
    load_id: int  # of the adapter; 0: the base model
    children: int = 0


class PrefixIndex:
    """Which blocks are kept, at most `capacity`."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: OrderedDict[Key, Block] = OrderedDict()  # least recently used first
        self._by_id: dict[int, Block] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self._next = 1

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, load_id: int, tokens: Sequence[int]) -> list[int]:
        """Pool indices of the longest run of kept blocks that `tokens` begins with."""
        found = self._longest_match(load_id, tokens)
        self._touch(found)
        return [block.pool_index for block in found]

    def add(self, load_id: int, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Makes blocks for the whole blocks of `tokens` that are not kept yet, as far as others can be evicted:
        (number of the block in the text, pool index) of each new one, whose tensors must be filled now."""
        chain = self._longest_match(load_id, tokens)
        self._touch(chain)
        kept = {block.id for block in chain}
        added: list[tuple[int, int]] = []
        parent = chain[-1].id if chain else -load_id - 1
        for number in range(len(chain), len(tokens) // BLOCK_SIZE):
            if not self._free and not self._evict(kept):
                break
            block = Block(self._next, self._free.pop(), (parent, _block_tokens(tokens, number)), load_id)
            self._next += 1
            self._blocks[block.key] = self._by_id[block.id] = block
            if chain:
                chain[-1].children += 1
            chain.append(block)
            kept.add(block.id)
            added.append((number, block.pool_index))
            parent = block.id
        self._touch(chain)
        return added

    def drop(self, load_id: int) -> None:
        """Forgets all that was computed with that load of an adapter."""
        for block in [block for block in self._blocks.values() if block.load_id == load_id]:
            self._remove(block)

    def clear(self) -> None:
        for block in list(self._blocks.values()):
            self._remove(block)

    def _longest_match(self, load_id: int, tokens: Sequence[int]) -> list[Block]:
        found: list[Block] = []
        parent = -load_id - 1  # below every block's id
        for number in range(len(tokens) // BLOCK_SIZE):
            block = self._blocks.get((parent, _block_tokens(tokens, number)))
            if block is None:
                break
            found.append(block)
            parent = block.id
        return found

    def _touch(self, chain: Sequence[Block]) -> None:
        """Leaves first, so that a parent is always newer than its children."""
        for block in reversed(chain):
            self._blocks.move_to_end(block.key)

    def _evict(self, kept: set[int]) -> bool:
        victim = next((block for block in self._blocks.values() if not block.children and block.id not in kept), None)
        if victim is None:
            return False
        self._remove(victim)
        return True

    def _remove(self, block: Block) -> None:
        del self._blocks[block.key]
        del self._by_id[block.id]
        parent = self._by_id.get(block.key[0])
        if parent is not None:
            parent.children -= 1
        self._free.append(block.pool_index)

    def check_integrity(self) -> None:
        """Raises ValueError when blocks, pool indices and parents contradict each other."""
        indices = [block.pool_index for block in self._blocks.values()] + self._free
        if sorted(indices) != list(range(self.capacity)):
            raise ValueError("a place of the prefix store is lost or used twice")
        children = dict.fromkeys(self._by_id, 0)
        for block in self._blocks.values():
            parent = block.key[0]
            if parent == -block.load_id - 1:
                continue
            if parent not in children or self._by_id[parent].load_id != block.load_id:
                raise ValueError(f"block {block.id} has lost its parent")
            children[parent] += 1
        if any(self._by_id[id].children != count for id, count in children.items()):
            raise ValueError("a block miscounts its children")


def _block_tokens(tokens: Sequence[int], number: int) -> tuple[int, ...]:
    return tuple(tokens[number * BLOCK_SIZE : (number + 1) * BLOCK_SIZE])


def block_bytes(shape: KVShape) -> int:
    return shape.token_bytes * BLOCK_SIZE


class BlockPool:
    """The blocks' tensors, [capacity, heads, BLOCK_SIZE, dim] a layer. Only the model thread touches it."""

    def __init__(self, shape: KVShape, capacity: int) -> None:
        self._device = shape.device
        self.block_bytes = block_bytes(shape)
        self.keys = [zeros((capacity, shape.heads, BLOCK_SIZE, shape.key_dim), shape) for _ in range(shape.layers)]
        self.values = [zeros((capacity, shape.heads, BLOCK_SIZE, shape.value_dim), shape) for _ in range(shape.layers)]

    def save(self, arena: KVArena, kv_slot: int, blocks: Sequence[tuple[int, int]]) -> None:
        """Copies consecutive blocks, (number in the row, pool index) each, out of the row in that slot."""
        first, count = blocks[0][0], len(blocks)
        indices = torch.tensor([index for _, index in blocks], device=self._device)
        for pool, tensors in ((self.keys, arena.keys), (self.values, arena.values)):
            for saved, layer in zip(pool, tensors, strict=True):
                saved[indices] = _blocks(layer, kv_slot, first, count)

    def load(self, arena: KVArena, kv_slot: int, pool_indices: Sequence[int]) -> None:
        """Copies blocks to the beginning of the row in that slot."""
        indices = torch.tensor(pool_indices, device=self._device)
        for pool, tensors in ((self.keys, arena.keys), (self.values, arena.values)):
            for saved, layer in zip(pool, tensors, strict=True):
                _blocks(layer, kv_slot, 0, len(pool_indices)).copy_(saved[indices])


def _blocks(layer: Tensor, kv_slot: int, first: int, count: int) -> Tensor:
    """A row's tokens as a view [count, heads, BLOCK_SIZE, dim]."""
    tokens = layer[kv_slot, :, first * BLOCK_SIZE : (first + count) * BLOCK_SIZE]
    return tokens.view(tokens.shape[0], count, BLOCK_SIZE, -1).transpose(0, 1)

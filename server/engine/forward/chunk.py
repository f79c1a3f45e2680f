"""What a forward pass is given of each row. Knows nothing of models, queues or text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RowChunk:
    """Some tokens of the row in `kv_slot` or `pages`, which has `computed` ones before them there; `stack_index`: its
    adapter's in the LoRA stacks, None for the base; `needs_logits`: those after the last token are needed."""

    tokens: Sequence[int]
    kv_slot: int
    computed: int
    stack_index: int | None = None
    needs_logits: bool = True
    pages: Sequence[int] = ()

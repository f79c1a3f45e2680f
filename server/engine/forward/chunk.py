"""What a forward pass is given of each row. Knows nothing of models, queues or text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Some tokens of the row at `place`, which has `length` before them; `lora`: its adapter's place, None for the
    base; `wanted`: the logits after the last token are asked for."""

    tokens: Sequence[int]
    place: int
    length: int
    lora: int | None = None
    wanted: bool = True

"""One row: what was asked, how far it is, and how its events leave. No behaviour beyond small sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from server.engine.catalogue import AdapterFolder
from server.engine.constraint import GrammarMask
from server.engine.detokenize import TextStream
from server.engine.sampling import Sampler
from server.engine.slots import Slot
from server.types import GenerationEvent, TokenLogprob

Emit = Callable[[GenerationEvent | Exception], None]


class RowState(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Row:
    """A prompt and its answer. The scheduler sets state, slot and cache; the model thread the rest."""

    id: int
    prompt: tuple[int, ...]
    max_tokens: int
    user: str | None
    folder: AdapterFolder | None
    sampler: Sampler
    text: TextStream
    emit: Emit
    submitted: float                       # seconds of a monotonic clock, like all below
    mask: GrammarMask | None = None
    logprobs: bool = False

    state: RowState = RowState.WAITING
    cancelled: bool = False
    order: float = 0.0                     # place in the queue: smaller is earlier
    position: int = 0                      # as last told
    slot: Slot | None = None
    cache: Any = None
    computed: int = 0                      # of prompt + answer, in the cache
    answer: list[int] = field(default_factory=list)
    unshown: int = 0                       # tokens since the last delta
    unshown_logprobs: list[TokenLogprob] = field(default_factory=list)
    admitted: float = 0.0
    first_token: float = 0.0

    @property
    def prefill_left(self) -> int:
        return max(0, len(self.prompt) - self.computed)

    @property
    def tokens_reserved(self) -> int:
        return len(self.prompt) + self.max_tokens

    def next_tokens(self, most: int) -> tuple[int, ...]:
        """What goes through the model next: up to `most` of the prompt, or the newest token."""
        if self.prefill_left:
            return self.prompt[self.computed:self.computed + most]
        return (self.answer[-1],)

"""One row: what was asked, how far it is, and how its events leave. No behaviour beyond small sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from server.engine.adapters.folders import AdapterFolder
from server.engine.adapters.slots import Slot
from server.engine.cache.kv import Grant
from server.engine.sampling.constraint import GrammarMask
from server.engine.sampling.detokenize import TextStream
from server.engine.sampling.sampler import Sampler
from server.types import GenerationEvent, TokenLogprob

Emit = Callable[[GenerationEvent | Exception], None]


class RowState(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Row:
    """A prompt and its answer. The scheduler sets state, slot and grant; the model thread the rest."""

    id: int
    prompt: tuple[int, ...]
    max_tokens: int
    user: str | None
    folder: AdapterFolder | None
    adapter_bytes: int
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
    grant: Grant | None = None             # its part of the keys and values while it runs
    known: list[int] = field(init=False)   # prompt and answer
    computed: int = 0                      # of them, in the keys and values
    cached: int = 0                        # of the prompt, not computed but taken from the prefix store
    unshown: int = 0                       # tokens since the last delta
    unshown_logprobs: list[TokenLogprob] = field(default_factory=list)
    admitted: float = 0.0
    first_token: float = 0.0

    def __post_init__(self) -> None:
        self.known = list(self.prompt)

    @property
    def load(self) -> int:
        """The load of the adapter that its keys and values belong to; 0: the base model."""
        return self.slot.id if self.slot is not None else 0

    @property
    def pending(self) -> int:
        """Tokens that must go through the model before the next one can be chosen."""
        return len(self.known) - self.computed

    @property
    def answered(self) -> int:
        return len(self.known) - len(self.prompt)

    def next_tokens(self, most: int) -> tuple[int, ...]:
        return tuple(self.known[self.computed:self.computed + most])

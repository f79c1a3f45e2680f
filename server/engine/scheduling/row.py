"""One row: a request, how far it is computed, where its events go. Knows nothing of other rows, steps or tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from server.engine.adapters.folders import AdapterFolder
from server.engine.adapters.slots import Slot
from server.engine.cache.kv import KVReservation
from server.engine.sampling.constraint import GrammarMask
from server.engine.sampling.detokenize import TextStream
from server.engine.sampling.isolation import isolated
from server.engine.sampling.sampler import Sampler
from server.types import GenerationEvent, TokenLogprob

Emit = Callable[[GenerationEvent | Exception], None]


class RowState(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Row:
    """A prompt and its answer. The scheduler sets state, slot and reservation; the model thread the rest."""

    id: int
    prompt: tuple[int, ...]
    max_tokens: int
    user: str | None
    folder: AdapterFolder | None
    adapter_bytes: int
    sampler: Sampler
    text: TextStream
    emit: Emit
    submitted_at: float  # seconds of a monotonic clock, like all below
    mask: GrammarMask | None = None
    logprobs: bool = False

    state: RowState = RowState.WAITING
    cancelled: bool = False
    turn: int = 0  # numbers rows in the order of their first admission; 0: none yet
    position: int = 0  # in the queue, as last emitted
    slot: Slot | None = None
    reservation: KVReservation | None = None  # its part of the KV memory while it runs
    tokens: list[int] = field(init=False)  # prompt and answer
    computed: int = 0  # of them, whose keys and values are in memory
    verified: int = 0  # of those, behind which logits were seen to be finite
    cached: int = 0  # of the prompt, not computed but taken from the prefix store
    unsent_tokens: int = 0  # tokens since the last delta
    unsent_logprobs: list[TokenLogprob] = field(default_factory=list)
    admitted_at: float = 0.0
    first_token_at: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def load_id(self) -> int:
        """Of the adapter that its keys and values were computed with; 0: the base model."""
        return self.slot.id if self.slot is not None else 0

    @property
    def pending(self) -> int:
        """Tokens that must go through the model before the next one can be chosen."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.prompt)

    def send(self, event: GenerationEvent | Exception) -> None:
        """Emits an event. A row whose events cannot be taken is cancelled, and cancelled rows send nothing."""
        if self.cancelled:
            return
        error = isolated(self.emit, event)
        if error is not None:
            self.cancelled = True
            isolated(self.emit, error)

    def next_tokens(self, max_tokens: int) -> tuple[int, ...]:
        return tuple(self.tokens[self.computed : self.computed + max_tokens])

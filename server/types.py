"""Types that parts share: frozen, without behaviour beyond small properties.

Knows nothing of files, models, HTTP or the database. Times are seconds since the epoch (UTC);
durations are seconds; token counts are the serving model's own tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, NewType, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

from server.relations import Relation, TextRole

UserId = NewType("UserId", str)
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a rendered chat, as the chat template takes it."""

    role: Role
    content: str


# ── knowledge ────────────────────────────────────────────────────────────────────────────────────


SUSPICIOUS: Final = 0.5  # from this score on a passage is shown to whoever maintains the files, and marked


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a file that retrieval found.

    `file` is the path inside `knowledge/<folder>/`, with forward slashes. Lines count from 1 and both
    ends are inside; `page` counts from 1 and is set for paged formats, where lines are None. `suspicion`
    (0..1) says how much the text reads like an instruction to a model.
    """

    id: str
    folder: str
    file: str
    text: str
    heading: tuple[str, ...] = ()
    line_start: int | None = None
    line_end: int | None = None
    page: int | None = None
    score: float = 0.0
    suspicion: float = 0.0

    @property
    def is_suspicious(self) -> bool:
        return self.suspicion >= SUSPICIOUS

    @property
    def place(self) -> str:
        """'page 3', 'lines 4-9', 'line 4' or ''."""
        if self.page is not None:
            return f"page {self.page}"
        if self.line_start is None:
            return ""
        if self.line_end is None or self.line_end == self.line_start:
            return f"line {self.line_start}"
        return f"lines {self.line_start}-{self.line_end}"


class Embedder(Protocol):
    """Turns texts into unit vectors. Safe to call from any thread."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text may get another vector."""

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        """[len(texts), dimension], float32, L2-normalised. Blocks: call it off the event loop."""

    def count(self, text: str) -> int:
        """The text's length in the embedder's own tokens, without special tokens."""

    def knows(self, text: str) -> bool:
        """False where the text's language is so foreign to the embedder that its vector says nothing."""

    def likelihood(
        self, relation: Relation, cosines: NDArray[np.float32], *, crossing: NDArray[np.bool_] | bool = False
    ) -> NDArray[np.float32]:
        """In 0..1, at even odds before the cosine is known. `crossing`: where both are of two languages."""


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


class MemoryKind(StrEnum):
    IDENTITY = "identity"  # who the user is: name, role, home
    PREFERENCE = "preference"  # how the user wants things, the form of address included
    INSTRUCTION = "instruction"  # a standing order: "always answer in metric units"
    PROJECT = "project"  # what the user works on or plans
    RELATION = "relation"  # who somebody is to the user: "my sister Mina"
    EVENT = "event"  # something with a day, which is over after it
    FACT = "fact"  # anything else the user asked to be remembered


@dataclass(frozen=True, slots=True)
class Memory:
    """One fact about one user, with the words it was taken from.

    Two times are kept: when it holds in the world (`valid_from`, `valid_to`) and when it was written
    (`created_at`, `updated_at`). All times are seconds since 1970, UTC; None is not known, or open.
    """

    id: int
    kind: MemoryKind
    text: str
    quote: str
    conversation_id: str | None
    message_id: str | None
    created_at: float
    updated_at: float
    subject: str = ""  # who it is about, as named; '' is the user
    valid_from: float | None = None
    valid_to: float | None = None  # past: it was so, or the event is over
    confidence: float = 1.0
    last_used: float | None = None
    replaced_by: int | None = None  # the memory that answers the same question now
    why: str = ""  # in a recall: what admitted it ("profile", "words", "meaning", "asked")


@dataclass(frozen=True, slots=True)
class PastChatTurn:
    """A turn of another chat of the same user, found by search. `at` is in seconds since 1970; `sequence` says which
    came first, whatever the clock said."""

    conversation_id: str
    message_id: str
    title: str  # of the chat
    role: Role
    text: str
    at: float
    score: float = 0.0
    sequence: int = 0  # 0 in turns stored before it was counted


# ── routing ──────────────────────────────────────────────────────────────────────────────────────


class RouteHow(StrEnum):
    CHOSEN = "chosen"  # the user picked the domain
    STICKY = "sticky"  # it answered the message before, and this one goes on
    SIMILAR = "similar"  # the message is like the domain's routes, or its files answer it
    FALLBACK = "fallback"  # it belongs to no other


@dataclass(frozen=True, slots=True)
class RouteScore:
    domain: str
    score: float  # likelihood that the message belongs to it; they sum to 1
    example: str  # its nearest route; '' without routes


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """Which domain answers and why. `score`: how likely the message belongs to it; None where nothing was compared."""

    domain: str
    how: RouteHow
    score: float | None
    threshold: float  # that some domain needs together, before one is picked
    candidates: tuple[RouteScore, ...] = ()
    belongs: bool = True  # it is what the domain is for, and no small talk with it, as far as that was compared


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────

SectionName = Literal["system", "examples", "memory", "chats", "history", "evidence", "question", "template"]


class ChatTokenizer(Protocol):
    """The serving model's tokenizer and chat template. Pure; safe to call from any thread."""

    def render(self, messages: Sequence[Message], *, generate: bool = True) -> list[int]:
        """Token ids of the chat. With `generate`, the opening of the assistant's turn is appended.

        Each message is encoded on its own where the template allows it, so that the ids of a chat
        are a prefix of the ids of the same chat with more messages.
        """

    def answer(self, text: str) -> list[int]:
        """Ids of an assistant's whole answer, its end token included: what training learns, and a history holds."""

    def encode(self, text: str) -> list[int]:
        """Ids without special tokens."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def count(self, text: str) -> int:
        """len(encode(text))."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the decoder may write. `source` is a JSON Schema (as JSON text) or an llguidance Lark grammar."""

    kind: Literal["json_schema", "lark"]
    source: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen. `temperature` 0 is greedy; `seed` None draws one from the system."""

    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    repetition_penalty: float = 1.0  # over prompt and answer, as CTRL (Keskar et al., 2019, 4.1)
    presence_penalty: float = 0.0  # over the answer
    frequency_penalty: float = 0.0  # over the answer
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None  # how many alternatives to report for each token; 0: the token's own


@dataclass(frozen=True, slots=True)
class PromptSection:
    """A part of the composed prompt, for "what the model saw". `tokens` counts `text` alone."""

    name: SectionName
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Compaction:
    """Where a chat's history now begins: how many of the branch's oldest turns have lost their
    evidence, and how many are dropped. Only ever grows, in large steps."""

    evidence_before: int = 0
    turns_before: int = 0


@dataclass(frozen=True, slots=True)
class TurnContext:
    """The context of one user message: passages, memories, quotes. Stored with it, so that later turns render it
    byte for byte as before."""

    nonce: str = ""
    searched: bool = False  # it has sources, or says that none were found
    passages: tuple[Passage, ...] = ()
    memories: tuple[Memory, ...] = ()  # those not already shown earlier in the chat
    chats: tuple[PastChatTurn, ...] = ()  # of other chats, where the user asked for them
    unread: int = 0  # files of the domain's folders that were there and still being read


@dataclass(frozen=True, slots=True)
class HistoryTurn:
    """A finished turn of the branch: the user's message, its context, the answer."""

    question: str
    context: TurnContext
    answer: str


@dataclass(frozen=True, slots=True)
class PromptBundle:
    """A prompt ready for the engine, and what went into it.

    `context` holds the passages and memories that fitted (passages are numbered from 1 in this
    order). `dropped_passages`, `trimmed_turns` and `trimmed_evidence` say what the budget cost.
    """

    messages: tuple[Message, ...]
    token_ids: tuple[int, ...]
    sections: tuple[PromptSection, ...]
    context: TurnContext
    sampling: SamplingParams
    constraint: Constraint | None
    compaction: Compaction
    dropped_passages: int = 0
    trimmed_turns: int = 0
    trimmed_evidence: int = 0


# ── generation ───────────────────────────────────────────────────────────────────────────────────


class FinishReason(StrEnum):
    STOP = "stop"  # end of turn, a stop string, or the grammar's end
    LENGTH = "length"  # max_tokens or the context's end
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One row for the engine. `adapter` is `name` or `name@version`; None is the base model."""

    prompt: tuple[int, ...]
    sampling: SamplingParams
    adapter: str | None = None
    constraint: Constraint | None = None
    user_id: UserId | None = None  # whose queue it waits in


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits; `position` 1 is next. Sent again whenever it changes."""

    position: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """Text that can be shown: never half a character, never a part of a stop string."""

    text: str
    tokens: int  # how many tokens it took
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int  # of the prompt, taken from a prefix store
    queue_s: float  # submitted → admitted
    ttft_s: float  # submitted → first token
    total_s: float  # submitted → finished


@dataclass(frozen=True, slots=True)
class GenerationDone:
    reason: FinishReason
    usage: Usage


GenerationEvent = Queued | TokenDelta | GenerationDone


class AdapterState(StrEnum):
    AVAILABLE = "available"  # in the folder, valid, not in a slot
    LOADING = "loading"
    LOADED = "loaded"
    INVALID = "invalid"  # in the folder; `reason` says what is wrong


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """An adapter as users see it."""

    name: str
    version: str
    state: AdapterState
    reason: str = ""
    rank: int = 0
    modules: int = 0  # layers it changes
    bytes: int = 0  # of its tensors in memory when loaded, else 0
    in_use: int = 0  # running rows
    last_used: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The serving base model. `reason` says why this device and dtype; `path` why this forward path."""

    id: str
    fingerprint: str
    device: str
    dtype: str
    reason: str
    path: str
    context_length: int
    parameters: int


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """`ok` False: the model thread has failed and `reason` says why."""

    ok: bool
    running: int
    waiting: int
    reason: str = ""

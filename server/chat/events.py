"""The events of a turn, in the order they happen. Field names and `type` are the wire format.

Frozen dataclasses; `server/api/protocol.py` joins them to the client's messages. Each event of a turn carries
`message_id` (the answer it belongs to) and `seq`, which counts from 1 without gaps, so that a client that lost its
connection can ask for the rest. Knows nothing of sockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from server.grounding import Citation, SentenceCheck
from server.types import Memory, Passage, PastChatTurn, RouteDecision, SectionName, Usage


@dataclass(frozen=True, slots=True)
class Started:
    """The user's message is stored and an answer is on its way."""

    message_id: str
    seq: int
    conversation_id: str
    user_message_id: str
    parent_id: str | None  # of the user's message
    title: str
    request_id: str
    type: Literal["started"] = "started"


@dataclass(frozen=True, slots=True)
class Routed:
    message_id: str
    seq: int
    decision: RouteDecision
    title: str  # of the domain
    type: Literal["route"] = "route"


@dataclass(frozen=True, slots=True)
class MemoriesUsed:
    """The user's memories that this prompt adds to the chat."""

    message_id: str
    seq: int
    memories: tuple[Memory, ...]
    type: Literal["memories"] = "memories"


@dataclass(frozen=True, slots=True)
class ChatsFound:
    """Turns of the user's other chats that this prompt quotes, since they asked for them."""

    message_id: str
    seq: int
    turns: tuple[PastChatTurn, ...]
    type: Literal["chats"] = "chats"


@dataclass(frozen=True, slots=True)
class NumberedPassage:
    n: int
    passage: Passage
    place: str


@dataclass(frozen=True, slots=True)
class EvidenceFound:
    """The passages in the prompt; empty when nothing matched, and `searched` false where the prompt does not speak of
    sources then. `dropped` did not fit; `unread` files of its folders were still being read."""

    message_id: str
    seq: int
    passages: tuple[NumberedPassage, ...]
    folders: tuple[str, ...]
    generation: int
    dropped: int
    unread: int
    searched: bool
    type: Literal["evidence"] = "evidence"


@dataclass(frozen=True, slots=True)
class SectionSize:
    name: SectionName
    tokens: int


@dataclass(frozen=True, slots=True)
class PromptComposed:
    """The prompt's size by section, and the adapter that answers it; its text is at /api/messages/{id}/prompt."""

    message_id: str
    seq: int
    sections: tuple[SectionSize, ...]
    tokens: int
    context_length: int
    trimmed_turns: int
    trimmed_evidence: int
    adapter: str | None
    type: Literal["prompt"] = "prompt"


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something the user should know of this answer. `without_adapter`: its adapter could not be used."""

    message_id: str
    seq: int
    text: str
    without_adapter: bool = False
    type: Literal["notice"] = "notice"


@dataclass(frozen=True, slots=True)
class InQueue:
    message_id: str
    seq: int
    position: int
    type: Literal["queued"] = "queued"


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    message_id: str
    seq: int
    text: str
    type: Literal["reasoning"] = "reasoning"


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    message_id: str
    seq: int
    text: str
    type: Literal["token"] = "token"


@dataclass(frozen=True, slots=True)
class Cited:
    """Citations of the finished answer, as they are shown. `invalid` numbers point to no passage; `checks` say of each
    sentence what supports it."""

    message_id: str
    seq: int
    citations: tuple[Citation, ...]
    invalid: tuple[int, ...]
    checks: tuple[SentenceCheck, ...]
    type: Literal["citations"] = "citations"


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is complete and stored."""

    message_id: str
    seq: int
    finish_reason: Literal["stop", "length", "cancelled"]
    usage: Usage
    tokens_per_second: float
    type: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class MemorySaved:
    """Comes after `done`: what was saved from the user's message."""

    message_id: str
    seq: int
    memories: tuple[Memory, ...]
    type: Literal["memory_saved"] = "memory_saved"


@dataclass(frozen=True, slots=True)
class Mention:
    """A chat in which so many messages still mention what was deleted, in words of their own."""

    conversation_id: str
    title: str
    messages: int


@dataclass(frozen=True, slots=True)
class MemoryForgotten:
    """What the user asked to forget, as it was; it is deleted, and shown here once. `mentions`: the chats that still
    mention it in other words."""

    message_id: str
    seq: int
    memories: tuple[Memory, ...]
    mentions: tuple[Mention, ...] = ()
    type: Literal["memory_forgotten"] = "memory_forgotten"


@dataclass(frozen=True, slots=True)
class HeldBackItem:
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryHeldBack:
    """Comes after `done`: not saved, since it looks like a secret or an instruction to the model."""

    message_id: str
    seq: int
    items: tuple[HeldBackItem, ...]
    type: Literal["memory_held_back"] = "memory_held_back"


@dataclass(frozen=True, slots=True)
class Failed:
    """The turn ended without an answer; the user's message is kept."""

    message_id: str
    seq: int
    code: str
    message: str
    type: Literal["error"] = "error"


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more comes for this answer."""

    message_id: str
    seq: int
    type: Literal["closed"] = "closed"


TurnEvent = (
    Started
    | Routed
    | MemoriesUsed
    | ChatsFound
    | EvidenceFound
    | PromptComposed
    | Noticed
    | InQueue
    | ReasoningDelta
    | AnswerDelta
    | Cited
    | Done
    | MemorySaved
    | MemoryForgotten
    | MemoryHeldBack
    | Failed
    | Closed
)

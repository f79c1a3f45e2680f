"""What is stored of a chat: the conversation, its messages, and all that made an answer. Frozen, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from server.chat.events import SectionSize
from server.grounding import Citation, SentenceCheck
from server.types import (
    Compaction,
    Memory,
    Message,
    PromptSection,
    RouteDecision,
    TurnContext,
    Usage,
)


class Status(StrEnum):
    COMPLETE = "complete"
    STREAMING = "streaming"
    STOPPED = "stopped"  # by the user
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # the server ended while it was written


@dataclass(frozen=True, slots=True)
class Conversation:
    """`domain` is the user's choice; None: auto."""

    id: str
    title: str
    domain: str | None
    created_at: float
    updated_at: float
    temporary: bool = False  # reaches no memory, and is deleted when the server starts
    revision: int = 0  # counts what changed of it


@dataclass(frozen=True, slots=True)
class ErrorNote:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """The prompt's size by section, and what the token budget trimmed."""

    sections: tuple[SectionSize, ...]
    tokens: int
    context_length: int
    trimmed_turns: int
    trimmed_evidence: int


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """What made an answer and what came of it; all empty at first. Stored as JSON by its field names."""

    reasoning: str = ""
    route: RouteDecision | None = None
    domain: str | None = None
    domain_title: str = ""
    adapter: str | None = None
    context: TurnContext = field(default_factory=TurnContext)
    folders: tuple[str, ...] = ()
    generation: int | None = None
    dropped: int = 0  # passages that did not fit
    prompt: PromptSummary | None = None
    compaction: Compaction = field(default_factory=Compaction)
    citations: tuple[Citation, ...] = ()
    invalid_citations: tuple[int, ...] = ()
    checks: tuple[SentenceCheck, ...] = ()  # empty where nothing was searched, and in answers of old
    memories_saved: tuple[Memory, ...] = ()
    memories_edited: tuple[Memory, ...] = ()  # shown earlier in the chat, with the text that this prompt gave them
    command: str = ""  # the memory command that the server answered: "tell", "forget", "ask to erase", "refused"
    memories_told: tuple[Memory, ...] = ()  # in the answer to "tell"
    memories_forgotten: int = 0  # only how many: their text is gone
    usage: Usage | None = None
    finish_reason: str | None = None
    notice: str = ""
    error: ErrorNote | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """`answer` is set for role 'assistant'."""

    id: str
    conversation_id: str
    parent_id: str | None
    role: str
    text: str
    created_at: float
    status: Status
    answer: AnswerRecord | None


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """What the model saw, by section and as messages."""

    sections: tuple[PromptSection, ...]
    messages: tuple[Message, ...]
    tokens: int
    context_length: int

"""The turn pipeline, conversations and durable streams. Knows nothing of HTTP, sockets or sessions."""

from server.chat.conversations import user_rows
from server.chat.conversations.past_chats import PastChats
from server.chat.conversations.records import AnswerRecord, Conversation, PromptRecord, StoredMessage
from server.chat.conversations.redaction import RedactionCounts
from server.chat.conversations.store import ConversationStore
from server.chat.conversations.tables import MIGRATIONS as CHAT_MIGRATIONS
from server.chat.events import EvidenceFound, Mention, TurnEvent
from server.chat.memory_commands.access import DeletionReceipt, EnabledMemory
from server.chat.service import NEWEST, ChatService, MemoryDependencies, Unchanged
from server.chat.turn.context import decide_domain, gather_context, number_passages, redact_inaccessible
from server.chat.turn.language_cost import LanguageCost
from server.chat.turn.pipeline import Answer, Finished, TextDelta, Turn, TurnPipeline, WithoutAdapter
from server.chat.turn.runner import TurnDependencies
from server.chat.turn.streams import TurnStream
from server.chat.turn.traces import MIGRATIONS as TRACE_MIGRATIONS
from server.chat.turn.traces import AnswerTrace, TraceStore, answer_trace

__all__ = [
    "CHAT_MIGRATIONS",
    "NEWEST",
    "TRACE_MIGRATIONS",
    "Answer",
    "AnswerRecord",
    "AnswerTrace",
    "ChatService",
    "Conversation",
    "ConversationStore",
    "DeletionReceipt",
    "EnabledMemory",
    "EvidenceFound",
    "Finished",
    "LanguageCost",
    "MemoryDependencies",
    "Mention",
    "PastChats",
    "PromptRecord",
    "RedactionCounts",
    "StoredMessage",
    "TextDelta",
    "TraceStore",
    "Turn",
    "TurnDependencies",
    "TurnEvent",
    "TurnPipeline",
    "TurnStream",
    "Unchanged",
    "WithoutAdapter",
    "answer_trace",
    "decide_domain",
    "gather_context",
    "number_passages",
    "redact_inaccessible",
    "user_rows",
]

"""The turn pipeline, conversations and durable streams."""

from server.chat.conversations.past_chats import PastChats
from server.chat.conversations.records import AnswerRecord, Conversation, PromptRecord, StoredMessage
from server.chat.conversations.redaction import Cleaned
from server.chat.conversations.store import ConversationStore
from server.chat.events import EvidenceFound, TurnEvent
from server.chat.memory_commands.access import Receipt, RememberingChat
from server.chat.service import NEWEST, ChatService, Keep, Remembering
from server.chat.turn.context import gather, still_allowed
from server.chat.turn.pipeline import Answer, Finished, Piece, Turn, TurnPipeline, WithoutAdapter
from server.chat.turn.runner import Parts, numbered
from server.chat.turn.traces import AnswerTrace, TraceStore, trace_of

__all__ = [
    "NEWEST",
    "Answer",
    "AnswerRecord",
    "AnswerTrace",
    "ChatService",
    "Cleaned",
    "Conversation",
    "ConversationStore",
    "EvidenceFound",
    "Finished",
    "Keep",
    "Parts",
    "PastChats",
    "Piece",
    "PromptRecord",
    "Receipt",
    "Remembering",
    "RememberingChat",
    "StoredMessage",
    "TraceStore",
    "Turn",
    "TurnEvent",
    "TurnPipeline",
    "WithoutAdapter",
    "gather",
    "numbered",
    "still_allowed",
    "trace_of",
]

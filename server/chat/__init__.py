"""The turn pipeline, conversations and durable streams."""

from server.chat.citations import checked, find_citations, shown_text
from server.chat.conversations import ConversationStore
from server.chat.events import EvidenceFound, SentenceCheck, TurnEvent, Verdict
from server.chat.gather import gather, still_allowed
from server.chat.past import PastChats
from server.chat.records import AnswerRecord, Conversation, PromptRecord, StoredMessage
from server.chat.redaction import Cleaned
from server.chat.remembering import Receipt, RememberingChat
from server.chat.runner import Parts, numbered
from server.chat.service import NEWEST, ChatService, Keep, Remembering
from server.chat.traces import AnswerTrace, TraceStore, trace_of
from server.chat.turn import Answer, Finished, Piece, Turn, TurnPipeline, WithoutAdapter

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
    "SentenceCheck",
    "StoredMessage",
    "TraceStore",
    "Turn",
    "TurnEvent",
    "TurnPipeline",
    "Verdict",
    "WithoutAdapter",
    "checked",
    "find_citations",
    "gather",
    "numbered",
    "shown_text",
    "still_allowed",
    "trace_of",
]

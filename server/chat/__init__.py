"""The turn pipeline, conversations and durable streams."""

from server.chat.citations import find_citations
from server.chat.conversations import AnswerRecord, Conversation, ConversationStore, PromptRecord, StoredMessage
from server.chat.events import TurnEvent
from server.chat.gather import gather
from server.chat.runner import Parts, numbered
from server.chat.service import NEWEST, ChatService, Keep
from server.chat.turn import Answer, Finished, Piece, Turn, TurnPipeline, WithoutAdapter

__all__ = [
    "NEWEST",
    "Answer",
    "AnswerRecord",
    "ChatService",
    "Conversation",
    "ConversationStore",
    "Finished",
    "Keep",
    "Parts",
    "Piece",
    "PromptRecord",
    "StoredMessage",
    "Turn",
    "TurnEvent",
    "TurnPipeline",
    "WithoutAdapter",
    "find_citations",
    "gather",
    "numbered",
]

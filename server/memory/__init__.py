"""Memory: what a user said about themselves, kept for that user alone."""

from server.memory.episodes import Episode, Episodes
from server.memory.store import MemoryStore, UserMemory

__all__ = ["Episode", "Episodes", "MemoryStore", "UserMemory"]

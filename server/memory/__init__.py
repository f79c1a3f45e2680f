"""Memory: what a user said about themselves, kept for that user alone."""

from server.memory.store import MemoryStore, UserMemory

__all__ = ["MemoryStore", "UserMemory"]

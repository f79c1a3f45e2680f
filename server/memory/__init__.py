"""Memory: what a user said about themselves, kept for that user alone."""

from server.memory.commands import Forget, Tell, command
from server.memory.dates import span
from server.memory.episodes import Episode, Episodes
from server.memory.findings import Finding
from server.memory.queue import DeadLetter
from server.memory.reading import clean
from server.memory.rules import extract, held_back
from server.memory.store import MemoryStore, UserMemory
from server.memory.writer import MemoryWriter

__all__ = [
    "DeadLetter", "Episode", "Episodes", "Finding", "Forget", "MemoryStore", "MemoryWriter", "Tell", "UserMemory",
    "clean", "command", "extract", "held_back", "span",
]  # fmt: skip

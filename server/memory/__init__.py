"""Memory: what a user said about themselves, kept for that user alone. Knows nothing of prompts, chats or HTTP."""

from server.memory.episodes.episodes import MIGRATIONS as EPISODE_MIGRATIONS
from server.memory.episodes.episodes import Episode, Episodes
from server.memory.facts.findings import Finding
from server.memory.facts.rules import extract, extract_held_back
from server.memory.model_pass.queue import MIGRATIONS as QUEUE_MIGRATIONS
from server.memory.model_pass.queue import DeadLetter
from server.memory.model_pass.writer import MemoryWriter
from server.memory.reading.commands import ForgetCommand, ListCommand, parse_command
from server.memory.reading.dates import named_period
from server.memory.reading.own_words import clean
from server.memory.store.store import MemoryStore, UserMemory
from server.memory.store.table import MIGRATIONS as MEMORY_MIGRATIONS
from server.memory.store.wording import Wording
from server.memory.user_rows import erase_user, export_user, make_tables

__all__ = [
    "EPISODE_MIGRATIONS", "MEMORY_MIGRATIONS", "QUEUE_MIGRATIONS",
    "DeadLetter", "Episode", "Episodes", "Finding", "ForgetCommand", "ListCommand", "MemoryStore", "MemoryWriter",
    "UserMemory", "Wording", "clean", "erase_user", "export_user", "extract", "extract_held_back", "make_tables",
    "named_period", "parse_command",
]  # fmt: skip

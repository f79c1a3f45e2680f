"""Recall: the profile always, the rest through the relevance gate, from an index in RAM per user.

An index is brought up to date before each recall, whichever process wrote: the table counts each user's writes. The
least recently used indexes are evicted. Indexes hold no texts: what is shown is read from the table.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection

from server.config import MemorySettings
from server.database import Database
from server.memory.reading.own_words import clean
from server.memory.recall.relevance import parse_query
from server.memory.recall.user_index import UserIndex
from server.memory.recall.vectors import MemoryEmbedder
from server.types import UserId

MAX_CACHED_MEMORIES = 50_000  # memories in all indexes together; 384 numbers each are 75 MB


class UserIndexCache:
    """An LRU cache of `UserIndex`, bounded by the memories in it. Any thread may call it."""

    def __init__(self, database: Database, embedder: MemoryEmbedder, settings: MemorySettings) -> None:
        self._database = database
        self._embedder = embedder
        self._settings = settings
        self._indexes: OrderedDict[UserId, UserIndex] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, user: UserId, question: str, *, exclude: Collection[int], now: float) -> dict[int, str]:
        """Ids with what admitted each, the profile first."""
        query = parse_query(clean(question))
        limit = self._settings.recall
        index = self._index_of(user)
        vector = None
        with index.lock:
            index.sync(self._database, user, self._embedder)
            profile = index.profile(now)[:limit]
            if limit and index.has_other_than(profile):
                vector = self._embedder.embed_query(query.text)
        with index.lock:
            found = index.relevant(
                query, vector, self._embedder, self._settings.min_likelihood, {*profile, *exclude}, now
            )
        self._evict(user)
        shown = [memory_id for memory_id in profile if memory_id not in exclude]
        shown = shown[: max(limit - len(found), limit - limit // 2)]
        best = [*found.items()][: limit - len(shown)]
        return dict.fromkeys(shown, "profile") | dict(best)

    def drop(self, user: UserId) -> None:
        with self._lock:
            self._indexes.pop(user, None)

    def _index_of(self, user: UserId) -> UserIndex:
        with self._lock:
            index = self._indexes.setdefault(user, UserIndex())
            self._indexes.move_to_end(user)
            return index

    def _evict(self, user: UserId) -> None:
        """Drops the least recently used indexes, never this user's."""
        with self._lock:
            cached = sum(len(index) for index in self._indexes.values())
            while cached > MAX_CACHED_MEMORIES and next(iter(self._indexes), user) != user:
                cached -= len(self._indexes.popitem(last=False)[1])

"""Finds what belongs beside a question: the profile always, the rest through a gate, from an index in memory per user.

An index takes in what was written since it was last asked, by whatever process: the table counts each user's writes.
The least recently asked users' indexes are dropped. Indexes hold no texts: what is shown is read from the table.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection

from server.config import MemorySettings
from server.database import Database
from server.memory.reading.own_words import clean
from server.memory.recall.relevance import read
from server.memory.recall.user_index import Index
from server.memory.recall.vectors import Vectors
from server.types import UserId

MOST_HELD = 50_000  # memories in all indexes together; 384 numbers each are 75 MB


class Indexes:
    """Those of the users who asked last. Any thread may call it."""

    def __init__(self, database: Database, vectors: Vectors, settings: MemorySettings) -> None:
        self._database = database
        self._vectors = vectors
        self._settings = settings
        self._held: OrderedDict[UserId, Index] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, user: UserId, question: str, *, exclude: Collection[int], now: float) -> dict[int, str]:
        """Ids with what let each in, the profile first."""
        wanted = read(clean(question))
        room = self._settings.recall
        index = self._of(user)
        vector = None
        with index.lock:
            index.sync(self._database, user, self._vectors)
            profile = index.profile(now)[:room]
            if room and index.has_other_than(profile):
                vector = self._vectors.one(wanted.text)
        with index.lock:
            found = index.relevant(wanted, vector, self._settings.min_similarity, {*profile, *exclude}, now)
        self._trim(user)
        shown = [memory_id for memory_id in profile if memory_id not in exclude]
        shown = shown[: max(room - len(found), room - room // 2)]
        best = [*found.items()][: room - len(shown)]
        return dict.fromkeys(shown, "profile") | dict(best)

    def drop(self, user: UserId) -> None:
        with self._lock:
            self._held.pop(user, None)

    def _of(self, user: UserId) -> Index:
        with self._lock:
            index = self._held.setdefault(user, Index())
            self._held.move_to_end(user)
            return index

    def _trim(self, user: UserId) -> None:
        """Drops the indexes that were asked longest ago, never this one."""
        with self._lock:
            held = sum(len(index) for index in self._held.values())
            while held > MOST_HELD and next(iter(self._held), user) != user:
                held -= len(self._held.popitem(last=False)[1])

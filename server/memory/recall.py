"""Finds what belongs beside a question among one user's memories."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from server.config import MemorySettings
from server.database import Database
from server.memory.findings import ADDRESS, NAME
from server.memory.reading import clean
from server.memory.relevance import MIN_OVERLAP, excerpt, overlap, terms
from server.memory.table import Row, Table, is_over
from server.memory.vectors import Vectors
from server.types import MemoryKind, UserId

PROFILE_SLOTS = ("language", "speech level", ADDRESS, NAME)


class Indexes:
    def __init__(self, database: Database, vectors: Vectors, settings: MemorySettings) -> None:
        self._database = database
        self._vectors = vectors
        self._settings = settings

    def recall(self, table: Table, question: str, *, exclude: Collection[int], now: float) -> dict[int, str]:
        """Ids with what let each in."""
        room = self._settings.recall
        rows = [row for row in table.everything(self._database.connection()) if not is_over(row, now)]
        profile = [row for row in in_profile_order(rows) if in_profile(row)][:room]
        always = {row["id"] for row in profile}
        text = clean(excerpt(question))
        asked, dense = terms(text), self._vectors.one(text)
        found: dict[int, tuple[float, str]] = {}
        for row in rows:
            if row["id"] in always or row["id"] in exclude:
                continue
            words = overlap(asked, terms(row["text"]))
            meaning = 0.0
            if row["vector"] and dense is not None:
                meaning = float(np.frombuffer(row["vector"], np.float32) @ dense)
            if words >= MIN_OVERLAP or meaning >= self._settings.min_similarity:
                found[row["id"]] = max(words, meaning), "words" if words >= meaning else "meaning"
        best = sorted(found, key=lambda memory_id: -found[memory_id][0])[:room]
        shown = [row["id"] for row in profile if row["id"] not in exclude]
        shown = shown[: max(room - len(best), room - room // 2)]
        return dict.fromkeys(shown, "profile") | {
            memory_id: found[memory_id][1] for memory_id in best[: room - len(shown)]
        }

    def drop(self, user: UserId) -> None:
        """Forgets the user's."""


def in_profile(row: Row) -> bool:
    return not row["subject"] and (row["slot"] in PROFILE_SLOTS or row["kind"] == MemoryKind.INSTRUCTION)


def in_profile_order(rows: Sequence[Row]) -> list[Row]:
    """The profile first, then the rest; each as it came."""
    def place(row: Row) -> int:
        if not in_profile(row):
            return len(PROFILE_SLOTS) + 1
        return PROFILE_SLOTS.index(row["slot"]) if row["slot"] in PROFILE_SLOTS else len(PROFILE_SLOTS)

    return sorted(rows, key=place)

"""One user's memories as they are looked through: vectors in one matrix, places by word and by slot. Holds no texts.

`sync` takes in what has changed since the last one. The caller holds `lock` for every method.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlite_utils import Database as Connection

from server.database import Database
from server.errors import StorageFull
from server.memory.recall.profile import REST, profile_place
from server.memory.recall.relevance import Question, Unit, admitted, common_weight, terms
from server.memory.recall.vectors import Vectors
from server.types import UserId

STALE_AT_ONCE = 64  # vectors of another embedder made anew in one go; the others wait for the next question
FIRST_ROOM = 64
PAST_FIRST = 1.0  # what was so goes before what is, where the past is asked for
ASKED_FIRST = 2.0
RECENT = 0.03  # what a memory of today scores above one of long ago
HALF_LIFE_S = 90 * 86_400.0
_COLUMNS = "id, kind, text, slot, subject, valid_to, ended_at, superseded_by, updated_at, vector, embedder, revision"


class Index:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._revision = self._deleted = self._size = self._dead = 0
        self._clear("", 0, 0)

    def __len__(self) -> int:
        return self._size

    def sync(self, database: Database, user: UserId, vectors: Vectors) -> None:
        db = database.connection()
        state = db.execute("SELECT epoch, revision, deleted FROM memory_users WHERE user_id = ?", [user]).fetchone()
        epoch, revision, deleted = state or (0, 0, 0)
        if (vectors.fingerprint, epoch) != (self._fingerprint, self._epoch) or self._dead > self._size // 2:
            self._clear(vectors.fingerprint, vectors.dimension, epoch)
        if deleted != self._deleted:
            for memory_id in self._gone(db, user, deleted):
                self._remove(memory_id)
            self._deleted = deleted
        if revision != self._revision:
            self._read(db, user)
            self._revision = revision
        if self._stale:
            self._renew(database, user, vectors)

    def profile(self, now: float) -> list[int]:
        """Ids of the profile in its order, the latest of equals first."""
        held = [at for at in self._profile if not self._replaced[at] and self._end[at] > now]
        held.sort(key=lambda at: (self._profile[at], -self._updated[at], -self._ids[at]))
        return [int(self._ids[at]) for at in held]

    def has_other_than(self, ids: Collection[int]) -> bool:
        return len(self._places) > len(ids)

    def relevant(
        self, question: Question, vector: NDArray[np.float32] | None, least: float, skip: Collection[int], now: float
    ) -> dict[int, str]:
        """Ids of what the gate lets in with what let it in, best first, without `skip`."""
        size, asked = self._size, question.asked
        over = self._replaced[:size] | (self._end[:size] <= now)
        open_to = self._alive[:size].copy() if asked.past else self._alive[:size] & ~over
        for memory_id in skip:
            if memory_id in self._places:
                open_to[self._places[memory_id]] = False
        shares, strong = self._shares(question.units)
        cosines = np.zeros(size, np.float32) if vector is None else self._matrix[:size] @ vector
        known = self._known[:size] & (vector is not None)
        passed, scores = admitted(cosines, shares, strong, known, open_to, own=asked.own, least=least)
        by_meaning = cosines >= shares
        called = np.zeros(size, bool)
        for slot in asked.slots:
            called[[*self._slots.get(slot, ())]] = True
        found = np.flatnonzero(passed | (called & open_to))
        age = np.maximum(0.0, now - self._updated[found])
        order = scores[found] + RECENT * np.exp2(-age / HALF_LIFE_S) + ASKED_FIRST * called[found]
        order += PAST_FIRST * (over[found] & asked.past)
        found = found[np.lexsort((-self._ids[found], -order))]
        return {
            int(self._ids[at]): "asked" if called[at] else "meaning" if by_meaning[at] else "words" for at in found
        }

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _clear(self, fingerprint: str, dimension: int, epoch: int) -> None:
        self._fingerprint, self._dimension, self._epoch = fingerprint, dimension, epoch
        self._deleted = self._size = self._dead = 0
        self._revision = -1  # rows of before the count began have 0
        self._matrix: NDArray[np.float32] = np.zeros((FIRST_ROOM, dimension), np.float32)
        self._ids: NDArray[np.int64] = np.zeros(FIRST_ROOM, np.int64)
        self._end: NDArray[np.float64] = np.zeros(FIRST_ROOM)
        self._updated: NDArray[np.float64] = np.zeros(FIRST_ROOM)
        self._alive, self._replaced, self._known = (np.zeros(FIRST_ROOM, bool) for _ in range(3))
        self._places: dict[int, int] = {}
        self._words: dict[int, frozenset[str]] = {}
        self._postings: defaultdict[str, set[int]] = defaultdict(set)
        self._slots: defaultdict[str, set[int]] = defaultdict(set)
        self._profile: dict[int, int] = {}
        self._stale: dict[int, str] = {}

    def _gone(self, db: Connection, user: UserId, deleted: int) -> list[int]:
        """Ids that went since the last look: from the list of the last ones, or by comparing all."""
        last = "SELECT memory_id FROM memories_gone WHERE user_id = ? AND number > ? AND number <= ?"
        gone = [row[0] for row in db.execute(last, [user, self._deleted, deleted])]
        if len(gone) == deleted - self._deleted:
            return gone
        there = {row[0] for row in db.execute("SELECT id FROM memories WHERE user_id = ?", [user])}
        return [memory_id for memory_id in self._places if memory_id not in there]

    def _read(self, db: Connection, user: UserId) -> None:
        cursor = db.conn.cursor()
        cursor.row_factory = sqlite3.Row
        changed = f"SELECT {_COLUMNS} FROM memories WHERE user_id = ? AND revision > ? ORDER BY id"
        for row in cursor.execute(changed, [user, self._revision]):
            self._remove(row["id"])
            self._put(row)

    def _put(self, row: Mapping[str, Any] | sqlite3.Row) -> None:
        at = self._size
        if at == len(self._ids):
            self._grow()
        self._size += 1
        end = row["valid_to"] if row["valid_to"] is not None else row["ended_at"]
        self._ids[at], self._updated[at] = row["id"], row["updated_at"]
        self._end[at] = math.inf if end is None else end
        self._alive[at], self._replaced[at] = True, row["superseded_by"] is not None
        self._places[row["id"]] = at
        self._words[at] = terms(f"{row['text']} {row['subject']}")
        for word in self._words[at]:
            self._postings[word].add(at)
        if row["slot"] and not row["subject"]:
            self._slots[row["slot"]].add(at)
        place = profile_place(row)  # type: ignore[arg-type]  # sqlite3.Row reads like a mapping
        if place < REST:
            self._profile[at] = place
        if row["embedder"] == self._fingerprint:
            self._set_vector(at, row["vector"])
        else:
            self._stale[row["id"]] = row["text"]

    def _remove(self, memory_id: int) -> None:
        at = self._places.pop(memory_id, None)
        if at is None:
            return
        self._alive[at] = False
        self._dead += 1
        for word in self._words.pop(at):
            self._postings[word].discard(at)
        for held in self._slots.values():
            held.discard(at)
        self._profile.pop(at, None)
        self._stale.pop(memory_id, None)

    def _set_vector(self, at: int, vector: bytes | None) -> None:
        self._known[at] = bool(vector)
        if vector:
            self._matrix[at] = np.frombuffer(vector, np.float32)

    def _grow(self) -> None:
        room = 2 * len(self._ids)
        for name in ("_matrix", "_ids", "_end", "_updated", "_alive", "_replaced", "_known"):
            old = getattr(self, name)
            new = np.zeros((room, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def _renew(self, database: Database, user: UserId, vectors: Vectors) -> None:
        """Vectors of this embedder for memories that have another's; the latest first."""
        now = dict(sorted(self._stale.items(), reverse=True)[:STALE_AT_ONCE])
        made = dict(zip(now, vectors.of([*now.values()]), strict=True))
        for memory_id, vector in made.items():
            self._set_vector(self._places[memory_id], vector)
            del self._stale[memory_id]
        with suppress(StorageFull), database.transaction() as db:  # they are made anew the next time, then
            for memory_id, vector in made.items():  # the text as read: an edit in between has a vector of its own
                db.execute(
                    "UPDATE memories SET vector = ?, embedder = ? WHERE user_id = ? AND id = ? AND text = ?",
                    [vector, self._fingerprint, user, memory_id, now[memory_id]],
                )

    def _shares(self, units: Sequence[Unit]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """How much of the question's words each memory has, and whether one of them says something by itself."""
        shares, strong = np.zeros(self._size, np.float32), np.zeros(self._size, bool)
        total = 0.0
        for unit in units:
            lists = [self._postings.get(term, set()) for term in unit.terms]
            places = set.intersection(*sorted(lists, key=len)) | self._postings.get(unit.also, set())
            weight = common_weight(unit.weight, len(places), len(self._places))
            total += weight
            if places:
                at = np.fromiter(places, np.int64, len(places))
                shares[at] += weight
                strong[at] |= unit.weight >= 1
        return (shares / total if total else shares), strong

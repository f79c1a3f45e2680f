"""The index of one user's memories: vectors in one matrix, postings by word and by slot. Holds no texts.

A memory has a row in every array; `sync` reads what has changed in the table since the last one, and a deleted or
changed memory leaves a tombstone until the index is built anew. The caller holds `lock` for every method.
Knows nothing of how memories are written or of prompts.
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
from server.memory.recall.profile import NOT_IN_PROFILE, profile_rank
from server.memory.recall.relevance import QueryWord, RecallQuery, common_weight, memory_terms, relevance_gate
from server.memory.recall.vectors import MemoryEmbedder
from server.types import UserId
from server.words import script_number

REEMBED_BATCH = 64  # vectors of another embedder recomputed at once; the others wait for the next recall
INITIAL_CAPACITY = 64
EXPIRED_BOOST = 1.0  # where the past is asked for, what was so comes before what is
SLOT_BOOST = 2.0  # what the question asks for outright comes first
RECENCY_WEIGHT = 0.03  # what a memory of today scores above one of long ago
RECENCY_HALF_LIFE_S = 90 * 86_400.0
_COLUMNS = (
    "id, kind, text, slot, subject, valid_to, ended_at, over, superseded_by, updated_at, sequence, vector, embedder, "
    "revision"
)


class UserIndex:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._revision = self._deleted = self._size = self._tombstones = 0
        self._reset("", 0, 0)

    def __len__(self) -> int:
        return self._size

    def sync(self, database: Database, user: UserId, embedder: MemoryEmbedder) -> None:
        db = database.connection()
        state = db.execute("SELECT epoch, revision, deleted FROM memory_users WHERE user_id = ?", [user]).fetchone()
        epoch, revision, deleted = state or (0, 0, 0)
        if (embedder.fingerprint, epoch) != (self._fingerprint, self._epoch) or self._tombstones > self._size // 2:
            self._reset(embedder.fingerprint, embedder.dimension, epoch)
        if deleted != self._deleted:
            for memory_id in self._deleted_ids(db, user, deleted):
                self._remove(memory_id)
            self._deleted = deleted
        if revision != self._revision:
            self._read_changes(db, user)
            self._revision = revision
        if self._stale:
            self._reembed(database, user, embedder)

    def profile(self, now: float) -> list[int]:
        """Ids of the profile in its order, the latest of equals first."""
        rows = [row for row in self._profile_ranks if not self._superseded[row] and self._valid_until[row] > now]
        rows.sort(key=lambda row: (self._profile_ranks[row], -self._sequences[row]))
        return [int(self._ids[row]) for row in rows]

    def has_other_than(self, ids: Collection[int]) -> bool:
        return len(self._row_of) > len(ids)

    def relevant(
        self,
        question: RecallQuery,
        vector: NDArray[np.float32] | None,
        embedder: MemoryEmbedder,
        min_likelihood: float,
        exclude: Collection[int],
        now: float,
    ) -> dict[int, str]:
        """Ids of what the gate admits, with what admitted each, best first, without `exclude`."""
        size, intent = self._size, question.intent
        expired = self._superseded[:size] | (self._valid_until[:size] <= now)
        eligible = self._live[:size].copy() if intent.about_past else self._live[:size] & ~expired
        for memory_id in exclude:
            if memory_id in self._row_of:
                eligible[self._row_of[memory_id]] = False
        overlap, distinctive = self._lexical_overlap(question.words)
        likelihoods, has_vector = np.zeros(size, np.float32), self._has_vector[:size] & (vector is not None)
        if vector is not None:
            crossing = self._scripts[:size] != script_number(question.text)
            likelihoods = embedder.likelihood(self._matrix[:size] @ vector, crossing)
        admitted, scores = relevance_gate(
            likelihoods, overlap, distinctive, has_vector, eligible,
            personal=intent.personal, min_likelihood=min_likelihood,
        )  # fmt: skip
        by_meaning = likelihoods >= overlap
        slot_match = np.zeros(size, bool)
        for slot in intent.slots:
            slot_match[[*self._slots.get(slot, ())]] = True
        found = np.flatnonzero(admitted | (slot_match & eligible))
        found = found[np.argsort(-self._sequences[found])]
        age = np.maximum.accumulate(np.maximum(0.0, now - self._updated_at[found]))  # no newer one counts as older
        order = scores[found] + RECENCY_WEIGHT * np.exp2(-age / RECENCY_HALF_LIFE_S) + SLOT_BOOST * slot_match[found]
        order += EXPIRED_BOOST * (expired[found] & intent.about_past)
        found = found[np.argsort(-order, kind="stable")]
        return {
            int(self._ids[row]): "asked" if slot_match[row] else "meaning" if by_meaning[row] else "words"
            for row in found
        }

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _reset(self, fingerprint: str, dimension: int, epoch: int) -> None:
        self._fingerprint, self._dimension, self._epoch = fingerprint, dimension, epoch
        self._deleted = self._size = self._tombstones = 0
        self._revision = -1  # rows from before revisions were counted have 0
        self._matrix: NDArray[np.float32] = np.zeros((INITIAL_CAPACITY, dimension), np.float32)
        self._ids: NDArray[np.int64] = np.zeros(INITIAL_CAPACITY, np.int64)
        self._valid_until: NDArray[np.float64] = np.zeros(INITIAL_CAPACITY)
        self._updated_at: NDArray[np.float64] = np.zeros(INITIAL_CAPACITY)
        self._sequences: NDArray[np.int64] = np.zeros(INITIAL_CAPACITY, np.int64)
        self._scripts: NDArray[np.uint8] = np.zeros(INITIAL_CAPACITY, np.uint8)
        self._live, self._superseded, self._has_vector = (np.zeros(INITIAL_CAPACITY, bool) for _ in range(3))
        self._row_of: dict[int, int] = {}
        self._terms: dict[int, frozenset[str]] = {}
        self._postings: defaultdict[str, set[int]] = defaultdict(set)
        self._slots: defaultdict[str, set[int]] = defaultdict(set)
        self._profile_ranks: dict[int, int] = {}
        self._stale: dict[int, str] = {}

    def _deleted_ids(self, db: Connection, user: UserId, deleted: int) -> list[int]:
        """Ids deleted since the last sync: from the log of the last ones, or by comparing all."""
        last = "SELECT memory_id FROM memories_gone WHERE user_id = ? AND number > ? AND number <= ?"
        deleted_ids = [record[0] for record in db.execute(last, [user, self._deleted, deleted])]
        if len(deleted_ids) == deleted - self._deleted:
            return deleted_ids
        stored = {record[0] for record in db.execute("SELECT id FROM memories WHERE user_id = ?", [user])}
        return [memory_id for memory_id in self._row_of if memory_id not in stored]

    def _read_changes(self, db: Connection, user: UserId) -> None:
        cursor = db.conn.cursor()
        cursor.row_factory = sqlite3.Row
        changed = f"SELECT {_COLUMNS} FROM memories WHERE user_id = ? AND revision > ? ORDER BY id"
        for record in cursor.execute(changed, [user, self._revision]):
            self._remove(record["id"])
            self._add(record)

    def _add(self, record: Mapping[str, Any] | sqlite3.Row) -> None:
        row = self._size
        if row == len(self._ids):
            self._grow()
        self._size += 1
        end = record["valid_to"] if record["valid_to"] is not None else record["ended_at"]
        self._ids[row], self._updated_at[row] = record["id"], record["updated_at"]
        self._sequences[row] = record["sequence"]
        self._scripts[row] = script_number(record["text"])
        self._valid_until[row] = -math.inf if record["over"] else math.inf if end is None else end
        self._live[row], self._superseded[row] = True, record["superseded_by"] is not None
        self._row_of[record["id"]] = row
        self._terms[row] = memory_terms(f"{record['text']} {record['subject']}")
        for word in self._terms[row]:
            self._postings[word].add(row)
        if record["slot"] and not record["subject"]:
            self._slots[record["slot"]].add(row)
        rank = profile_rank(record)  # type: ignore[arg-type]  # sqlite3.Row reads like a mapping
        if rank < NOT_IN_PROFILE:
            self._profile_ranks[row] = rank
        if record["embedder"] == self._fingerprint:
            self._set_vector(row, record["vector"])
        else:
            self._stale[record["id"]] = record["text"]

    def _remove(self, memory_id: int) -> None:
        row = self._row_of.pop(memory_id, None)
        if row is None:
            return
        self._live[row] = False
        self._tombstones += 1
        for word in self._terms.pop(row):
            self._postings[word].discard(row)
        for rows in self._slots.values():
            rows.discard(row)
        self._profile_ranks.pop(row, None)
        self._stale.pop(memory_id, None)

    def _set_vector(self, row: int, vector: bytes | None) -> None:
        self._has_vector[row] = bool(vector)
        if vector:
            self._matrix[row] = np.frombuffer(vector, np.float32)

    def _grow(self) -> None:
        capacity = 2 * len(self._ids)
        for name in (
            "_matrix",
            "_ids",
            "_valid_until",
            "_updated_at",
            "_sequences",
            "_scripts",
            "_live",
            "_superseded",
            "_has_vector",
        ):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def _reembed(self, database: Database, user: UserId, embedder: MemoryEmbedder) -> None:
        """Recomputes vectors that are another embedder's; the latest memories first."""
        batch = dict(sorted(self._stale.items(), reverse=True)[:REEMBED_BATCH])
        vectors = dict(zip(batch, embedder.embed_memories([*batch.values()]), strict=True))
        for memory_id, vector in vectors.items():
            self._set_vector(self._row_of[memory_id], vector)
            del self._stale[memory_id]
        with suppress(StorageFull), database.transaction() as db:  # then they are recomputed the next time
            # The text as read: an edit in between has a vector of its own.
            for memory_id, vector in vectors.items():
                db.execute(
                    "UPDATE memories SET vector = ?, embedder = ? WHERE user_id = ? AND id = ? AND text = ?",
                    [vector, self._fingerprint, user, memory_id, batch[memory_id]],
                )

    def _lexical_overlap(self, words: Sequence[QueryWord]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(overlap, distinctive): each memory's share of the words, and whether one of them is enough by itself."""
        overlap, distinctive = np.zeros(self._size, np.float32), np.zeros(self._size, bool)
        total = 0.0
        for word in words:
            lists = [self._postings.get(term, set()) for term in word.terms]
            rows = set.intersection(*sorted(lists, key=len)) | self._postings.get(word.alternative, set())
            weight = common_weight(word.weight, len(rows), len(self._row_of))
            total += weight
            if rows:
                at = np.fromiter(rows, np.int64, len(rows))
                overlap[at] += weight
                distinctive[at] |= word.weight >= 1
        return (overlap / total if total else overlap), distinctive

"""The queue of turns that the model is to read, and the dead letters, with their reasons. In SQLite.

A turn leaves the queue when its findings are stored, when its user dismisses it or erases all they have;
never because reading it failed. All methods block; any thread may call them.
Knows nothing of models, or of what a memory is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from server.database import Database
from server.errors import NotFound
from server.types import UserId

MAX_ATTEMPTS = 3
RETRY_AFTER_S = (60.0, 600.0)  # after the first and the second failure
MAX_WAITING = 1_000  # of one user; a turn beyond is dead at once, with that reason
MAX_CHARS = 8_000  # a longer turn is cut: its rest is pasted material
MAX_ID = 2**63 - 1

MIGRATIONS = (
    """
    CREATE TABLE memory_queue (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_id TEXT NOT NULL,
        conversation_id TEXT,
        message_id TEXT,
        text TEXT NOT NULL,
        created_at REAL NOT NULL,
        due REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        dead INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX memory_queue_due ON memory_queue (dead, due);
    CREATE INDEX memory_queue_of_user ON memory_queue (user_id, dead);
    """,
)


@dataclass(frozen=True, slots=True)
class QueuedTurn:
    """A turn that the model is to read; written at `created_at`."""

    id: int
    user_id: UserId
    conversation_id: str | None
    message_id: str | None
    text: str
    created_at: float
    attempts: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A turn that could not be read, and why."""

    id: int
    text: str
    reason: str
    created_at: float
    conversation_id: str | None


class TurnQueue:
    """The turns of all users. Makes its table when built."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate("memory queue", MIGRATIONS)

    def add(self, user_id: UserId, conversation_id: str | None, message_id: str | None, text: str) -> None:
        now = time.time()
        with self._database.transaction() as db:
            count = "SELECT count(*) FROM memory_queue WHERE user_id = ? AND dead = 0"
            full = int(db.execute(count, [user_id]).fetchone()[0]) >= MAX_WAITING
            reason = f"{MAX_WAITING:,} turns were waiting already" if full else ""
            db.execute(
                "INSERT INTO memory_queue (user_id, conversation_id, message_id, text, created_at, due, reason, dead) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [user_id, conversation_id, message_id, text[:MAX_CHARS], now, now, reason, int(full)],
            )

    def next_due(self) -> QueuedTurn | None:
        """The turn that came first of those that are due. It stays in the queue."""
        # Due later than any retry: the clock was set back since.
        query = "SELECT * FROM memory_queue WHERE dead = 0 AND (due <= :now OR due > :now + :most) ORDER BY id LIMIT 1"
        for row in self._database.connection().query(query, {"now": time.time(), "most": RETRY_AFTER_S[-1]}):
            return QueuedTurn(
                row["id"], UserId(row["user_id"]), row["conversation_id"], row["message_id"], row["text"],
                row["created_at"], row["attempts"],
            )  # fmt: skip
        return None

    def seconds_until_due(self) -> float | None:
        """Seconds until a turn is due; None when none waits."""
        row = self._database.connection().execute("SELECT min(due) FROM memory_queue WHERE dead = 0").fetchone()
        return None if row[0] is None else min(max(0.0, float(row[0]) - time.time()), RETRY_AFTER_S[-1])

    def contains(self, turn: QueuedTurn) -> bool:
        """False once its user has dismissed it or erased all."""
        found = self._database.connection().execute("SELECT 1 FROM memory_queue WHERE id = ?", [turn.id]).fetchone()
        return found is not None

    def done(self, turn: QueuedTurn) -> None:
        self._run("DELETE FROM memory_queue WHERE id = ?", [turn.id])

    def failed(self, turn: QueuedTurn, reason: str) -> None:
        """Tried again later; after `MAX_ATTEMPTS` it is dead."""
        attempts = turn.attempts + 1
        dead = attempts >= MAX_ATTEMPTS
        due = time.time() + (0.0 if dead else RETRY_AFTER_S[attempts - 1])
        self._run(
            "UPDATE memory_queue SET attempts = ?, reason = ?, due = ?, dead = ? WHERE id = ?",
            [attempts, reason, due, int(dead), turn.id],
        )

    # ── of one user ──────────────────────────────────────────────────────────────────────────────

    def dead_letters(self, user_id: UserId) -> tuple[DeadLetter, ...]:
        """The latest first."""
        query = "SELECT * FROM memory_queue WHERE user_id = ? AND dead = 1 ORDER BY id DESC"
        return tuple(
            DeadLetter(row["id"], row["text"], row["reason"], row["created_at"], row["conversation_id"])
            for row in self._database.connection().query(query, [user_id])
        )

    def retry(self, user_id: UserId, letter_id: int) -> None:
        """Puts a dead letter back in the queue. Raises NotFound, for another user's too."""
        self._of_user(
            "UPDATE memory_queue SET dead = 0, attempts = 0, reason = '', due = :now WHERE {own}", user_id, letter_id
        )

    def dismiss(self, user_id: UserId, letter_id: int) -> None:
        """Deletes a dead letter. Raises NotFound, for another user's too."""
        self._of_user("DELETE FROM memory_queue WHERE {own}", user_id, letter_id)

    def erase(self, user_id: UserId, *, conversation_id: str | None = None, message_id: str | None = None) -> int:
        """Deletes what waits or is dead of the user, of one chat or of one message; how many there were."""
        query = "DELETE FROM memory_queue WHERE user_id = :user"
        query += "" if conversation_id is None else " AND conversation_id = :conversation"
        query += "" if message_id is None else " AND message_id = :message"
        return self._run(query, {"user": user_id, "conversation": conversation_id, "message": message_id})

    def _of_user(self, query: str, user_id: UserId, letter_id: int) -> None:
        own = "user_id = :user AND id = :id AND dead = 1"
        values = {"user": user_id, "id": letter_id, "now": time.time()}
        if not 0 < letter_id <= MAX_ID or not self._run(query.format(own=own), values):
            raise NotFound(f"no dead letter {letter_id}")

    def _run(self, query: str, values: list[Any] | dict[str, Any]) -> int:
        with self._database.transaction() as db:
            return int(db.execute(query, values).rowcount)

"""The rows of one user's memories in SQLite: every statement names that user.

A row keeps two times: when it holds in the world (`valid_from`, `valid_to`) and when it was written. Which of two is
newer is said by `sequence`, not by a time: a clock may be set back. What was over when it was written stays so
(`over`). A newer answer to the same question (`slot` of one `subject`) supersedes the older one, which stays:
`superseded_by` names the newer, `ended_at` says since when the older is over. Triggers count each user's writes, so
that an index in RAM knows what it has missed, whoever wrote. Functions that change rows need a transaction. Knows
nothing of rules or vectors.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlite_utils import Database as Connection

from server.errors import NotFound
from server.memory.facts.findings import Slot
from server.types import Memory, MemoryKind, UserId

MAX_ID = 2**63 - 1

Row = dict[str, Any]

MIGRATIONS = (
    """
    CREATE TABLE memories (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        quote TEXT NOT NULL,
        conversation_id TEXT,
        message_id TEXT,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        normal TEXT NOT NULL,
        slot TEXT,
        value TEXT,
        superseded_by INTEGER REFERENCES memories (id),
        superseded_at REAL,
        vector BLOB,
        embedder TEXT
    );
    CREATE INDEX memories_of_user ON memories (user_id, superseded_by, updated_at);
    CREATE INDEX memories_superseded ON memories (superseded_by);
    """,
    """
    ALTER TABLE memories ADD COLUMN subject TEXT NOT NULL DEFAULT '';
    ALTER TABLE memories ADD COLUMN valid_from REAL;
    ALTER TABLE memories ADD COLUMN valid_to REAL;
    ALTER TABLE memories ADD COLUMN ended_at REAL;
    ALTER TABLE memories ADD COLUMN starts_at REAL;
    ALTER TABLE memories ADD COLUMN confidence REAL NOT NULL DEFAULT 1.0;
    ALTER TABLE memories ADD COLUMN last_used REAL;
    ALTER TABLE memories ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    UPDATE memories SET ended_at = superseded_at WHERE superseded_by IS NOT NULL;
    CREATE INDEX memories_of_slot ON memories (user_id, slot);
    CREATE INDEX memories_same ON memories (user_id, normal);
    CREATE INDEX memories_revised ON memories (user_id, revision);
    CREATE INDEX memories_starting ON memories (user_id, starts_at) WHERE starts_at IS NOT NULL;
    CREATE INDEX memories_said_in ON memories (user_id, conversation_id);
    CREATE TABLE memory_users (
        user_id TEXT PRIMARY KEY,
        epoch INTEGER NOT NULL DEFAULT (random()),
        revision INTEGER NOT NULL DEFAULT 0,
        deleted INTEGER NOT NULL DEFAULT 0,
        paused INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    INSERT INTO memory_users (user_id) SELECT DISTINCT user_id FROM memories;
    CREATE TRIGGER memories_added AFTER INSERT ON memories BEGIN
        INSERT INTO memory_users (user_id, revision) VALUES (NEW.user_id, 1)
            ON CONFLICT (user_id) DO UPDATE SET revision = revision + 1;
        UPDATE memories SET revision = (SELECT revision FROM memory_users WHERE user_id = NEW.user_id)
            WHERE id = NEW.id;
    END;
    CREATE TRIGGER memories_changed AFTER UPDATE OF kind, text, updated_at, slot, superseded_by, subject,
        valid_from, valid_to, ended_at, starts_at ON memories
    BEGIN
        UPDATE memory_users SET revision = revision + 1 WHERE user_id = NEW.user_id;
        UPDATE memories SET revision = (SELECT revision FROM memory_users WHERE user_id = NEW.user_id)
            WHERE id = NEW.id;
    END;
    CREATE TRIGGER memories_deleted AFTER DELETE ON memories BEGIN
        UPDATE memory_users SET revision = revision + 1, deleted = deleted + 1 WHERE user_id = OLD.user_id;
    END;
    """,
    # Which ids went last, so that an index need not look for them among all.
    """
    CREATE TABLE memories_gone (
        user_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        memory_id INTEGER NOT NULL,
        PRIMARY KEY (user_id, number)
    ) WITHOUT ROWID;
    DROP TRIGGER memories_deleted;
    CREATE TRIGGER memories_deleted AFTER DELETE ON memories BEGIN
        UPDATE memory_users SET revision = revision + 1, deleted = deleted + 1 WHERE user_id = OLD.user_id;
        INSERT OR REPLACE INTO memories_gone
            SELECT user_id, deleted, OLD.id FROM memory_users WHERE user_id = OLD.user_id;
        DELETE FROM memories_gone WHERE user_id = OLD.user_id
            AND number <= (SELECT deleted - 100 FROM memory_users WHERE user_id = OLD.user_id);
    END;
    """,
    "CREATE TABLE memory_domains_off (user_id TEXT NOT NULL, domain TEXT NOT NULL, PRIMARY KEY (user_id, domain))"
    " WITHOUT ROWID;",
    """
    ALTER TABLE memories ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE memories ADD COLUMN over INTEGER NOT NULL DEFAULT 0;
    UPDATE memories SET sequence = ranked.place FROM (
        SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY updated_at, id) AS place FROM memories
    ) AS ranked WHERE ranked.id = memories.id;
    UPDATE memories SET over = 1
        WHERE superseded_by IS NULL AND coalesce(valid_to, ended_at) <= CAST(strftime('%s', 'now') AS REAL);
    CREATE INDEX memories_in_order ON memories (user_id, sequence);
    """,
)

_LATEST = "ORDER BY sequence DESC, id DESC"
_CURRENT = "user_id = :user AND superseded_by IS NULL AND NOT over AND coalesce(valid_to, ended_at, 9e18) > :now"
_SAME_SLOT = "user_id = :user AND slot = :slot AND subject = :subject"


class MemoryTable:
    """The rows of one user, read and changed over a connection that is handed in."""

    def __init__(self, user_id: UserId) -> None:
        self.user = user_id

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def current(self, db: Connection, now: float) -> list[Row]:
        """What is not over, the latest change first; what is yet to begin too."""
        return self._query(db, f"SELECT * FROM memories WHERE {_CURRENT} {_LATEST}", now=now)

    def current_of_slots(self, db: Connection, slots: Sequence[str], now: float) -> list[Row]:
        """The user's own current answers in these slots; few rows, by their index."""
        marks = ", ".join(f"'{slot}'" for slot in slots)
        query = f"SELECT * FROM memories INDEXED BY memories_of_slot WHERE {_CURRENT} AND slot IN ({marks})"
        return self._query(db, f"{query} AND subject = '' {_LATEST}", now=now)

    def all_rows(self, db: Connection) -> list[Row]:
        return self._query(db, f"SELECT * FROM memories WHERE user_id = :user {_LATEST}")

    def of_conversation(self, db: Connection, conversation_id: str) -> list[Row]:
        return self._query(
            db,
            f"SELECT * FROM memories WHERE user_id = :user AND conversation_id = :conversation {_LATEST}",
            conversation=conversation_id,
        )

    def row(self, db: Connection, memory_id: int) -> Row:
        """Raises NotFound, for another user's too."""
        if 0 < memory_id <= MAX_ID:
            for row in self._query(db, "SELECT * FROM memories WHERE user_id = :user AND id = :id", id=memory_id):
                return row
        raise NotFound(f"no memory {memory_id}")

    def rows(self, db: Connection, ids: Iterable[int]) -> dict[int, Row]:
        """Those of the ids that are there."""
        wanted = ", ".join(str(int(memory_id)) for memory_id in ids)
        found = self._query(db, f"SELECT * FROM memories WHERE +user_id = :user AND id IN ({wanted})")
        return {row["id"]: row for row in found}

    def slot_history(self, db: Connection, row: Row) -> list[Row]:
        """All rows of the same slot and subject, the oldest answer first; the row alone where it fills no slot."""
        if row["slot"] is None:
            return [row]
        return self._query(
            db,
            f"SELECT * FROM memories WHERE {_SAME_SLOT} "
            "ORDER BY superseded_by IS NULL AND coalesce(valid_to, ended_at) IS NULL, "
            "coalesce(valid_to, ended_at, 9e18), sequence",
            slot=row["slot"],
            subject=row["subject"],
        )

    def find_expired(self, db: Connection, normal: str, subject: str, now: float) -> Row | None:
        """The expired row that says the same, and that nothing has superseded."""
        rows = self._query(
            db,
            "SELECT * FROM memories WHERE user_id = :user AND superseded_by IS NULL AND normal = :normal "
            f"AND subject = :subject AND (over OR coalesce(valid_to, ended_at) <= :now) {_LATEST}",
            normal=normal,
            subject=subject,
            now=now,
        )
        return rows[0] if rows else None

    def count(self, db: Connection) -> int:
        found = db.execute("SELECT count(*) FROM memories WHERE user_id = ?", [self.user]).fetchone()
        return int(found[0])

    def find_duplicate(self, db: Connection, columns: Mapping[str, Any], now: float) -> Row | None:
        """The current row that says the same as `columns`."""
        key_columns = {key: columns[key] for key in ("normal", "slot", "value", "subject")}
        rows = self._query(
            db,
            "SELECT * FROM memories INDEXED BY memories_same "
            f"WHERE {_CURRENT} AND normal = :normal AND subject = :subject "
            "UNION ALL SELECT * FROM memories INDEXED BY memories_of_slot "
            f"WHERE {_CURRENT} AND slot = :slot AND lower(value) = lower(:value) AND subject = :subject",
            now=now,
            **key_columns,
        )
        return rows[0] if rows else None

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def insert(self, db: Connection, columns: Mapping[str, Any]) -> int:
        full = {**columns, "user_id": self.user, "sequence": self._next(db)}
        names = ", ".join(full)
        values = ", ".join(f":{name}" for name in full)
        return int(db.execute(f"INSERT INTO memories ({names}) VALUES ({values})", full).lastrowid or 0)

    def update(self, db: Connection, memory_id: int, **columns: Any) -> None:
        """With a new `updated_at` the row becomes the latest."""
        if "updated_at" in columns:
            columns["sequence"] = self._next(db)
        names = ", ".join(f"{name} = :{name}" for name in columns)
        db.execute(
            f"UPDATE memories SET {names} WHERE user_id = :user AND id = :id",
            {**columns, "user": self.user, "id": memory_id},
        )

    def supersede(self, db: Connection, slot: Slot, subject: str, by: int, *, now: float, since: float) -> None:
        """Marks the current answers of the slot as superseded by the row `by`; they held until `since`. By the clock
        that is never before an answer ended that they have superseded: the history keeps its order."""
        values = {"user": self.user, "slot": slot.name, "subject": subject, "by": by, "now": now, "since": since}
        if since == now:
            last = db.execute(f"SELECT max(ended_at) FROM memories WHERE {_SAME_SLOT}", values).fetchone()[0]
            values["since"] = max(now, last or now)
        db.execute(
            "UPDATE memories SET superseded_by = :by, superseded_at = :now, "
            "ended_at = coalesce(ended_at, :since) "
            f"WHERE {_SAME_SLOT} AND superseded_by IS NULL AND starts_at IS NULL "
            "AND NOT over AND coalesce(valid_to, 9e18) > :now AND id <> :by",
            values,
        )

    def release_superseded(self, db: Connection, row: Row, now: float) -> None:
        """Unlinks what the row has superseded: it goes to the row's own successor, to another current answer, or
        becomes current again."""
        query = "SELECT * FROM memories WHERE user_id = :user AND superseded_by = :id"
        superseded = self._query(db, query, id=row["id"])
        for old in superseded:
            successor = row["superseded_by"] if old["slot"] == row["slot"] else None
            if successor is None and old["slot"] is not None:
                others = self._query(
                    db,
                    f"SELECT id FROM memories WHERE {_CURRENT} AND slot = :slot AND subject = :subject AND id <> :id",
                    now=now,
                    slot=old["slot"],
                    subject=old["subject"],
                    id=row["id"],
                )
                successor = others[0]["id"] if others else None
            if successor is None:
                self.update(db, old["id"], superseded_by=None, superseded_at=None, ended_at=None)
            else:
                self.update(db, old["id"], superseded_by=successor)

    def delete(self, db: Connection, ids: Iterable[int]) -> None:
        wanted = ", ".join(str(int(memory_id)) for memory_id in ids)
        parameters = {"user": self.user}
        mine = "WHERE +user_id = :user AND"  # the plus: by the ids, not through all of the user's
        db.execute(f"UPDATE memories SET superseded_by = NULL {mine} superseded_by IN ({wanted})", parameters)
        db.execute(f"DELETE FROM memories {mine} id IN ({wanted})", parameters)

    def due_to_start(self, db: Connection, now: float) -> list[Row]:
        """Rows whose `starts_at` has come: they are to replace the current answer."""
        return self._query(
            db,
            "SELECT * FROM memories INDEXED BY memories_starting "
            "WHERE user_id = :user AND starts_at IS NOT NULL AND starts_at <= :now ORDER BY starts_at, id",
            now=now,
        )

    def is_paused(self, db: Connection) -> bool:
        found = db.execute("SELECT paused FROM memory_users WHERE user_id = ?", [self.user]).fetchone()
        return bool(found and found[0])

    def pause(self, db: Connection, on: bool) -> None:
        db.execute(
            "INSERT INTO memory_users (user_id, paused) VALUES (:user, :on) "
            "ON CONFLICT (user_id) DO UPDATE SET paused = :on",
            {"user": self.user, "on": int(on)},
        )

    def domains_off(self, db: Connection) -> frozenset[str]:
        found = self._query(db, "SELECT domain FROM memory_domains_off WHERE user_id = :user")
        return frozenset(row["domain"] for row in found)

    def set_enabled_in(self, db: Connection, domain: str, on: bool) -> None:
        parameters = {"user": self.user, "domain": domain}
        if on:
            db.execute("DELETE FROM memory_domains_off WHERE user_id = :user AND domain = :domain", parameters)
        else:
            db.execute("INSERT OR IGNORE INTO memory_domains_off VALUES (:user, :domain)", parameters)

    def _next(self, db: Connection) -> int:
        """The sequence of what is written now."""
        query = "SELECT coalesce(max(sequence), 0) + 1 FROM memories WHERE user_id = ?"
        return int(db.execute(query, [self.user]).fetchone()[0])

    def _query(self, db: Connection, sql: str, **values: Any) -> list[Row]:
        return [*db.query(sql, {"user": self.user, **values})]


def is_expired(row: Mapping[str, Any], now: float | None = None) -> bool:
    """Superseded, or its time has ended."""
    end = row["valid_to"] if row["valid_to"] is not None else row["ended_at"]
    return (
        row["superseded_by"] is not None
        or bool(row["over"])
        or (end is not None and end <= (time.time() if now is None else now))
    )


def memory_of(row: Mapping[str, Any], why: str = "") -> Memory:
    return Memory(
        id=row["id"],
        kind=MemoryKind(row["kind"]),
        text=row["text"],
        quote=row["quote"],
        conversation_id=row["conversation_id"],
        message_id=row["message_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        subject=row["subject"],
        valid_from=row["valid_from"],
        valid_to=row["valid_to"] if row["valid_to"] is not None else row["ended_at"],
        confidence=row["confidence"],
        last_used=row["last_used"],
        replaced_by=row["superseded_by"],
        why=why,
    )

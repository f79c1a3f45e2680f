"""All that memory keeps of one user: read out for an export, or deleted. Works on the database alone."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database as Connection

from server.database import Database
from server.memory.episodes import episodes
from server.memory.model_pass import queue
from server.memory.store import table, transfer
from server.types import UserId

_QUEUED = "id, conversation_id, message_id, text, created_at, attempts, reason, dead"


def make_tables(database: Database) -> None:
    """Those of every part, where they are not there yet."""
    database.migrate("memory", table.MIGRATIONS)
    database.migrate("memory queue", queue.MIGRATIONS)
    database.migrate("episodes", episodes.MIGRATIONS)


def export_user(db: Connection, user: UserId) -> dict[str, Any]:
    """JSON values by name: the memories with their history and settings, and the messages that wait for the model."""
    rows = table.MemoryTable(user)
    memories = transfer.export(
        rows.all_rows(db), paused=rows.is_paused(db), domains_off=rows.domains_off(db)
    )  # fmt: skip
    queued = db.query(f"SELECT {_QUEUED} FROM memory_queue WHERE user_id = ? ORDER BY id", [user])
    return {"memories": memories, "queued": [row | {"dead": bool(row["dead"])} for row in queued]}


def erase_user(db: Connection, user: UserId) -> dict[str, int]:
    """Deletes it all, settings too; how many there were of what. Inside a transaction."""
    queued = int(db.execute("SELECT count(*) FROM memory_queue WHERE user_id = ?", [user]).fetchone()[0])
    counts = {"episodes": episodes.erase(db, user), "queued": queued, "memories": transfer.erase(db, user)}
    db.execute("DELETE FROM episode_users WHERE user_id = ?", [user])
    return counts

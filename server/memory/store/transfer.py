"""Export and erasure of all that a user has in memory, and the transaction that every change is made in."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlite_utils import Database as Connection

from server.database import Database
from server.memory.facts.findings import Slot
from server.memory.store.table import MemoryTable, Row
from server.types import UserId

FORMAT = "tailor-memories-1"
_NOT_EXPORTED = ("user_id", "vector", "embedder", "normal", "revision", "starts_at", "sequence", "over")


@contextmanager
def write_transaction(database: Database, table: MemoryTable) -> Iterator[Connection]:
    """A transaction that first applies what is due: answers whose `starts_at` has come supersede the ones before."""
    with database.transaction() as db:
        now = time.time()
        for row in table.due_to_start(db, now):
            table.update(db, row["id"], starts_at=None)
            table.supersede(
                db, Slot(row["slot"], row["value"]), row["subject"], row["id"], now=now, since=row["valid_from"]
            )
        yield db


def export(rows: Sequence[Row], *, paused: bool, domains_off: Collection[str]) -> dict[str, Any]:
    """Times are seconds since 1970, UTC; `slot` is the question that one answers, `superseded_by` the newer answer."""
    return {
        "format": FORMAT,
        "exported_at": time.time(),
        "paused": paused,
        "domains_off": sorted(domains_off),
        "memories": [{name: value for name, value in row.items() if name not in _NOT_EXPORTED} for row in rows],
    }


def erase(db: Connection, user: UserId) -> int:
    """In every table of memory that has the user's rows. Inside a transaction."""
    parameters = {"user": user}
    db.execute("UPDATE memories SET superseded_by = NULL WHERE user_id = :user", parameters)
    count = db.execute("DELETE FROM memories WHERE user_id = :user", parameters).rowcount
    for table in ("memory_queue", "memories_gone", "memory_domains_off", "memory_users"):
        if db[table].exists():
            db.execute(f"DELETE FROM {table} WHERE user_id = :user", parameters)
    return int(count)

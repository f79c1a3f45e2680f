"""The one SQLite file: WAL, foreign keys on, numbered migrations for each part.

A part hands its migrations to `migrate` when it is built. A migration that has landed is never
edited; the next one is appended. Connections belong to the thread that asked, so `connection()` may
be called from any thread; a caller on the event loop goes through `asyncio.to_thread`. Knows nothing of any part's
tables.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database as Connection

from server.errors import StorageFull

BUSY_MS = 10_000
SCRUB_MS = 250


class Database:
    """Opens `path` (its folder is made) once for each thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._write = threading.Lock()  # SQLite lets a second writer sleep for up to 100 ms, however short the first is

    def connection(self) -> Connection:
        """This thread's sqlite-utils database."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            raw = sqlite3.connect(self.path, BUSY_MS / 1000, check_same_thread=False, isolation_level=None)
            _write_ahead(raw)
            raw.execute("PRAGMA synchronous = NORMAL")
            raw.execute("PRAGMA foreign_keys = ON")
            raw.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            connection = Connection(raw)
            self._local.connection = connection
            with self._lock:
                self._open.append(raw)
        return connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing; takes the write lock at once, so that two writers queue instead of failing. Inside another
        it is a part of that one. Raises StorageFull where the disk has no room; nothing is written then."""
        connection = self.connection()
        if connection.conn.in_transaction:
            yield connection
            return
        with self._write:
            connection.conn.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.conn.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
                    raise
                raise StorageFull(
                    f"the disk that holds {self.path.name} is full: nothing was saved and nothing was lost; "
                    "free some space and try again"
                ) from error
            finally:
                if connection.conn.in_transaction:  # it was not committed, and a full disk has not rolled it back
                    connection.conn.execute("ROLLBACK")

    def migrate(self, part: str, migrations: Sequence[str]) -> None:
        """Runs those SQL scripts of `part` that this file has not seen, in order, each in a transaction."""
        self.connection().conn.execute(
            "CREATE TABLE IF NOT EXISTS migrations "
            "(part TEXT NOT NULL, number INTEGER NOT NULL, applied_at REAL NOT NULL, PRIMARY KEY (part, number))"
        )
        for number, script in enumerate(migrations, start=1):
            with self.transaction() as db:
                seen = db.conn.execute(
                    "SELECT 1 FROM migrations WHERE part = ? AND number = ?", (part, number)
                ).fetchone()
                if seen:
                    continue
                for statement in _statements(script):
                    db.conn.execute(statement)
                db.conn.execute("INSERT INTO migrations VALUES (?, ?, ?)", (part, number, time.time()))

    def scrub(self) -> None:
        """Moves what was deleted out of the write-ahead log, too, as far as nobody reads it just now."""
        raw = self.connection().conn
        raw.execute(f"PRAGMA busy_timeout = {SCRUB_MS}")
        try:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            raw.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def close(self) -> None:
        with self._lock:
            for raw in self._open:
                raw.close()
            self._open.clear()
        self._local = threading.local()


def _write_ahead(raw: sqlite3.Connection) -> None:
    """Switches to WAL. SQLite does not wait for this lock when two connections want it at once: one is refused."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            raw.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raw.close()
                raise
        time.sleep(0.01)


def _statements(script: str) -> Iterator[str]:
    """Splits at the semicolons that end statements, so that `executescript` cannot commit half-way."""
    pending = ""
    for piece in re.split(r"(?<=;)", script):
        pending += piece
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending

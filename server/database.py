"""The one SQLite file: WAL, foreign keys on, numbered migrations for each part.

A part hands its migrations to `migrate` when it is built. A migration that has landed is never
edited; the next one is appended. Connections belong to the thread that asked, so `connection()` may
be called from any thread; a caller on the event loop goes through `asyncio.to_thread`. Knows nothing of any part's
tables.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database as Connection

from server.errors import StorageFull
from server.private_files import make_private, private_folder

BUSY_MS = 10_000
SCRUB_MS = 250  # that a scrub waits for readers, while writers wait for it
SCRUB_RETRY_S = (0.5, 30.0)  # the first pause before a scrub is tried again, and the longest
_READ_BYTES = 1 << 22


class Database:
    """Opens `path` once for each thread. Its folder is made; both are for the server's account alone."""

    def __init__(self, path: Path) -> None:
        private_folder(path.parent)
        path.touch(mode=0o600)  # SQLite gives its other files the rights of this one
        for beside in ("", "-wal", "-shm"):
            make_private(Path(f"{path}{beside}"))
        self.path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._write = threading.Lock()  # SQLite lets a second writer sleep for up to 100 ms, however short the first is
        self._file: int | None = None  # closed last: closing any handle of the file would drop SQLite's locks on it
        self._unscrubbed: set[str] | None = None  # words of a scrub that is yet to succeed
        self._scrubber: threading.Thread | None = None
        self._closing = threading.Event()

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

    # ── deleted text ─────────────────────────────────────────────────────────────────────────────

    def scrub(self, words: Collection[str] = ()) -> bool:
        """Moves what was deleted out of the write-ahead log. Where one of `words`, deleted texts, still stands in the
        file, that is rewritten: pages that SQLite has divided may keep bytes of rows that moved.

        False: somebody reads the database just now, and a thread goes on until it is done. Inside a transaction it does
        nothing: who began that scrubs after it.
        """
        if self.connection().conn.in_transaction:
            return False
        if not self.unscrubbed and self._scrubbed(words):
            return True
        with self._lock:
            self._unscrubbed = {*(self._unscrubbed or ()), *words}
            if self._scrubber is None and not self._closing.is_set():
                self._scrubber = threading.Thread(target=self._scrub_until_done, name="tailor-scrub", daemon=True)
                self._scrubber.start()
        return False

    @property
    def unscrubbed(self) -> bool:
        """Whether deleted text may still stand in the write-ahead log."""
        return self._unscrubbed is not None

    def _scrubbed(self, words: Collection[str]) -> bool:
        raw = self.connection().conn
        with self._write:
            raw.execute(f"PRAGMA busy_timeout = {SCRUB_MS}")
            try:
                if not _checkpointed(raw):
                    return False
                if self._holds(words):
                    raw.execute("VACUUM")
                    return _checkpointed(raw)
                return True
            except sqlite3.OperationalError:  # locked, or no room to rewrite it: tried again
                return False
            finally:
                raw.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _scrub_until_done(self) -> None:
        pause, longest = SCRUB_RETRY_S
        while not self._closing.wait(pause):
            pause = min(2 * pause, longest)
            with self._lock:
                words = set(self._unscrubbed or ())
            if self._scrubbed(words):
                with self._lock:
                    if self._unscrubbed == words:
                        self._unscrubbed = self._scrubber = None
                        return

    def _holds(self, words: Collection[str]) -> bool:
        """Whether one of the words stands in the file, in a row or not."""
        wanted = [word.encode() for word in words if word]
        if not wanted:
            return False
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        overlap, at, tail = max(map(len, wanted)), 0, b""
        while piece := os.pread(self._file, _READ_BYTES, at):
            if any(word in tail + piece for word in wanted):
                return True
            at, tail = at + len(piece), piece[-overlap:]
        return False

    def close(self) -> None:
        self._closing.set()
        if self._scrubber is not None:
            self._scrubber.join()
        with self._lock:
            for raw in self._open:
                raw.close()
            self._open.clear()
            if self._file is not None:
                os.close(self._file)
                self._file = None
        self._scrubber = self._unscrubbed = None
        self._closing.clear()
        self._local = threading.local()


def _checkpointed(raw: sqlite3.Connection) -> bool:
    """Whether the write-ahead log is empty now."""
    return bool(raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)


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

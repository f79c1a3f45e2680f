"""The one SQLite file: WAL, foreign keys on, numbered migrations for each part.

A part hands its migrations to `migrate` when it is built. A migration that has landed is never
edited; the next one is appended. Connections belong to the thread that asked, so `connection()` may
be called from any thread; a caller on the event loop goes through `asyncio.to_thread`. What SQLite refuses comes as one
of our errors: a full disk, a database that another process holds, a damaged file. Knows nothing of any part's tables.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database as Connection

from server.errors import StorageBusy, StorageError, StorageFull
from server.private_files import make_private, private_folder
from server.reserve import Reserve

BUSY_MS = 5_000  # how long a writer waits for another process
SCRUB_MS = 250  # that a scrub waits for readers, while writers wait for it
SCRUB_RETRY_S = (0.5, 30.0)  # the first pause before a scrub is tried again, and the longest
HELD_ELSEWHERE_S = 0.25  # a writer that waits longer for SQLite's lock waits for another process
MIN_FREE_BYTES = 64 * 1024  # with less on the disk hardly a write fits
MAX_WAITING = 2  # writers that wait for another process; the others are refused, so that threads are left for reads
_READ_BYTES = 1 << 22


class Database:
    """Opens `path` once for each thread. Its folder is made; both are for the server's account alone. `reserve` is what
    deletions may use on a full disk."""

    def __init__(self, path: Path, reserve: Reserve | None = None) -> None:
        private_folder(path.parent)
        path.touch(mode=0o600)  # SQLite gives its other files the rights of this one
        for beside in ("", "-wal", "-shm"):
            make_private(Path(f"{path}{beside}"))
        self.path = path
        self.reserve = reserve
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._write = threading.Lock()  # SQLite lets a second writer sleep for up to 100 ms, however short the first is
        self._file: int | None = None  # closed last: closing any handle of the file would drop SQLite's locks on it
        self._unscrubbed: set[str] | None = None  # words of a scrub that is yet to succeed
        self._scrubber: threading.Thread | None = None
        self._closing = threading.Event()
        self._waiting = 0  # writers before their BEGIN is through
        self._began_at: float | None = None  # the BEGIN of the writer that has the lock

    def connection(self) -> Connection:
        """This thread's sqlite-utils database."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            raw = sqlite3.connect(
                self.path, BUSY_MS / 1000, check_same_thread=False, isolation_level=None, factory=_Connection
            )
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
        it is a part of that one. Raises StorageFull where the disk has no room, StorageBusy where another process holds
        the database; nothing is written then."""
        connection = self.connection()
        if connection.conn.in_transaction:
            yield connection
            return
        if self.reserve is not None and self.reserve.is_closed_to_caller():
            raise _full(self.path)
        self._begin(connection.conn)
        try:
            yield connection
            connection.conn.execute("COMMIT")
        finally:
            try:
                if connection.conn.in_transaction:  # it was not committed, and a full disk has not rolled it back
                    connection.conn.execute("ROLLBACK")
            finally:
                self._write.release()

    def _begin(self, raw: sqlite3.Connection) -> None:
        """Takes the lock of this process, then SQLite's."""
        deadline = time.monotonic() + BUSY_MS / 1000
        with self._lock:
            self._waiting += 1
        try:
            while not self._write.acquire(timeout=HELD_ELSEWHERE_S / 2):
                if self._is_held_elsewhere() and (self._waiting > MAX_WAITING or time.monotonic() > deadline):
                    raise _busy(self.path)
            with ExitStack() as undo:
                undo.callback(self._write.release)
                self._began_at = time.monotonic()
                undo.callback(setattr, self, "_began_at", None)
                raw.execute("BEGIN IMMEDIATE")
                self._began_at = None
                undo.pop_all()
        finally:
            with self._lock:
                self._waiting -= 1

    def _is_held_elsewhere(self) -> bool:
        began_at = self._began_at
        return began_at is not None and time.monotonic() - began_at > HELD_ELSEWHERE_S

    def check_writable(self) -> None:
        """Raises StorageError, soon, where a write would fail now. A writer of this process is no reason."""
        if shutil.disk_usage(self.path.parent).free < MIN_FREE_BYTES:
            raise _full(self.path)
        if self._is_held_elsewhere():
            raise _busy(self.path)
        if self._write.acquire(blocking=False):
            raw = self.connection().conn
            try:
                raw.execute("PRAGMA busy_timeout = 0")
                raw.execute("BEGIN IMMEDIATE")
                raw.execute("ROLLBACK")
            finally:
                raw.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
                self._write.release()

    def migrate(self, part: str, migrations: Sequence[str]) -> None:
        """Runs those SQL scripts of `part` that this file has not seen, in order, each in a transaction. Raises
        StorageError where it has seen more: a newer version wrote it."""
        self.connection().conn.execute(
            "CREATE TABLE IF NOT EXISTS migrations "
            "(part TEXT NOT NULL, number INTEGER NOT NULL, applied_at REAL NOT NULL, PRIMARY KEY (part, number))"
        )
        newest = "SELECT coalesce(max(number), 0) FROM migrations WHERE part = ?"
        if self.connection().conn.execute(newest, (part,)).fetchone()[0] > len(migrations):
            raise StorageError(
                f"{self.path} was written by a newer version of Tailor: use that one, or restore a backup of this one"
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

    def rewrite(self) -> None:
        """Writes the file anew from its live rows, for text that a process deleted which was killed before it had
        looked for it. Raises StorageError where there is no room, or somebody else writes; nothing has changed then."""
        with self._write:
            self.connection().conn.execute("VACUUM")
        self.scrub()

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
            except (sqlite3.OperationalError, StorageError):  # locked, or no room to rewrite it: tried again
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


class _Connection(sqlite3.Connection):
    """Raises our errors where SQLite cannot store or read: every statement goes through here."""

    def execute(self, *args: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*args)
        except sqlite3.DatabaseError as error:
            raise _as_ours(error, self) from error

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        try:
            return super().executemany(*args)
        except sqlite3.DatabaseError as error:
            raise _as_ours(error, self) from error


_CONSEQUENCES = {
    sqlite3.SQLITE_READONLY: "it may only be read: give the server's user the right to write it",
    sqlite3.SQLITE_PERM: "the server's user may not open it: change its owner or its rights",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: look at its folder's rights and at the disk",
    sqlite3.SQLITE_IOERR: "the disk reports an error: look at the system's log",
    sqlite3.SQLITE_CORRUPT: "it is damaged: run 'tailor doctor', and restore a backup",
    sqlite3.SQLITE_NOTADB: "it is no database: run 'tailor doctor', and restore a backup",
}


def _as_ours(error: sqlite3.DatabaseError, raw: sqlite3.Connection) -> Exception:
    """The same error where it is a matter of the statement."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, *_CONSEQUENCES):
        return error
    path = Path(next(row[2] for row in sqlite3.Connection.execute(raw, "PRAGMA database_list")))
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and not shutil.disk_usage(path.parent).free):
        return _full(path)
    if code in _CONSEQUENCES:
        return StorageError(f"{path.name} cannot be used ({error}): {_CONSEQUENCES[code]}")
    return _busy(path)


def _full(path: Path) -> StorageFull:
    return StorageFull(
        f"the disk that holds {path.name} is full: nothing was saved and nothing was lost; "
        "free some space and try again"
    )


def _busy(path: Path) -> StorageBusy:
    return StorageBusy(f"another process holds {path.name}: nothing was saved; try again in a moment")


def _write_ahead(raw: sqlite3.Connection) -> None:
    """Switches to WAL. SQLite does not wait for this lock when two connections want it at once: one is refused."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            raw.execute("PRAGMA journal_mode = WAL")
            return
        except StorageError as error:
            if not isinstance(error, StorageBusy) or time.monotonic() > deadline:
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

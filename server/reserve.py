"""Room on the disk that is kept for deletions: on a full disk even a deletion writes, to SQLite's write-ahead log.

A file of that size lies beside the database. A deletion on a short disk gives it up for the time it takes, and it is
written again as soon as there is room; until then nothing else may write. Knows nothing of what is deleted.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

log = logging.getLogger("tailor.storage")

RETRY_S: Final = 1.0  # between two attempts to get the room back
BLOCK: Final = 1 << 20

_deleting: ContextVar[bool] = ContextVar("deleting", default=False)


class Reserve:
    """`size` bytes in `file`; 0: none. Safe from any thread."""

    def __init__(self, file: Path, size: int) -> None:
        self._file = file
        self._size = size
        self._lock = threading.Lock()
        self._tried_at = float("-inf")
        self._given_up = False
        self._users = 0  # deletions under way: while there is one the room is not taken back

    @contextmanager
    def open_to_caller(self) -> Iterator[None]:
        """What is done inside may use the room that was given up, in threads that inherit the context, too."""
        token = _deleting.set(True)
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            _deleting.reset(token)
            with self._lock:
                self._users -= 1

    def give_up_if_short(self) -> None:
        """Before a deletion: makes room where the disk has less than the reserve."""
        with self._lock:
            if self._size and not self._given_up and shutil.disk_usage(self._file.parent).free < self._size:
                self._given_up = True
                self._file.unlink(missing_ok=True)
                log.warning("the disk is full: a deletion uses the room that was reserved for it")

    def is_closed_to_caller(self) -> bool:
        """The room is given up, and the caller is no deletion: what there is left is not the caller's."""
        return not _deleting.get() and not self.restore()

    def restore(self, *, at_once: bool = False) -> bool:
        """Takes the room again where it was given up, if there is as much. Returns whether it is there."""
        with self._lock:
            too_soon = not at_once and time.monotonic() - self._tried_at < RETRY_S
            if not self._given_up or self._users or too_soon:
                return not self._given_up
            self._tried_at = time.monotonic()
            self._given_up = not self._take()
            if not self._given_up:
                log.info("there is room on the disk again")
            return not self._given_up

    def take(self) -> None:
        """At start. A disk without that much room is said, and the server goes on."""
        with self._lock:
            if not self._take():
                log.warning("the disk has no room for the reserve of %d bytes (storage.reserve_bytes)", self._size)

    def _take(self) -> bool:
        """Real blocks: a sparse file would keep nothing free."""
        try:
            if not self._size:
                self._file.unlink(missing_ok=True)
            elif not self._file.exists() or self._file.stat().st_size != self._size:
                self._write()
        except OSError:
            self._file.unlink(missing_ok=True)
            return False
        return True

    def _write(self) -> None:
        with self._file.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self._size)
            for _ in range(0 if hasattr(os, "posix_fallocate") else self._size // BLOCK):
                file.write(os.urandom(BLOCK))

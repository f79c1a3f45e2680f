"""One process at a time has the index: a second one is refused, instead of corrupting it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from server.errors import Conflict


@contextmanager
def index_lock(index: Path) -> Iterator[None]:
    """Holds the index folder until the block ends; the system lets go of it when the process dies. Raises Conflict."""
    index.mkdir(parents=True, exist_ok=True)
    lock = FileLock(index / "LOCK", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise Conflict(
            f"another process uses the index in {index}: a server, or 'tailor index'; stop it, or give this one "
            "another folder (paths.data)"
        ) from error
    try:
        yield
    finally:
        lock.release()

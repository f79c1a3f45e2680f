"""What is known of files that are on their way into the index or out of it, and who is told. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from server.retrieval.index.files import FileKey
from server.retrieval.index.generation import Generation
from server.retrieval.updating.scanner import Found
from server.retrieval.updating.status import FolderStatus, Progress, Waiting, assemble

TOLD_S: Final = 1.0   # between two words about progress


@dataclass
class Board:
    """`pending`: files that differ while the index does not follow them."""

    folders: tuple[str, ...] = ()
    progress: Progress | None = None
    pending: int = 0
    problem: str = ""
    _waiting: dict[FileKey, Waiting] = field(default_factory=dict)
    _gone: dict[FileKey, float] = field(default_factory=dict)
    _callbacks: list[Callable[[], None]] = field(default_factory=list)
    _told_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def subscribe(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks.append(callback)

    def tell(self) -> None:
        with self._lock:
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def gone(self) -> frozenset[FileKey]:
        with self._lock:
            return frozenset(self._gone)

    def busy(self) -> bool:
        return bool(self._waiting)

    def unread(self, folders: Collection[str]) -> int:
        """How many files of these folders wait."""
        with self._lock:
            return sum(key.folder in folders for key in self._waiting)

    def files(self, generation: Generation) -> tuple[FolderStatus, ...]:
        with self._lock:
            return assemble(generation, self.folders, self._waiting, self._gone)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def expect(self, key: FileKey, waiting: Waiting) -> None:
        with self._lock:
            self._waiting[key] = waiting
            self._gone.pop(key, None)
        self.tell()

    def miss(self, keys: Iterable[FileKey], since: float | None = None) -> None:
        """Searches find these files no more; what was saved after `since` stays."""
        now = time.monotonic() if since is None else since
        with self._lock:
            for key in keys:
                if key not in self._waiting or self._waiting[key].since <= now:
                    self._gone[key] = now
                    self._waiting.pop(key, None)

    def seen(self, keys: Collection[FileKey], began: float) -> None:
        """These files were there in a look that began then, whatever was known before."""
        with self._lock:
            self._gone = {key: since for key, since in self._gone.items() if since > began or key not in keys}

    def forget_gone(self) -> None:
        with self._lock:
            self._gone.clear()

    def differ(self, pending: int) -> None:
        """So many files differ from the generation that the index is held at."""
        with self._lock:
            same, self.pending = pending == self.pending, pending
        if not same:
            self.tell()

    def await_(self, began: float, files: Iterable[Found], within: Collection[FileKey] | None) -> None:
        """These files wait, of all or of those `within`. What was saved after the look at the disk (`began`) stays."""
        now = {file.key: Waiting(file.bytes, file.mtime_ns, began) for file in files}
        with self._lock:
            before = dict(self._waiting)
            self._waiting = now | {
                key: one for key, one in before.items()
                if one.since > began or (within is not None and key not in within)
            }  # fmt: skip
            differs = before.keys() != self._waiting.keys()
        if differs:
            self.tell()

    def taken(self, keys: Iterable[FileKey], dropped: Iterable[FileKey], began: float) -> bool:
        """The index knows these files now, and those that were `dropped` no more. Whether any had waited."""
        with self._lock:
            before = len(self._waiting)
            for key in keys:
                if key in self._waiting and self._waiting[key].since <= began:
                    del self._waiting[key]
            for key in dropped:
                if self._gone.get(key, began) <= began:
                    self._gone.pop(key, None)
            return len(self._waiting) < before

    def say(self, progress: Progress | None) -> None:
        """How far a long import is: told now and then, and its end at once."""
        with self._lock:
            due = time.monotonic() >= self._told_at + TOLD_S
            if progress == self.progress or (progress is not None and not due):
                return
            self.progress, self._told_at = progress, time.monotonic()
        self.tell()

    def trouble(self, problem: str) -> None:
        """Why the index cannot be kept; '' when it can."""
        with self._lock:
            same, self.problem = problem == self.problem, problem
        if not same:
            self.tell()

"""Progress of updates: which files are pending, which are deleted but still indexed, and who is notified of changes.

Thread-safe. Knows nothing of how files are read or stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from server.retrieval.index.files import FileKey
from server.retrieval.index.generation import Generation
from server.retrieval.updating.scanner import ScannedFile
from server.retrieval.updating.status import (
    FolderStatus,
    ImportProgress,
    MissingFolder,
    PendingFile,
    folder_statuses,
)

REPORT_INTERVAL_S: Final = 1.0  # between two reports of an import's progress


@dataclass
class UpdateProgress:
    """`differing`: files on disk that differ from the generation that the index is held at."""

    folders: tuple[str, ...] = ()
    import_progress: ImportProgress | None = None
    differing: int = 0
    problem: str = ""
    missing: tuple[MissingFolder, ...] = ()
    _pending: dict[FileKey, PendingFile] = field(default_factory=dict)
    _deleted: dict[FileKey, float] = field(default_factory=dict)
    _callbacks: list[Callable[[], None]] = field(default_factory=list)
    _reported_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def subscribe(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks.append(callback)

    def notify(self) -> None:
        with self._lock:
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def deleted(self) -> frozenset[FileKey]:
        with self._lock:
            return frozenset(self._deleted)

    def busy(self) -> bool:
        return bool(self._pending)

    def unread(self, folders: Collection[str]) -> int:
        """How many files of these folders are pending."""
        with self._lock:
            return sum(key.folder in folders for key in self._pending)

    def folder_statuses(self, generation: Generation) -> tuple[FolderStatus, ...]:
        with self._lock:
            return folder_statuses(generation, self.folders, self._pending, self._deleted)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def add_pending(self, key: FileKey, file: PendingFile) -> None:
        with self._lock:
            self._pending[key] = file
            self._deleted.pop(key, None)
        self.notify()

    def mark_deleted(self, keys: Iterable[FileKey], since: float | None = None) -> None:
        """Searches find these files no more; what was saved after `since` stays."""
        now = time.monotonic() if since is None else since
        with self._lock:
            for key in keys:
                if key not in self._pending or self._pending[key].since <= now:
                    self._deleted[key] = now
                    self._pending.pop(key, None)

    def mark_present(self, keys: Collection[FileKey], scanned_at: float) -> None:
        """A scan that began at `scanned_at` found these files, whatever was known before."""
        with self._lock:
            self._deleted = {
                key: since for key, since in self._deleted.items() if since > scanned_at or key not in keys
            }

    def clear_deleted(self) -> None:
        with self._lock:
            self._deleted.clear()

    def set_differing(self, differing: int) -> None:
        """So many files differ from the generation that the index is held at."""
        with self._lock:
            unchanged, self.differing = differing == self.differing, differing
        if not unchanged:
            self.notify()

    def set_pending(self, scanned_at: float, files: Iterable[ScannedFile], within: Collection[FileKey] | None) -> None:
        """These files are pending, of all or of those `within`. What was saved after `scanned_at` stays."""
        pending = {file.key: PendingFile(file.bytes, file.mtime_ns, scanned_at) for file in files}
        with self._lock:
            before = dict(self._pending)
            self._pending = pending | {
                key: one for key, one in before.items()
                if one.since > scanned_at or (within is not None and key not in within)
            }  # fmt: skip
            differs = before.keys() != self._pending.keys()
        if differs:
            self.notify()

    def mark_indexed(self, keys: Iterable[FileKey], removed: Iterable[FileKey], scanned_at: float) -> bool:
        """These files are indexed now, and those `removed` are not any more. Returns whether any had been pending."""
        with self._lock:
            before = len(self._pending)
            for key in keys:
                if key in self._pending and self._pending[key].since <= scanned_at:
                    del self._pending[key]
            for key in removed:
                if self._deleted.get(key, scanned_at) <= scanned_at:
                    self._deleted.pop(key, None)
            return len(self._pending) < before

    def report_import(self, import_progress: ImportProgress | None) -> None:
        """How far a long import is: notified at intervals, and its end at once."""
        with self._lock:
            due = time.monotonic() >= self._reported_at + REPORT_INTERVAL_S
            if import_progress == self.import_progress or (import_progress is not None and not due):
                return
            self.import_progress, self._reported_at = import_progress, time.monotonic()
        self.notify()

    def set_problem(self, problem: str) -> None:
        """Why the index cannot be written; '' when it can."""
        with self._lock:
            unchanged, self.problem = problem == self.problem, problem
        if not unchanged:
            self.notify()

    def set_missing(self, missing: Mapping[str, str]) -> None:
        """Folders whose files are not there though nobody deleted them, each with its reason."""
        found = tuple(MissingFolder(folder, reason) for folder, reason in sorted(missing.items()))
        with self._lock:
            unchanged, self.missing = found == self.missing, found
        if not unchanged:
            self.notify()

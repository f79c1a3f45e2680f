"""An update of an index that is under way: the files still to index, and the result so far."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from server.retrieval.index.directory import OpenIndex
from server.retrieval.index.files import FileKey
from server.retrieval.index.generation import FileVersion
from server.retrieval.index.prepared import PreparedFile
from server.retrieval.updating.indexer import IndexingResult
from server.retrieval.updating.scanner import ScannedFile
from server.retrieval.updating.status import ImportProgress

LONG_IMPORT_FILES: Final = 32  # files from which on an update is a long import, whose progress is reported, …
LONG_IMPORT_BYTES: Final = 1024 * 1024  # … and bytes

TakeChanges = Callable[[], set[Path] | None]
"""The paths that have changed since its last call; None: scan everything."""


@dataclass(frozen=True, slots=True)
class FolderScan:
    """The files found on disk, of all or of those `within`."""

    found: Mapping[FileKey, ScannedFile]
    within: set[FileKey] | None

    def covers(self, key: FileKey) -> bool:
        """It was looked for."""
        return self.within is None or key in self.within


@dataclass(slots=True)
class PendingUpdate:
    """An update of `index` that is under way, of `files` with `bytes` to read."""

    index: OpenIndex
    queue: deque[ScannedFile]
    removed: frozenset[FileKey]
    files: int = 0
    bytes: int = 0
    started: float = field(default_factory=time.monotonic)
    result: IndexingResult = field(default_factory=IndexingResult)

    def includes(self, file: ScannedFile) -> bool:
        """The file in its present state is in the queue, or has been read."""
        stat = (file.bytes, file.mtime_ns, file.ctime_ns)
        versions: list[PreparedFile | FileVersion] = [*self.result.prepared, *self.result.new_versions]
        read = {one.key: (one.record.bytes, one.record.mtime_ns, one.record.ctime_ns) for one in versions}
        in_hand = self.result.in_hand.get(file.key) == file
        return file in self.queue or in_hand or read.get(file.key) == stat

    def discard(self, keys: Collection[FileKey]) -> None:
        """Drops these files: something newer is known of them."""
        self.queue = deque(file for file in self.queue if file.key not in keys)
        self.result.discard(keys)

    def add(self, files: Collection[ScannedFile], removed: frozenset[FileKey]) -> None:
        self.queue.extend(files)
        self.files += len(files)
        self.bytes += sum(file.bytes for file in files)
        self.removed |= removed

    def progress(self, unfinished_bytes: int) -> ImportProgress | None:
        """None where it is not a long import. `unfinished_bytes`: of the files in hand, what is not embedded yet."""
        if self.files < LONG_IMPORT_FILES and self.bytes < LONG_IMPORT_BYTES:
            return None
        left = min(self.bytes, sum(file.bytes for file in self.queue) + unfinished_bytes)
        done, took = self.bytes - left, time.monotonic() - self.started
        finished = self.files - len(self.queue) - len(self.result.in_hand)
        return ImportProgress(finished, self.files, done, self.bytes, round(took * left / done, 1) if done else None)

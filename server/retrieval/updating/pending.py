"""A change on its way from the disk into an index, while it is being taken in."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from server.retrieval.index.directory import Held
from server.retrieval.index.files import FileKey
from server.retrieval.index.generation import Version
from server.retrieval.index.store import Prepared
from server.retrieval.updating.indexer import Taken
from server.retrieval.updating.scanner import Found
from server.retrieval.updating.status import Progress

LONG: Final = 32   # files from which on a change is a long import, whose progress is told

Changed = Callable[[], set[Path] | None]
"""What has changed since it was asked last; None: look at everything."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Files that are there, of all or of those `within`."""

    found: Mapping[FileKey, Found]
    within: set[FileKey] | None


@dataclass(slots=True)
class Work:
    """A change that is being taken into the index `held`, of `files` with `bytes` to read."""

    held: Held
    waiting: deque[Found]
    dropped: frozenset[FileKey]
    files: int = 0
    bytes: int = 0
    began: float = field(default_factory=time.monotonic)
    taken: Taken = field(default_factory=Taken)

    def knows(self, file: Found) -> bool:
        """It waits as it is, or has been read as it is."""
        about = (file.bytes, file.mtime_ns)
        taken: list[Prepared | Version] = [*self.taken.cut, *self.taken.born]
        read = {one.key: (one.record.bytes, one.record.mtime_ns) for one in taken}
        return file in self.waiting or read.get(file.key) == about

    def leave_out(self, keys: Collection[FileKey]) -> None:
        """Something newer is known of these files."""
        self.waiting = deque(file for file in self.waiting if file.key not in keys)
        self.taken.leave_out(keys)

    def add(self, files: Collection[Found], dropped: frozenset[FileKey]) -> None:
        self.waiting.extend(files)
        self.files += len(files)
        self.bytes += sum(file.bytes for file in files)
        self.dropped |= dropped

    def progress(self) -> Progress | None:
        """None while it is not long enough to speak of."""
        if self.files < LONG:
            return None
        left = sum(file.bytes for file in self.waiting)
        done, took = self.bytes - left, time.monotonic() - self.began
        return Progress(
            self.files - len(self.waiting), self.files, done, self.bytes, round(took * left / done, 1) if done else None
        )

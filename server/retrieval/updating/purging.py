"""Files that are to leave nothing in the index: remembered across restarts until no sync can bring them back.

Knows nothing of how files are read or what a search is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from server.errors import NotFound
from server.retrieval.index.directory import OpenIndex
from server.retrieval.index.files import FileKey
from server.retrieval.index.generation import Generation

_MARK: Final = "purge"


class Purger:
    """`indexes`: those that are open, the serving one first. `newest`, `set_newest`: the newest generation of each.
    The locks are those of merging and of publishing, taken in this order."""

    def __init__(
        self,
        root: Path,
        indexes: Callable[[], list[OpenIndex]],
        newest: Callable[[OpenIndex], Generation],
        set_newest: Callable[[OpenIndex, Generation], None],
        locks: tuple[threading.Lock, threading.RLock],
    ) -> None:
        self._root = root
        self._indexes = indexes
        self._newest = newest
        self._set_newest = set_newest
        self._merging, self._publishing = locks
        self._deleting = threading.Lock()  # before those two
        self._purged: set[FileKey] = set()  # by this process

    def delete(self, key: FileKey, remove: Callable[[], None]) -> tuple[int, ...]:
        """Deletes the file by `remove`, and all that is left of it; the numbers of the generations that had it and are
        dropped. Remembered first: after a process that is killed, the next one goes on. Raises what `remove` raises."""
        with self._deleting:
            self._mark(key, wanted=True)
            try:
                remove()
            except (NotFound, OSError):  # nothing was deleted
                self._mark(key, wanted=False)
                raise
            return self._purge_everywhere(key)

    def purge_marked(self) -> None:
        """After a sync: nothing that was read before a deletion is on its way any more. Where an earlier process was
        killed at it, nobody knows the words to look for in divided pages any more: the catalogue is written anew."""
        with self._deleting:  # or the mark of a file that is about to go would be taken away
            marked = sorted(set().union(*map(_marked, self._indexes())))
            unfinished = set(marked) - self._purged
            for key in marked:
                self._purge_everywhere(key)
            if unfinished:
                for index in self._indexes():
                    index.store.rewrite()
            if any(index.store.unscrubbed for index in self._indexes()):
                return  # another sync, or the next start, sees to it
            for key in marked:
                self._mark(key, wanted=False)
            self._purged.difference_update(marked)

    def generations_with(self, key: FileKey) -> tuple[int, ...]:
        """Kept generations of the serving index in which the file is live."""
        return self._indexes()[0].store.generations_with(key)

    def _mark(self, key: FileKey, *, wanted: bool) -> None:
        with self._publishing:
            for index in self._indexes():
                keys = _marked(index) - {key} | ({key} if wanted else set())
                index.store.set_mark(
                    _MARK, json.dumps([(one.folder, one.file) for one in sorted(keys)]) if keys else None
                )

    def _purge_everywhere(self, key: FileKey) -> tuple[int, ...]:
        purged: set[int] = set()
        with self._merging, self._publishing:
            for index in self._indexes():
                purged |= set(self._purge(index, key))
        self._purged.add(key)
        return tuple(sorted(purged))

    def _purge(self, index: OpenIndex, key: FileKey) -> tuple[int, ...]:
        newest = self._newest(index)
        if key in newest.files and not (self._root / key.folder / key.file).exists():
            self._set_newest(index, index.store.publish(newest, (), [key], "files"))
        numbers, segments = index.store.purge(key)
        for segment_id in segments:  # their vectors were made of its text
            self._set_newest(index, index.store.commit_merge(index.store.merge([segment_id])))
        return numbers


def _marked(index: OpenIndex) -> set[FileKey]:
    return {FileKey(*key) for key in json.loads(index.store.get_mark(_MARK) or "[]")}

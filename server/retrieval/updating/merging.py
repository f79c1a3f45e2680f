"""Merges segments of an index where that is worth it, beside searches. Knows nothing of files."""

from __future__ import annotations

import threading
from collections.abc import Callable

from server.retrieval.index.directory import OpenIndex
from server.retrieval.index.generation import Generation


class Merger:
    """`publishing`: the lock of publishing, taken after `lock`. `is_open` and `set_newest`: of the merged index."""

    def __init__(
        self,
        publishing: threading.RLock,
        is_open: Callable[[OpenIndex], bool],
        set_newest: Callable[[OpenIndex, Generation], None],
    ) -> None:
        self.lock = threading.Lock()  # one merge at a time
        self._publishing = publishing
        self._is_open = is_open
        self._set_newest = set_newest

    def merge(self, choose: Callable[[], OpenIndex | None]) -> bool:
        """Merges some segments, if that is worth it; returns whether it was."""
        with self.lock:
            index = choose()
            segment_ids = index.store.merge_candidates() if index is not None else []
            if index is None or not segment_ids:
                return False
            merged = index.store.merge(segment_ids)
            with self._publishing:
                if self._is_open(index):
                    self._set_newest(index, index.store.commit_merge(merged))
        return True

"""On which device each knowledge folder lay when it last held files, to tell an unmounted share from deleted files.

A share that is unmounted leaves an empty folder on another device; files that were deleted leave one on the same. What
is away is kept in the index until it is back, or until the folder itself is removed, which nothing but a person does.
Kept in `data/index/devices.json`. Knows nothing of the index.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

log = logging.getLogger("tailor.retrieval")

FILE: Final = "devices.json"


class FolderDevices:
    """Safe from any thread; another instance over the same file sees what this one records."""

    def __init__(self, root: Path, index: Path) -> None:
        self._root = root
        self._file = index / FILE
        self._known: dict[str, int | list[int]] = {}
        self._read_at: int | None = None

    def record(self, folders: Collection[str]) -> None:
        """These folders hold files now."""
        found: dict[str, int | list[int]] = {}
        try:
            for folder in folders:
                found[folder] = (self._root / folder).stat().st_dev
            if folders:
                found[""] = _identity(self._root.stat())
        except OSError:
            return  # one of them is going just now: the next scan sees it
        known = self._load()
        if not (found.items() <= known.items()):
            self._save(known | found)

    def away(self, folder: str) -> str:
        """Why the files of a folder are not there though nobody deleted them; '' where they are there or deleted."""
        return self._root_away() or (self._folder_away(folder) if folder else "")

    def _root_away(self) -> str:
        known = self._load().get("")
        try:
            if known is not None and known != _identity(self._root.stat()) and _is_empty(self._root):
                return f"the knowledge folder {self._root} is empty and not the one that it was: is its disk mounted?"
            _is_empty(self._root)
        except OSError as error:
            if known is None and isinstance(error, FileNotFoundError):
                return ""  # it has not been made yet
            return f"the knowledge folder {self._root} cannot be read ({error.strerror}): is its disk mounted?"
        return ""

    def _folder_away(self, folder: str) -> str:
        path = self._root / folder
        try:
            if _is_empty(path) and self._load().get(folder) not in (None, path.stat().st_dev):
                return "the folder is empty and on another disk than before: is its share mounted?"
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"the folder cannot be read ({error.strerror}): is its share mounted?"
        return ""

    def _load(self) -> dict[str, int | list[int]]:
        """Read again where it has changed; what is damaged is nothing."""
        try:
            changed_at = self._file.stat().st_mtime_ns
            if changed_at != self._read_at:
                self._known, self._read_at = dict(json.loads(self._file.read_text(encoding="utf-8"))), changed_at
        except (OSError, ValueError, TypeError):
            self._known, self._read_at = {}, None
        return self._known

    def _save(self, known: dict[str, int | list[int]]) -> None:
        temporary = self._file.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
            temporary.replace(self._file)
        except (OSError, UnicodeEncodeError) as error:
            log.warning("where the knowledge folders lie cannot be kept in %s: %s", self._file, error)


def _identity(found: os.stat_result) -> list[int]:
    return [found.st_dev, found.st_ino]


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None

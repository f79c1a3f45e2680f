"""The folder of indexes: which one serves, and which one is being built to replace it.

    data/index/CURRENT          the name of the one that serves
    data/index/<name>/made.json its build settings: embedder, chunker, sizes
    data/index/<name>/…         an `IndexStore`

Another embedder or chunk size, or a rebuild, begins a new folder; the old one serves until the new one is complete.
Knows nothing of files or of what an index holds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.retrieval.index.store import IndexStore

log = logging.getLogger("tailor.retrieval")

FORMAT: Final = 3
GRACE_S: Final = 60.0  # that an index which no longer serves stays for those who still read it
_CURRENT, _SETTINGS_FILE = "CURRENT", "made.json"

BuildSettings = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """`build_settings` are those that the index was built with."""

    name: str
    store: IndexStore
    build_settings: BuildSettings


class IndexDirectory:
    """The folder of indexes. One process at a time."""

    def __init__(self, folder: Path, build_settings: BuildSettings, kept_generations: int) -> None:
        self._folder = self.folder = folder
        self._build_settings = {"format": FORMAT, **build_settings}
        self._kept_generations = kept_generations

    def open(self) -> tuple[OpenIndex, OpenIndex | None]:
        """The index that serves, and the one that is to replace it, where it was built with other settings."""
        self._folder.mkdir(parents=True, exist_ok=True)
        current = self._current_name()
        current_settings = self._settings_of(current) if current else None
        if current_settings is None or current_settings.get("format") != FORMAT:
            serving = self._create(1)
            self.set_current(serving)
            return serving, None
        serving = OpenIndex(current, self._store(current, 1), current_settings)
        if current_settings == self._build_settings:
            self.remove_others()
            return serving, None
        return serving, self.open_build(serving)

    def open_build(self, serving: OpenIndex, *, fresh: bool = False) -> OpenIndex:
        """An index with the present settings. One that a former start left unfinished is continued, unless `fresh`."""
        first_number = serving.store.newest() + 1
        for path in sorted(self._folder.iterdir()) if not fresh else ():
            if path.name != serving.name and path.is_dir() and self._settings_of(path.name) == self._build_settings:
                return OpenIndex(path.name, self._store(path.name, first_number), self._build_settings)
        return self._create(first_number)

    def set_current(self, index: OpenIndex) -> None:
        """From now on this index serves, after a restart too."""
        temporary = self._folder / f"{_CURRENT}.new"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(index.name)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / _CURRENT)

    def remove_others(self) -> None:
        """Removes the indexes that do not serve."""
        current = self._current_name()
        for path in self._folder.iterdir():
            if path.is_dir() and path.name != current:
                shutil.rmtree(path, ignore_errors=True)

    def _current_name(self) -> str:
        try:
            return (self._folder / _CURRENT).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _settings_of(self, name: str) -> BuildSettings | None:
        try:
            settings: BuildSettings = json.loads((self._folder / name / _SETTINGS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return settings

    def _create(self, first_number: int) -> OpenIndex:
        key = hashlib.sha256(json.dumps(self._build_settings, sort_keys=True).encode()).hexdigest()[:12]
        number = 1
        while (self._folder / f"{key}-{number}").exists():
            number += 1
        name = f"{key}-{number}"
        (self._folder / name).mkdir()
        (self._folder / name / _SETTINGS_FILE).write_text(json.dumps(self._build_settings), encoding="utf-8")
        return OpenIndex(name, self._store(name, first_number), self._build_settings)

    def _store(self, name: str, first_number: int) -> IndexStore:
        return IndexStore(self._folder / name, kept_generations=self._kept_generations, first_number=first_number)


class RetiredIndex:
    """One at a time, for whoever has the publish lock."""

    def __init__(self, directory: IndexDirectory) -> None:
        self._directory = directory
        self._index: OpenIndex | None = None
        self._due: float | None = None

    def retire(self, index: OpenIndex | None) -> None:
        """The one before is closed now."""
        self.close()
        self._index, self._due = index, time.monotonic() + GRACE_S

    def remove_when_due(self) -> None:
        """Closes it and removes its files, once its time is over."""
        if self._due is not None and time.monotonic() > self._due:
            self.close()
            self._due = None
            self._directory.remove_others()

    def close(self) -> None:
        if self._index is not None:
            self._index.store.close()
            self._index = None

"""Which index serves, and which is being built beside it.

    data/index/CURRENT          the name of the one that serves
    data/index/<name>/made.json what it is made by: embedder, chunker, sizes
    data/index/<name>/…         an `IndexStore`

Another embedder or chunk size, or a rebuild, begins a new folder; the old one serves until the new one is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.retrieval.index.store import IndexStore

log = logging.getLogger("tailor.retrieval")

FORMAT: Final = 3
_CURRENT, _MADE = "CURRENT", "made.json"

MadeBy = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Held:
    """`made_by` is what the index says of itself."""

    name: str
    store: IndexStore
    made_by: MadeBy


class IndexHome:
    """The folder of indexes. One process at a time."""

    def __init__(self, folder: Path, made_by: MadeBy, kept: int) -> None:
        self._folder = folder
        self._made_by = {"format": FORMAT, **made_by}
        self._kept = kept

    def open(self) -> tuple[Held, Held | None]:
        """The index that serves, and the one that is to take its place, where it is made by something else."""
        self._folder.mkdir(parents=True, exist_ok=True)
        named = self._named()
        known = self._made(named) if named else None
        if known is None or known.get("format") != FORMAT:
            serving = self._begin(1)
            self.serve(serving)
            return serving, None
        serving = Held(named, self._store(named, 1), known)
        if known == self._made_by:
            self.clear()
            return serving, None
        return serving, self.beside(serving)

    def beside(self, serving: Held, *, anew: bool = False) -> Held:
        """An index of what is set now. One that an earlier start left unfinished is gone on with, unless `anew`."""
        first = serving.store.newest() + 1
        for path in sorted(self._folder.iterdir()) if not anew else ():
            if path.name != serving.name and path.is_dir() and self._made(path.name) == self._made_by:
                return Held(path.name, self._store(path.name, first), self._made_by)
        return self._begin(first)

    def serve(self, held: Held) -> None:
        """From now on this one serves, after a restart too."""
        pending = self._folder / f"{_CURRENT}.new"
        with pending.open("w", encoding="utf-8") as file:
            file.write(held.name)
            file.flush()
            os.fsync(file.fileno())
        pending.replace(self._folder / _CURRENT)

    def clear(self) -> None:
        """Removes the indexes that do not serve."""
        named = self._named()
        for path in self._folder.iterdir():
            if path.is_dir() and path.name != named:
                shutil.rmtree(path, ignore_errors=True)

    def _named(self) -> str:
        try:
            return (self._folder / _CURRENT).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _made(self, name: str) -> MadeBy | None:
        try:
            made: MadeBy = json.loads((self._folder / name / _MADE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return made

    def _begin(self, first: int) -> Held:
        key = hashlib.sha256(json.dumps(self._made_by, sort_keys=True).encode()).hexdigest()[:12]
        number = 1
        while (self._folder / f"{key}-{number}").exists():
            number += 1
        name = f"{key}-{number}"
        (self._folder / name).mkdir()
        (self._folder / name / _MADE).write_text(json.dumps(self._made_by), encoding="utf-8")
        return Held(name, self._store(name, first), self._made_by)

    def _store(self, name: str, first: int) -> IndexStore:
        return IndexStore(self._folder / name, kept=self._kept, first_number=first)

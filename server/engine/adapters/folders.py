"""What is in the adapters folder: `<root>/<name>/<version>/`, listed anew at each call by cheap stats.

Knows nothing of what is in the files beyond their sizes and times; whether an adapter fits is for others.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from server.errors import AdapterNotFound

_ID = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,63}")
_ID_RULE = "may hold a-z, 0-9, '.', '_' and '-', at most 64 of them, and must not begin with a dot"


@dataclass(frozen=True)
class AdapterFolder:
    """One version of an adapter. `signature` changes when a file in it does; `problem` says why its path
    is wrong, and then nothing in it is read."""

    name: str
    version: str
    path: Path
    signature: tuple[tuple[str, int, int, int], ...]
    problem: str = ""

    @property
    def key(self) -> tuple[str, str, tuple[tuple[str, int, int, int], ...]]:
        return (self.name, self.version, self.signature)


class AdapterCatalogue:
    """Reads folder entries and file times at each call; keeps nothing. Safe from any thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folders(self) -> tuple[AdapterFolder, ...]:
        """Every version, names in order, newest version first (10 before 9). Names that begin with a dot,
        which unfinished work uses, are passed over."""
        return tuple(folder for name in _entries(self.root) for folder in self._versions(name))

    def find(self, spec: str) -> tuple[AdapterFolder, ...]:
        """Versions that `name` (all, newest first) or `name@version` (that one) can mean.

        Raises AdapterNotFound; an id that is none never reaches the file system.
        """
        name, at, version = spec.partition("@")
        for part in (name, version) if at else (name,):
            if not _ID.fullmatch(part):
                raise AdapterNotFound(f"'{spec[:200]}' is no adapter id: name and version {_ID_RULE}")
        versions = self._versions(name) if (self.root / name).is_dir() else ()
        found = tuple(folder for folder in versions if not at or folder.version == version)
        if not found:
            names = sorted({folder.name for folder in self.folders()})
            what = f"the adapters are: {', '.join(names)}" if names else "the folder holds none"
            raise AdapterNotFound(f"no adapter '{spec}' in {self.root.name}/: {what}")
        return found

    def _versions(self, name: str) -> tuple[AdapterFolder, ...]:
        path = self.root / name
        if not _ID.fullmatch(name):
            return (AdapterFolder(name, "", path, (), f"the folder's name {_ID_RULE}"),)
        if (path / "adapter_config.json").is_file():
            return (AdapterFolder(name, "", path, (), f"its files must lie in a version's folder, such as {name}/1/"),)
        return tuple(self._folder(name, version) for version in sorted(_entries(path), key=_natural_key, reverse=True))

    def _folder(self, name: str, version: str) -> AdapterFolder:
        path = self.root / name / version
        if not _ID.fullmatch(version):
            return AdapterFolder(name, version, path, (), f"the version's name {_ID_RULE}")
        linked = path.is_symlink() or path.parent.is_symlink()
        if linked and not path.resolve().is_relative_to(self.root.resolve()):
            return AdapterFolder(name, version, path, (), f"it is a link to a place outside {self.root.name}/")
        return AdapterFolder(name, version, path, _signature(path))


def _entries(folder: Path) -> list[str]:
    """Names of the folders in a folder; none where it is gone."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _signature(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stat = entry.stat()
                found.append((entry.name, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    except OSError:  # it goes away while it is looked at: the next look sees that
        return ()
    return tuple(sorted(found))


def _natural_key(version: str) -> list[tuple[int, int, str]]:
    """Numbers count as numbers and stand above words."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|\D+", version)]

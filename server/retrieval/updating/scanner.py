"""Scans `knowledge/`: every file with its size and time, and why some cannot be read.

Never reads contents. Hidden and half-written files are ignored. Nothing outside of the root is reached: a link is
followed only when its target is a regular file inside. Of files in one folder whose names differ only in case or in
Unicode form, which is one name on other systems, the first is read. Knows nothing of the index's contents.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from server.retrieval.index.files import FileKey, FileState
from server.retrieval.loaders import is_supported, why_unsupported
from server.words import normalize

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_TEMPORARY_ENDINGS = (".swp", ".swx", ".part", ".partial", ".tmp", ".temp", ".crdownload", ".download")


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A file on disk. `problem` is set when it is not to be read, with the state that says so."""

    key: FileKey
    path: Path
    bytes: int
    mtime_ns: int
    ctime_ns: int  # which no program can set back, as some do with the time of a change
    problem: str = ""
    state: FileState = FileState.INDEXING
    is_folder: bool = False  # that cannot be opened: nothing is known of its files


def is_ignored(name: str) -> bool:
    """Hidden, temporary or half-written: nobody meant it as knowledge."""
    return name.startswith((".", "~$")) or name.endswith("~") or name.lower().endswith(_TEMPORARY_ENDINGS)


def scan(root: Path) -> tuple[dict[FileKey, ScannedFile], tuple[str, ...]]:
    """The files below `root` and the names of its folders, empty ones included.

    A file directly in the root belongs to no folder: it has the key ('', name) and a problem. Raises
    OSError when the root itself cannot be listed.
    """
    found: dict[FileKey, ScannedFile] = {}
    folders: list[str] = []
    for entry in _entries(root):
        if entry.is_dir(follow_symlinks=False):
            folders.append(_printable(entry.name))
            found |= _reject_name_clashes(_files(root, entry, folders[-1]))
        else:
            key = FileKey("", _printable(entry.name))
            found[key] = _problem(
                key, entry, "lies outside of a folder: move it into a folder of knowledge", FileState.UNSUPPORTED
            )
    return found, tuple(sorted(folders))


def scan_paths(root: Path, paths: Iterable[Path]) -> tuple[dict[FileKey, ScannedFile], set[FileKey]] | None:
    """As `scan`, for single files of folders: those that exist, and all that were scanned. None where a path is
    something else, or may have been: a folder that was added or removed changes more than one file."""
    found: dict[FileKey, ScannedFile] = {}
    scanned: set[FileKey] = set()
    listings = _FolderListings()
    for path in paths:
        try:
            parts = path.relative_to(root).parts
        except ValueError:
            continue
        if any(is_ignored(part) for part in parts):
            continue
        entries = listings.same_name(path) if len(parts) > 1 else None
        if entries is None or any(entry.is_dir(follow_symlinks=False) for entry in entries):
            return None
        if not is_supported(path.name) and not any(entry.name == path.name for entry in entries):
            return None
        above = (root.joinpath(*parts[:depth]) for depth in range(2, len(parts)))
        if any(len(listings.same_name(folder) or ()) != 1 for folder in above):
            return None
        scanned.add(FileKey(_printable(parts[0]), _printable("/".join(parts[1:]))))
        clashing = []
        for entry in entries:
            name = "/".join((*parts[1:-1], entry.name))
            key = FileKey(_printable(parts[0]), _printable(name))
            clashing.append(_scan_entry(root, key, entry, is_utf8=_printable(name) == name))
        found |= _reject_name_clashes(clashing)
    return found, scanned | found.keys()


class _FolderListings:
    """Entries of folders, each folder listed once, by their names without case and Unicode form."""

    def __init__(self) -> None:
        self._by_folder: dict[Path, dict[str, list[os.DirEntry[str]]] | None] = {}

    def same_name(self, path: Path) -> list[os.DirEntry[str]] | None:
        """Entries of the path's name, whatever its case or form. None where its folder is gone, or behind a link."""
        if path.parent not in self._by_folder:
            self._by_folder[path.parent] = self._listing(path.parent)
        listing = self._by_folder[path.parent]
        return None if listing is None else listing.get(_folded(path.name), [])

    def _listing(self, folder: Path) -> dict[str, list[os.DirEntry[str]]] | None:
        listing: dict[str, list[os.DirEntry[str]]] = {}
        try:
            if os.path.realpath(folder) != str(folder):
                return None
            with os.scandir(folder) as entries:
                for entry in entries:
                    listing.setdefault(_folded(entry.name), []).append(entry)
        except OSError:
            return None
        return listing


def _reject_name_clashes(files: Iterable[ScannedFile]) -> dict[FileKey, ScannedFile]:
    """A file whose name is the same as a former one's on other systems gets that as its problem."""
    first: dict[str, ScannedFile] = {}
    kept: dict[FileKey, ScannedFile] = {}
    for file in sorted(files, key=lambda file: file.key):
        other = first.setdefault(_folded(file.key.file), file) if not file.problem else file
        if other.key != file.key:
            what = "Unicode form" if _nfc(other.key.file) == _nfc(file.key.file) else "upper and lower case"
            problem = f"its name differs from '{other.key.file}' only in {what}: rename one of them"
            kept[file.key] = replace(file, problem=problem, state=FileState.FAILED)
        elif not file.problem or file.key not in kept:  # a name that is not UTF-8 may be shown like a good one
            kept[file.key] = file
    return kept


def _folded(name: str) -> str:
    return name.lower() if name.isascii() else _nfc(_nfc(name).casefold())


def _nfc(name: str) -> str:
    return normalize(name, "NFC")


def _files(root: Path, top: os.DirEntry[str], folder: str) -> Iterator[ScannedFile]:
    to_list = [top]
    while to_list:
        folder_entry = to_list.pop()
        try:
            entries = _entries(Path(folder_entry.path))
        except FileNotFoundError:  # removed since its parent was listed
            continue
        except OSError as error:
            key = FileKey(folder, _printable(os.path.relpath(folder_entry.path, top.path)))
            problem = f"the folder cannot be opened: {error.strerror}"
            yield replace(_problem(key, folder_entry, problem, FileState.FAILED), is_folder=True)
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                to_list.append(entry)
            else:
                name = Path(entry.path).relative_to(top.path).as_posix()
                yield _scan_entry(root, FileKey(folder, _printable(name)), entry, is_utf8=_printable(name) == name)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((one for one in entries if not is_ignored(one.name)), key=lambda one: one.name)


def _scan_entry(root: Path, key: FileKey, entry: os.DirEntry[str], *, is_utf8: bool) -> ScannedFile:
    if not is_utf8:
        return _problem(key, entry, "its name is not valid UTF-8: rename it", FileState.FAILED)
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
        return _problem(key, entry, "a link that leads out of the knowledge folder", FileState.UNSUPPORTED)
    try:
        entry_stat = entry.stat()
    except OSError as error:
        return _problem(key, entry, f"cannot be opened: {error.strerror}", FileState.FAILED)
    if not stat.S_ISREG(entry_stat.st_mode):
        what = "a linked folder" if stat.S_ISDIR(entry_stat.st_mode) else "not a regular file"
        return _problem(key, entry, f"{what}: not read", FileState.UNSUPPORTED)
    problem, state = "", FileState.INDEXING
    if not is_supported(entry.name):
        problem, state = why_unsupported(entry.name), FileState.UNSUPPORTED
    elif entry_stat.st_size == 0:
        problem, state = "the file is empty (0 bytes)", FileState.EMPTY
    elif entry_stat.st_size > MAX_FILE_BYTES:
        size, limit = entry_stat.st_size // 1024**2, MAX_FILE_BYTES // 1024**2
        problem, state = f"too large: {size} MB, the limit is {limit} MB; split the file", FileState.FAILED
    times = entry_stat.st_mtime_ns, entry_stat.st_ctime_ns
    return ScannedFile(key, Path(entry.path), entry_stat.st_size, *times, problem, state)


def _problem(key: FileKey, entry: os.DirEntry[str], reason: str, state: FileState) -> ScannedFile:
    try:
        entry_stat = entry.stat(follow_symlinks=False)
    except OSError:
        return ScannedFile(key, Path(entry.path), 0, 0, 0, reason, state)
    times = entry_stat.st_mtime_ns, entry_stat.st_ctime_ns
    return ScannedFile(key, Path(entry.path), entry_stat.st_size, *times, reason, state)


def _printable(name: str) -> str:
    """A name that can be shown and stored: bytes that are not UTF-8 become '?'."""
    return name.encode("utf-8", "replace").decode("utf-8")

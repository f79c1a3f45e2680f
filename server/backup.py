"""Backups of a workspace: one archive, made while the server runs, and checked whole before anything is replaced.

    manifest.json       format, version, when, the models' names, size and SHA-256 of every file
    data/tailor.db      by SQLite's own backup, without temporary chats
    data/index/…        one generation of the index: its catalogue, then the segments that this names
    prompts/ knowledge/ adapters/

Models are not in it: they are large and come from where they came from. Nor is tailor.toml: it may hold the password.
Knows nothing of what a file says.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from server.config import Settings
from server.doctor import newer_migrations
from server.errors import Conflict, InvalidInput, StorageError
from server.retrieval import index_lock

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
FOLDERS: Final = ("prompts", "knowledge", "adapters")  # with the files that people write
DATABASE: Final = "data/tailor.db"
INDEX: Final = "data/index"
ATTEMPTS: Final = 5  # at an index whose segments are merged while they are read
COPY_BYTES: Final = 1 << 20
MANIFEST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class BackupReport:
    """`left_out`: links, which a backup does not follow out of its folder."""

    file: Path
    files: int
    bytes: int
    left_out: tuple[str, ...] = ()
    set_aside: tuple[Path, ...] = ()


# ── backup ───────────────────────────────────────────────────────────────────────────────────────


def back_up(settings: Settings, target: Path) -> BackupReport:
    """Writes the archive, for its owner's eyes alone; it has its name when it is complete. Raises Conflict where there
    is a file of that name, StorageError."""
    if target.exists():
        raise Conflict(f"{target} is there already: choose another name, or remove it first")
    if not target.absolute().parent.is_dir():
        raise InvalidInput(f"the folder {target.absolute().parent} is not there: make it first")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.absolute().parent)  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            report = _write(settings, file, target)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, target)  # unlike a rename it replaces nothing
    except FileExistsError as error:
        raise Conflict(f"{target} is there already: choose another name, or remove it first") from error
    except OSError as error:
        raise StorageError(f"the backup cannot be written to {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return report


def _write(settings: Settings, file: IO[bytes], target: Path) -> BackupReport:
    left_out: list[str] = []
    with (
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        tempfile.TemporaryDirectory(prefix=".tailor-", dir=target.absolute().parent) as scratch,
    ):
        writer = _Writer(archive, Path(scratch))
        if (settings.paths.data / "tailor.db").exists():
            _copy_database(settings.paths.data / "tailor.db", Path(scratch) / "tailor.db")
            writer.add(DATABASE, Path(scratch) / "tailor.db")
        _write_index(settings.paths.data / "index", writer, Path(scratch))
        for name in FOLDERS:
            for path, relative in _files(getattr(settings.paths, name), left_out, name):
                writer.add(f"{name}/{relative}", path, may_vanish=True)
        writer.add_manifest(settings)
    total = sum(int(entry["bytes"]) for entry in writer.entries.values())
    return BackupReport(target, len(writer.entries), total, tuple(left_out))


class _Writer:
    """Adds files to the archive and notes what they are. A file is copied first: it may change while it is read."""

    def __init__(self, archive: tarfile.TarFile, scratch: Path) -> None:
        self._archive = archive
        self._scratch = scratch
        self.entries: dict[str, dict[str, int | str]] = {}

    def add(self, name: str, path: Path, *, may_vanish: bool = False) -> None:
        copy = self._scratch / "copy"
        digest = hashlib.sha256()
        try:
            with path.open("rb") as source, copy.open("wb") as sink:
                while block := source.read(COPY_BYTES):
                    digest.update(block)
                    sink.write(block)
        except FileNotFoundError:
            if may_vanish:
                return
            raise
        size = copy.stat().st_size
        with copy.open("rb") as source:
            self._archive.addfile(_header(name, size, int(path.stat().st_mtime) if path.exists() else 0), source)
        self.entries[name] = {"bytes": size, "sha256": digest.hexdigest()}

    def add_manifest(self, settings: Settings) -> None:
        body = {
            "format": FORMAT,
            "version": version("tailor-chat"),
            "created_at": time.time(),
            "model": settings.model.name,
            "embedder": settings.embedding.name,
            "left_out": "models and tailor.toml",
            "files": self.entries,
        }
        data = json.dumps(body, ensure_ascii=False, indent=1).encode("utf-8", "surrogateescape")
        self._archive.addfile(_header(MANIFEST, len(data), int(time.time())), io.BytesIO(data))


def _header(name: str, size: int, changed_at: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = size, changed_at, 0o600
    return header


def _copy_database(source: Path, target: Path) -> None:
    """A consistent copy while others write, by SQLite's backup API."""
    target.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as opened,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            opened.backup(copy)
            copy.execute("PRAGMA foreign_keys = ON")
            copy.execute("PRAGMA secure_delete = ON")
            copy.execute("PRAGMA journal_mode = DELETE")
            if copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'conversations'").fetchone():
                copy.execute("DELETE FROM conversations WHERE temporary")
    except sqlite3.Error as error:
        raise StorageError(f"{source} cannot be copied: {error}; run 'tailor doctor'") from error


def _write_index(index: Path, writer: _Writer, scratch: Path) -> None:
    """Segments are never changed, but merged away: then the catalogue is copied again."""
    for _ in range(ATTEMPTS):
        before = dict(writer.entries)
        try:
            _write_serving_index(index, writer, scratch)
        except FileNotFoundError:
            writer.entries = before  # what is in the archive already is left out of the manifest, and so of a restore
            continue
        return
    raise StorageError("the index changes faster than it can be copied: try again when the import is done")


def _write_serving_index(index: Path, writer: _Writer, scratch: Path) -> None:
    if not (index / "CURRENT").exists():
        return
    name = (index / "CURRENT").read_text(encoding="utf-8").strip()
    copies = scratch / "index"
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir()
    catalog = copies / "catalog.db"
    if not (index / name / "catalog.db").exists():
        raise FileNotFoundError(name)
    _copy_database(index / name / "catalog.db", catalog)
    with closing(sqlite3.connect(catalog)) as opened:
        segments = [f"seg-{number}" for (number,) in opened.execute("SELECT id FROM segments")]
    for file in ("made.json", *segments):  # all are at hand before the first is written
        try:
            os.link(index / name / file, copies / file)
        except OSError:
            shutil.copyfile(index / name / file, copies / file)
    for file in ("catalog.db", "made.json", *segments):
        writer.add(f"{INDEX}/{name}/{file}", copies / file)
    (copies / "CURRENT").write_text(name, encoding="utf-8")
    writer.add(f"{INDEX}/CURRENT", copies / "CURRENT")
    writer.add(f"{INDEX}/access.json", index / "access.json", may_vanish=True)


def _files(root: Path, left_out: list[str], name: str) -> Iterator[tuple[Path, str]]:
    """Regular files below, with their paths. Uploads and adapters that are not finished begin with a dot."""
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        relative = path.relative_to(root).as_posix()
        if path.name.startswith(".upload-") or (name == "adapters" and relative.startswith(".")):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            left_out.append(f"{name}/{relative}")
        elif path.is_file():
            yield path, relative


# ── restore ──────────────────────────────────────────────────────────────────────────────────────


def restore(settings: Settings, source: Path, *, force: bool = False) -> BackupReport:
    """Puts a backup in place. Every file is checked before anything is replaced; with `force` what is there is set
    aside. Raises InvalidInput for what is no whole backup, Conflict where the workspace is not empty or in use."""
    targets = {name: getattr(settings.paths, name) for name in FOLDERS}
    targets |= {DATABASE: settings.paths.data / "tailor.db", INDEX: settings.paths.data / "index"}
    settings.paths.data.mkdir(parents=True, exist_ok=True)
    settings.paths.data.chmod(0o700)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=settings.paths.data) as staging:
        manifest = _unpack(source, Path(staging))
        _check_database(Path(staging) / DATABASE)
        with index_lock(settings.paths.data / "index"):
            occupied = [path for path in targets.values() if _is_occupied(path)]
            if occupied and not force:
                raise Conflict(
                    f"the workspace is not empty ({', '.join(map(str, occupied))}): restore into another one, or set "
                    "aside what is there with --force"
                )
            set_aside = _put_in_place(Path(staging), targets)
    files: Mapping[str, Any] = manifest["files"]
    total = sum(int(entry["bytes"]) for entry in files.values())
    return BackupReport(source, len(files), total, set_aside=set_aside)


def _unpack(source: Path, staging: Path) -> dict[str, Any]:
    """Unpacks into an empty folder what the manifest names, and nothing else. Raises InvalidInput."""
    found: dict[str, tuple[int, str]] = {}
    manifest: dict[str, Any] = {}
    try:
        with tarfile.open(source, "r:gz") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None:
                    raise InvalidInput(f"{source} holds '{member.name[:200]}', which is no regular file: not restored")
                if member.name == MANIFEST:
                    manifest = _read_manifest(stream, source)
                else:
                    found[member.name] = _unpack_file(stream, staging, member.name, source)
    except (OSError, EOFError, tarfile.TarError, gzip.BadGzipFile) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"{source} cannot be restored: {error.strerror}") from error
        raise InvalidInput(f"{source} is no backup, or a broken one: {error}") from error
    if not manifest:
        raise InvalidInput(f"{source} has no {MANIFEST}: it is no backup, or was cut off")
    _compare(manifest["files"], found, staging, source)
    return manifest


def _read_manifest(stream: IO[bytes], source: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(stream.read(MANIFEST_BYTES))
        made, files = int(manifest["format"]), dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"the {MANIFEST} of {source} cannot be read") from error
    if made > FORMAT:
        raise InvalidInput(
            f"{source} was made by Tailor {manifest.get('version', '?')} in format {made}, and this one knows formats "
            f"up to {FORMAT}: use a newer Tailor"
        )
    return {**manifest, "files": files}


def _unpack_file(stream: IO[bytes], staging: Path, name: str, source: Path) -> tuple[int, str]:
    path = PurePosixPath(name)
    inside = name.startswith((f"{INDEX}/", *(f"{folder}/" for folder in FOLDERS))) or name == DATABASE
    if not inside or path.is_absolute() or path.as_posix() != name or {"..", "."} & set(path.parts) or "\0" in name:
        raise InvalidInput(f"{source} holds '{name[:200]}', a path that no backup has: not restored")
    target = staging / path
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as sink:
        while block := stream.read(COPY_BYTES):
            digest.update(block)
            size += sink.write(block)
    return size, digest.hexdigest()


def _compare(files: Mapping[str, Any], found: Mapping[str, tuple[int, str]], staging: Path, source: Path) -> None:
    for name, entry in files.items():
        if found.get(name) != (entry.get("bytes"), entry.get("sha256")):
            raise InvalidInput(f"'{name[:200]}' in {source} is missing or damaged: nothing was restored")
    for name in found.keys() - files.keys():  # an index that was copied again
        (staging / name).unlink(missing_ok=True)


def _check_database(database: Path) -> None:
    if not database.exists():
        return
    with closing(sqlite3.connect(database)) as opened:
        try:
            sound = opened.execute("PRAGMA quick_check").fetchone() == ("ok",)
        except sqlite3.DatabaseError:
            sound = False
        newer = newer_migrations(opened) if sound else []
    if not sound:
        raise InvalidInput("the database in the backup is damaged: nothing was restored")
    if newer:
        raise InvalidInput(f"the database in the backup is of a newer Tailor ({', '.join(newer)}): use that one")


def _is_occupied(path: Path) -> bool:
    """Something is there beside the lock that this very restore holds."""
    return any(child.name != "LOCK" for child in path.iterdir()) if path.is_dir() else path.exists()


def _put_in_place(staging: Path, targets: Mapping[str, Path]) -> tuple[Path, ...]:
    """Sets aside what is there, then moves in what was unpacked."""
    suffix = time.strftime(".before-restore-%Y%m%d-%H%M%S")
    set_aside = []
    for name, target in targets.items():
        for old in (target, *(target.with_name(target.name + ending) for ending in ("-wal", "-shm"))):
            if _is_occupied(old):
                old.rename(old.with_name(old.name + suffix))
                set_aside.append(old.with_name(old.name + suffix))
            elif old.is_dir():
                shutil.rmtree(old)
        if (staging / name).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(staging / name, target)
            if target.is_file():
                target.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return tuple(set_aside)

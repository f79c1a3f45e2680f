"""Looks over a workspace and says what is wrong with it, each finding with its remedy. Changes nothing.

Whatever is slow to load is left to the caller: which embedder is configured, and which adapters fit the model. Knows
nothing of a running server but that it holds the index.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from server.accounts import MIN_PASSWORD
from server.config import LOOPBACK, Settings
from server.errors import AdapterForeign, AdapterInvalid, Conflict, ModelError
from server.model_store import ModelStore
from server.private_files import OTHERS
from server.retrieval import index_lock
from server.schema import MIGRATION_COUNTS

MIN_FREE_BYTES: Final = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Finding:
    """`level`: wrong, or a note that needs no action now."""

    area: Literal["settings", "database", "index", "adapters", "models", "permissions", "disk", "server"]
    level: Literal["wrong", "note"]
    what: str
    remedy: str


AdapterFaults = Callable[[], Iterator[tuple[str, AdapterInvalid]]]


def examine(
    settings: Settings, workspace: Path, *, fingerprint: Callable[[], str] | None, adapter_faults: AdapterFaults | None
) -> list[Finding]:
    """All findings. `fingerprint` is that of the configured embedder; None where it is not there to be asked."""
    checks: Sequence[Iterator[Finding]] = (
        _settings(settings, workspace),
        _database(settings.paths.data / "tailor.db"),
        _index(settings, fingerprint),
        _adapters(adapter_faults),
        _models(settings),
        _permissions(settings.paths.data),
        _disk(settings),
        _other_server(settings.paths.data / "index"),
    )
    return [finding for check in checks for finding in check]


def _settings(settings: Settings, workspace: Path) -> Iterator[Finding]:
    """What cannot be read or is unknown has been refused before."""
    password = settings.server.password.get_secret_value()
    if password and len(password) < MIN_PASSWORD:
        remedy = "set a longer server.password"
        yield Finding("settings", "wrong", f"server.password has fewer than {MIN_PASSWORD} characters", remedy)
    if settings.server.host not in LOOPBACK and not settings.server.allowed_origins:
        remedy = "put a proxy with TLS before it (docs/operations.md)"
        yield Finding("settings", "note", f"others reach the server at {settings.server.host}, without TLS", remedy)
    file = workspace / "tailor.toml"
    if (
        password
        and file.is_file()
        and file.stat().st_mode & OTHERS
        and "password" in file.read_text("utf-8", "replace")
    ):
        yield Finding("settings", "wrong", f"other users of this machine can read the password in {file}",
                      f"chmod 600 {file}")  # fmt: skip


# ── database and index ───────────────────────────────────────────────────────────────────────────


def newer_migrations(opened: sqlite3.Connection) -> list[str]:
    """'part 3' for each migration that this version does not know."""
    if not opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'").fetchone():
        return []
    rows = opened.execute("SELECT part, number FROM migrations ORDER BY part, number")
    return [f"{part} {number}" for part, number in rows if number > MIGRATION_COUNTS.get(part, 0)]


def _database(file: Path) -> Iterator[Finding]:
    restore = "stop the server, keep a copy of the file, and restore a backup ('tailor restore FILE --force')"
    if not file.exists():
        return
    try:
        with closing(_read_only(file)) as opened:
            problems = [str(row[0]) for row in opened.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
            loose = {row[0] for row in opened.execute("PRAGMA foreign_key_check")} if not problems else set()
            newer = newer_migrations(opened) if not problems else []
    except sqlite3.Error as error:
        yield Finding("database", "wrong", f"{file} cannot be read: {error}", restore)
        return
    if problems:
        yield Finding("database", "wrong", f"{file} is damaged: {'; '.join(problems)}", restore)
    if loose:
        yield Finding("database", "wrong", f"rows of {', '.join(sorted(loose))} belong to rows that are gone", restore)
    if newer:
        what = f"{file} was written by a newer Tailor: migrations {', '.join(newer)} are unknown here"
        yield Finding("database", "wrong", what, "run that version, or restore a backup of this one")


def _index(settings: Settings, fingerprint: Callable[[], str] | None) -> Iterator[Finding]:
    index = settings.paths.data / "index"
    rebuild = "stop the server, remove data/index, and start it again: the index is built anew from the files"
    if not (index / "CURRENT").exists():
        return
    folder = index / (index / "CURRENT").read_text(encoding="utf-8", errors="replace").strip()
    try:
        made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        with closing(_read_only(folder / "catalog.db")) as opened:
            problems = [*_catalogue_problems(opened), *_segment_problems(opened, folder)]
    except (OSError, ValueError, sqlite3.Error) as error:
        yield Finding("index", "wrong", f"the index in {folder} cannot be read: {error}", rebuild)
        return
    for problem in problems:
        yield Finding("index", "wrong", f"{folder.name}: {problem}", rebuild)
    if fingerprint is not None and made.get("embedder") != fingerprint():
        yield Finding("index", "note", "the index was made with another embedder than embedding.name",
                      "none is needed: the server rebuilds it beside the one that serves")  # fmt: skip


def _catalogue_problems(opened: sqlite3.Connection) -> Iterator[str]:
    for (state,) in opened.execute("PRAGMA quick_check(5)"):
        if state != "ok":
            yield f"catalog.db is damaged: {state}"
    wrong = "SELECT count(*) FROM versions WHERE chunks != (SELECT count(*) FROM chunks WHERE version = versions.id)"
    if count := opened.execute(wrong).fetchone()[0]:
        yield f"{count} files do not have the passages that the catalogue says"


def _segment_problems(opened: sqlite3.Connection, folder: Path) -> Iterator[str]:
    for number, checksum in opened.execute("SELECT id, checksum FROM segments").fetchall():
        file = folder / f"seg-{number}"
        if not file.exists():
            yield f"{file.name} is missing"
        elif zlib.crc32(file.read_bytes()) != checksum:
            yield f"{file.name} is damaged: it does not have its checksum"


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)


# ── files beside them ────────────────────────────────────────────────────────────────────────────


def _adapters(faults: AdapterFaults | None) -> Iterator[Finding]:
    try:
        for name, fault in faults() if faults is not None else ():
            remedy = "repair it, or remove its folder from adapters/"
            level: Literal["wrong", "note"] = "note" if isinstance(fault, AdapterForeign) else "wrong"
            yield Finding("adapters", level, f"{name}: {fault}", remedy)
    except ModelError as error:
        yield Finding("models", "wrong", str(error), "name another model (model.name), or fetch it again")


def _models(settings: Settings) -> Iterator[Finding]:
    store = ModelStore(settings.paths.data / "models")
    for name in (settings.model.name, settings.embedding.name):
        if store.is_known(name) and not store.is_complete(name):
            there = (settings.paths.data / "models" / name).exists()
            what = "is there, but not whole" if there else "is not there yet"
            yield Finding("models", "wrong" if there else "note", f"the model {name} {what}",
                          "'tailor serve' fetches it, which needs the network")  # fmt: skip
    for kind, name in ((store.chat_model, settings.model.name), (store.embedder, settings.embedding.name)):
        if store.is_known(name):
            continue
        try:
            kind(name)
        except ModelError as error:
            yield Finding("models", "wrong", str(error), "correct the setting")


def _permissions(data: Path) -> Iterator[Finding]:
    if not data.exists():
        return
    if data.stat().st_mode & OTHERS:
        what = f"other users of this machine can look into {data}"
        yield Finding("permissions", "wrong", what, f"chmod 700 {data}")
    for file in sorted(data.glob("tailor.db*")):
        if file.stat().st_mode & OTHERS:
            yield Finding("permissions", "wrong", f"other users of this machine can read {file}", f"chmod 600 {file}")


def _disk(settings: Settings) -> Iterator[Finding]:
    data = settings.paths.data
    folder = next(path for path in (data, *data.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        what = f"the disk of {data} has {free / 1e6:,.0f} MB left"
        yield Finding("disk", "wrong", what, "free some space, or give it another disk (paths.data)")


def _other_server(index: Path) -> Iterator[Finding]:
    if not index.exists():
        return
    try:
        with index_lock(index):
            pass
    except Conflict:
        yield Finding("server", "note", "a server, or 'tailor index', uses this workspace just now",
                      "none is needed, unless there should be none")  # fmt: skip

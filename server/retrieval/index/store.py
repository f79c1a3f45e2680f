"""The index on disk: segments as files, and `catalog.db`, which says what is in them and what lives when.

A change writes its segment first, synced, then one transaction makes the generation. So a kill at any point leaves the
last complete generation, and files that nothing names, which the next start removes. Versions of files stay for the
generations that are kept, so that an earlier one can be taken up again; merging segments leaves the rest behind.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from server.database import Database
from server.errors import NotFound
from server.retrieval.index import catalog
from server.retrieval.index.catalog import CHUNK, MIGRATIONS, VERSION, Made
from server.retrieval.index.files import Chunk, FileKey, FileRecord, suspicious_places
from server.retrieval.index.generation import Generation, Version
from server.retrieval.index.segment import Segment
from server.types import Passage
from server.words import term_counts

log = logging.getLogger("tailor.retrieval")

TOLD: Final = 50         # files that a generation's history names
TOLD_PLACES: Final = 20  # of suspicious passages in one file
_SAME_SIZE: Final = 4    # so many segments of one order of size become one
_DEAD_SHARE: Final = 0.3
_ASKED: Final = 500      # values in one query


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file's version that is to be stored: `vectors` [chunks, dimension]."""

    key: FileKey
    record: FileRecord
    chunks: tuple[Chunk, ...]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Written:
    """A segment that is on disk, and what the catalogue must know of it."""

    at: int
    folder: str
    segment: Segment
    arrays: str
    checksum: int


@dataclass(frozen=True, slots=True)
class Merged:
    """`written` is None where nothing is left of the segments."""

    numbers: tuple[int, ...]
    written: _Written | None


class IndexStore:
    """One index folder. Reading is safe from any thread; one thread at a time may change it."""

    def __init__(self, folder: Path, *, kept: int = 20, first_number: int = 1) -> None:
        """`kept` generations stay; `first_number` is what the first one is called."""
        self._folder = folder
        self._kept = kept
        self._first = first_number
        self._database = Database(folder / "catalog.db")
        self._database.migrate("index", MIGRATIONS)
        self._segments: dict[int, tuple[str, Segment]] = {}
        self._lock = threading.Lock()   # the one above, and changes of the catalogue
        self._next = 1
        self._numbers = threading.Lock()

    def close(self) -> None:
        self._database.close()

    def open(self) -> Generation:
        """The last complete generation. What is damaged is forgotten, so that its files are read anew."""
        rows = self._query("SELECT id, folder, arrays, checksum FROM segments")
        named = {_file_name(at) for at, *_ in rows}
        for stray in self._folder.glob("seg-*"):
            if stray.name not in named:
                stray.unlink(missing_ok=True)
        for at, folder, arrays, checksum in rows:
            try:
                segment = Segment.open(self._folder / _file_name(at), json.loads(arrays), checksum)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("segment %d of the index is damaged, its files are read anew: %s", at, error)
                self._forget_segment(at)
            else:
                self._segments[at] = (folder, segment)
        self._next = max((at for at, *_ in rows), default=0) + 1
        return self.generation(self.newest())

    def newest(self) -> int:
        """Its number; 0 before the first."""
        return int(self._query("SELECT coalesce(max(number), 0) FROM generations")[0][0])

    def generation(self, number: int) -> Generation:
        """As it was. Raises NotFound when it is not kept."""
        if number and not self._query("SELECT 1 FROM generations WHERE number = ?", number):
            kept = self._query("SELECT min(number), max(number) FROM generations")[0]
            raise NotFound(f"generation {number} is not kept: kept are {kept[0]} to {kept[1]}")
        rows = self._query(
            f"SELECT {VERSION} FROM versions JOIN lives ON lives.version = versions.id "
            "WHERE born <= ? AND (died IS NULL OR died > ?)", number, number,
        )  # fmt: skip
        return Generation.build(number, map(catalog.version, rows), dict(self._segments), self.chunk)

    def history(self) -> list[Made]:
        """Newest first."""
        rows = self._query(
            "SELECT number, at, cause, files, chunks, added, changed, removed, told FROM generations "
            "ORDER BY number DESC"
        )
        return [catalog.made(row) for row in rows]

    # ── looking things up ────────────────────────────────────────────────────────────────────────

    def chunk(self, version: int, place: int) -> Chunk | None:
        """None where its generation is not kept any more."""
        rows = self._query(f"SELECT {CHUNK} FROM chunks WHERE version = ? AND place = ?", version, place)
        return catalog.chunk(rows[0]) if rows else None

    def passage(self, chunk_id: str) -> Passage | None:
        """The newest passage of that id that is kept."""
        rows = self._query(
            f"SELECT folder, file, {', '.join('chunks.' + name for name in CHUNK.split(', '))} FROM chunks "
            "JOIN versions ON versions.id = version WHERE chunks.id = ? ORDER BY version DESC LIMIT 1", chunk_id,
        )  # fmt: skip
        return catalog.chunk(rows[0][2:]).passage(FileKey(*rows[0][:2]), 0.0) if rows else None

    def known(self, key: FileKey, digest: str) -> Version | None:
        """A version of this file with this content, living or not."""
        rows = self._query(
            f"SELECT {VERSION} FROM versions WHERE folder = ? AND file = ? AND digest = ? ORDER BY id DESC LIMIT 1",
            key.folder, key.file, digest,
        )  # fmt: skip
        return catalog.version(rows[0]) if rows else None

    def vectors(self, contents: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Of those contents that some version has."""
        found: dict[str, NDArray[np.float32]] = {}
        asked = list(contents)
        with self._lock:  # segments may be merged meanwhile
            for start in range(0, len(asked), _ASKED):
                part = asked[start : start + _ASKED]
                rows = self._query(
                    "SELECT content, version, place, segment FROM chunks JOIN versions ON versions.id = version "
                    f"WHERE content IN ({_marks(part)})", *part,
                )  # fmt: skip
                for content, version, place, at in rows:
                    segment = self._segments[at][1]
                    found[content] = np.array(segment.vectors[segment.span(version)[0] + place])
        return found

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def stage(self, files: Sequence[Prepared]) -> list[Version]:
        """Stores versions that no generation has yet: a segment for each folder. Durable when it returns."""
        versions: list[Version] = []
        with self._lock:
            last = self._query("SELECT seq FROM sqlite_sequence WHERE name = 'versions'")  # no number comes twice
            numbered = list(enumerate(files, last[0][0] + 1 if last else 1))
            made: dict[str, _Written] = {}
            for folder in sorted({file.key.folder for file in files}):
                inside = [(at, file) for at, file in numbered if file.key.folder == folder and file.chunks]
                if inside:
                    made[folder] = self._write(folder, _segment(inside))
            with self._database.transaction() as db:
                for written in made.values():
                    _name(db.conn, written)
                for at, file in numbered:
                    segment_at = made[file.key.folder].at if file.chunks else None
                    places = suspicious_places(file.key, file.chunks)
                    version = Version(
                        at, file.key, file.record, len(file.chunks), segment_at, len(places), places[:TOLD_PLACES]
                    )
                    row = catalog.version_row(version)
                    db.conn.execute(f"INSERT INTO versions ({VERSION}) VALUES ({_marks(row)})", row)
                    db.conn.executemany(
                        f"INSERT INTO chunks (version, place, {CHUNK}) VALUES (?,?,?,?,?,?,?,?,?,?)",
                        [(at, place, *catalog.chunk_row(chunk)) for place, chunk in enumerate(file.chunks)],
                    )
                    versions.append(version)
            self._segments |= {written.at: (written.folder, written.segment) for written in made.values()}
        return versions

    def publish(
        self, current: Generation, born: Collection[Version], dropped: Collection[FileKey], cause: str
    ) -> Generation:
        """Makes the next generation: `born` take their files' places, `dropped` are gone."""
        with self._lock:
            number = max(self.newest(), current.number, self._first - 1) + 1
            born = self._where_now(born)
            segments = {one.segment: self._segments[one.segment][1] for one in born if one.segment is not None}
            following = current.following(number, born, dropped, segments)
            told = [("removed", f"{key.folder}/{key.file}") for key in sorted(dropped) if key in current.files]
            told += [
                ("changed" if version.key in current.files else "added", f"{version.key.folder}/{version.key.file}")
                for version in sorted(born, key=lambda version: version.key)
            ]
            counts = [sum(what == each for each, _ in told) for what in ("added", "changed", "removed")]
            leaving = [
                current.files[key].id for key in {*dropped, *(version.key for version in born)} if key in current.files
            ]
            with self._database.transaction() as db:
                db.conn.execute(
                    "INSERT INTO generations VALUES (?,?,?,?,?,?,?,?,?)",
                    (number, time.time(), cause, len(following.files), following.chunks, *counts,
                     json.dumps(told[:TOLD])),
                )  # fmt: skip
                db.conn.executemany(
                    "UPDATE lives SET died = ? WHERE version = ? AND died IS NULL", [(number, at) for at in leaving]
                )
                db.conn.executemany(
                    "INSERT INTO lives VALUES (?, ?, NULL)", [(version.id, number) for version in born]
                )
                _touch(db.conn, born)  # an earlier version that came back was read again
                self._prune(db.conn)
        return following

    def _where_now(self, versions: Collection[Version]) -> list[Version]:
        """The same versions; their segments may have been merged since."""
        at: dict[int, int | None] = {}
        ids = [version.id for version in versions]
        for start in range(0, len(ids), _ASKED):
            part = ids[start : start + _ASKED]
            at |= dict(self._query(f"SELECT id, segment FROM versions WHERE id IN ({_marks(part)})", *part))
        return [replace(version, segment=at[version.id]) for version in versions]

    def touch(self, current: Generation, records: Mapping[FileKey, FileRecord]) -> Generation:
        """Keeps when files were read. No new generation: nothing that is found has changed."""
        following = current.with_records(records)
        with self._lock, self._database.transaction() as db:
            _touch(db.conn, [following.files[key] for key in records if key in following.files])
        return following

    def forget_unborn(self) -> None:
        """Versions that were stored for a generation which never came, and now never will."""
        with self._lock, self._database.transaction() as db:
            db.conn.execute("DELETE FROM versions WHERE id NOT IN (SELECT version FROM lives)")

    # ── merging ──────────────────────────────────────────────────────────────────────────────────

    def crowded(self) -> list[int]:
        """Segments that had better become one: many of a size, or one with many rows that no generation needs."""
        needed = dict(self._query("SELECT segment, sum(chunks) FROM versions WHERE segment NOT NULL GROUP BY segment"))
        by_size: dict[tuple[str, int], list[int]] = {}
        for at, (folder, segment) in sorted(dict(self._segments).items()):
            rows = needed.get(at, 0)
            if len(segment) - rows > _DEAD_SHARE * len(segment):
                return [at]
            by_size.setdefault((folder, int(np.log2(max(rows, 1)) / 2)), []).append(at)
        return next((found for found in by_size.values() if len(found) >= _SAME_SIZE), [])

    def merged(self, numbers: Sequence[int]) -> Merged:
        """One segment for several, without rows that no generation needs. Takes long, and may be done beside whoever
        changes the index, who then takes it up."""
        parts = [self._segments[at] for at in numbers]
        kept = [at for (at,) in self._query(f"SELECT id FROM versions WHERE segment IN ({_marks(numbers)})", *numbers)]
        masks = [(segment, segment.mask(kept)) for _, segment in parts]
        if not any(mask.any() for _, mask in masks):
            return Merged(tuple(numbers), None)
        return Merged(tuple(numbers), self._write(parts[0][0], Segment.merged(masks)))

    def take_up(self, merged: Merged) -> Generation:
        """The newest generation, in the merged segment in place of those that it is made of."""
        new, old = merged.written, merged.numbers
        with self._lock:
            with self._database.transaction() as db:
                if new is not None:
                    _name(db.conn, new)
                db.conn.execute(
                    f"UPDATE versions SET segment = ? WHERE segment IN ({_marks(old)})",
                    (new.at if new is not None else None, *old),
                )
                db.conn.execute(f"DELETE FROM segments WHERE id IN ({_marks(old)})", old)
            if new is not None:
                self._segments[new.at] = (new.folder, new.segment)
            for at in old:
                del self._segments[at]
                (self._folder / _file_name(at)).unlink(missing_ok=True)  # who has it mapped keeps it
        return self.generation(self.newest())

    # ── looking after ────────────────────────────────────────────────────────────────────────────

    def mark(self, name: str, value: str | None) -> None:
        """Keeps a word across restarts; None takes it away."""
        with self._lock, self._database.transaction() as db:
            db.conn.execute("DELETE FROM marks WHERE name = ?", (name,))
            if value is not None:
                db.conn.execute("INSERT INTO marks VALUES (?, ?)", (name, value))

    def marked(self, name: str) -> str | None:
        rows = self._query("SELECT value FROM marks WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def check_integrity(self) -> None:
        """Raises ValueError when the catalogue, the files and the newest generation contradict each other."""
        with self._lock:
            for (state,) in self._query("PRAGMA integrity_check"):
                if state != "ok":
                    raise ValueError(f"catalog.db: {state}")
            for at, rows in self._query("SELECT id, rows FROM segments"):
                if at not in self._segments or len(self._segments[at][1]) != rows:
                    raise ValueError(f"segment {at} is not what the catalogue says")
                if not (self._folder / _file_name(at)).exists():
                    raise ValueError(f"segment {at} has no file")
            wrong = self._query(
                "SELECT id FROM versions WHERE chunks != (SELECT count(*) FROM chunks WHERE version = versions.id) "
                "OR (chunks > 0) != (segment IS NOT NULL)"
            )
            if wrong:
                raise ValueError(f"versions {[at for (at,) in wrong][:5]} do not have the chunks that they say")
            self.generation(self.newest()).check_integrity()

    def _prune(self, db: sqlite3.Connection) -> None:
        db.execute(
            "DELETE FROM generations WHERE number NOT IN (SELECT number FROM generations ORDER BY number DESC LIMIT ?)",
            (self._kept,),
        )
        oldest = "(SELECT min(number) FROM generations)"
        gone = db.execute(f"SELECT DISTINCT version FROM lives WHERE died <= {oldest}").fetchall()
        db.execute(f"DELETE FROM lives WHERE died <= {oldest}")
        db.executemany("DELETE FROM versions WHERE id = ? AND id NOT IN (SELECT version FROM lives)", gone)

    def _write(self, folder: str, segment: Segment) -> _Written:
        """To a file of its own, which nothing names yet."""
        with self._numbers:
            at, self._next = self._next, self._next + 1
        path = self._folder / _file_name(at)
        arrays, checksum = segment.write(path)
        return _Written(at, folder, Segment.open(path, arrays, checksum), json.dumps(arrays), checksum)

    def _forget_segment(self, at: int) -> None:
        with self._database.transaction() as db:
            db.conn.execute("DELETE FROM versions WHERE segment = ?", (at,))
            db.conn.execute("DELETE FROM segments WHERE id = ?", (at,))
        (self._folder / _file_name(at)).unlink(missing_ok=True)

    def _query(self, sql: str, *values: Any) -> list[Any]:
        return list(self._database.connection().conn.execute(sql, values).fetchall())


def _segment(files: Iterable[tuple[int, Prepared]]) -> Segment:
    versions: list[int] = []
    terms, vectors, continues = [], [], []
    for at, file in files:
        versions += [at] * len(file.chunks)
        terms += [term_counts(chunk.searched_text) for chunk in file.chunks]
        vectors.append(file.vectors)
        continues += [chunk.continues for chunk in file.chunks]
    return Segment.build(versions, terms, np.concatenate(vectors), continues)


def _name(db: sqlite3.Connection, written: _Written) -> None:
    db.execute(
        "INSERT INTO segments VALUES (?,?,?,?,?)",
        (written.at, written.folder, len(written.segment), written.arrays, written.checksum),
    )


def _touch(db: sqlite3.Connection, versions: Iterable[Version]) -> None:
    db.executemany(
        "UPDATE versions SET bytes = ?, mtime_ns = ?, read_ns = ? WHERE id = ?",
        [(one.record.bytes, one.record.mtime_ns, one.record.read_ns, one.id) for one in versions],
    )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _file_name(at: int) -> str:
    return f"seg-{at}"

"""The index on disk: segments as files, and `catalog.db`, which says what is in them and which versions are live when.

A change writes its segment first, synced, then one transaction publishes the generation. So a kill at any point leaves
the last complete generation, and files that the catalogue does not name, which the next start removes. Versions of
files stay as long as a kept generation has them, so that one can roll back; merging segments drops the others. Knows
nothing of files' formats, of threads, or of questions.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from server.database import Database
from server.errors import NotFound
from server.retrieval.index import catalog, purging
from server.retrieval.index.catalog import (
    CHUNK_COLUMNS,
    MIGRATIONS,
    VERSION_COLUMNS,
    GenerationRecord,
    placeholders,
    segment_file_name,
)
from server.retrieval.index.files import Chunk, FileKey, FileRecord, suspicious_locations
from server.retrieval.index.generation import FileVersion, Generation
from server.retrieval.index.prepared import PreparedFile, build_segments
from server.retrieval.index.segment import Segment
from server.types import Passage

log = logging.getLogger("tailor.retrieval")

LISTED_FILES: Final = 50  # files that a generation's record lists
LISTED_LOCATIONS: Final = 20  # of suspicious passages in one file
_MERGE_FACTOR: Final = 4  # so many segments of one size class are merged
_DEAD_ROW_SHARE: Final = 0.3
_QUERY_VALUES: Final = 500  # values in one query


@dataclass(frozen=True, slots=True)
class _WrittenSegment:
    """A segment that is on disk, and its row of the catalogue."""

    segment_id: int
    folder: str
    segment: Segment
    arrays: str
    checksum: int


@dataclass(frozen=True, slots=True)
class MergedSegments:
    """A segment that replaces others: `written` is None where no row of them is left."""

    segment_ids: tuple[int, ...]
    written: _WrittenSegment | None


class IndexStore:
    """One index folder. Reading is safe from any thread; one thread at a time may change it."""

    def __init__(self, folder: Path, *, kept_generations: int = 20, first_number: int = 1) -> None:
        """`first_number` is the number of the first generation."""
        self._folder = folder
        self._kept_generations = kept_generations
        self._first_number = first_number
        self._database = Database(folder / "catalog.db")
        self._database.migrate("index", MIGRATIONS)
        self._segments: dict[int, tuple[str, Segment]] = {}
        self._lock = threading.Lock()  # of the segments, and of changes of the catalogue
        self._next_segment = 1
        self._segment_number_lock = threading.Lock()

    def close(self) -> None:
        self._database.close()

    def open(self) -> Generation:
        """The last complete generation. A damaged segment is dropped, so that its files are read again."""
        rows = self._query("SELECT id, folder, arrays, checksum FROM segments")
        named = {segment_file_name(segment_id) for segment_id, *_ in rows}
        for unnamed in self._folder.glob("seg-*"):
            if unnamed.name not in named:
                unnamed.unlink(missing_ok=True)
        for segment_id, folder, arrays, checksum in rows:
            try:
                segment = Segment.open(self._folder / segment_file_name(segment_id), json.loads(arrays), checksum)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("segment %d of the index is damaged, its files are read anew: %s", segment_id, error)
                self._drop_segment(segment_id)
            else:
                self._segments[segment_id] = (folder, segment)
        self._next_segment = max((segment_id for segment_id, *_ in rows), default=0) + 1
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
            f"SELECT {VERSION_COLUMNS} FROM versions JOIN lives ON lives.version = versions.id "
            "WHERE born <= ? AND (died IS NULL OR died > ?)", number, number,
        )  # fmt: skip
        return Generation.build(number, map(catalog.version_from_row, rows), dict(self._segments), self.chunk)

    def history(self) -> list[GenerationRecord]:
        """Newest first."""
        rows = self._query(
            "SELECT number, at, cause, files, chunks, added, changed, removed, told FROM generations "
            "ORDER BY number DESC"
        )
        return [catalog.generation_record_from_row(row) for row in rows]

    # ── lookups ──────────────────────────────────────────────────────────────────────────────────

    def chunk(self, version: int, position: int) -> Chunk | None:
        """None where its generation is not kept any more."""
        rows = self._query(f"SELECT {CHUNK_COLUMNS} FROM chunks WHERE version = ? AND place = ?", version, position)
        return catalog.chunk_from_row(rows[0]) if rows else None

    def passage(self, chunk_id: str) -> Passage | None:
        """The newest passage of that id that is kept."""
        rows = self._query(
            f"SELECT folder, file, {', '.join('chunks.' + name for name in CHUNK_COLUMNS.split(', '))} FROM chunks "
            "JOIN versions ON versions.id = version WHERE chunks.id = ? ORDER BY version DESC LIMIT 1", chunk_id,
        )  # fmt: skip
        return catalog.chunk_from_row(rows[0][2:]).passage(FileKey(*rows[0][:2]), 0.0) if rows else None

    def find_version(self, key: FileKey, digest: str) -> FileVersion | None:
        """A version of this file with this content, live or not."""
        rows = self._query(
            f"SELECT {VERSION_COLUMNS} FROM versions WHERE folder = ? AND file = ? AND digest = ? "
            "ORDER BY id DESC LIMIT 1", key.folder, key.file, digest,
        )  # fmt: skip
        return catalog.version_from_row(rows[0]) if rows else None

    def vectors(self, content_hashes: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """By content hash, of those that some version has."""
        found: dict[str, NDArray[np.float32]] = {}
        wanted = list(content_hashes)
        with self._lock:  # segments may be merged meanwhile
            for start in range(0, len(wanted), _QUERY_VALUES):
                some = wanted[start : start + _QUERY_VALUES]
                rows = self._query(
                    "SELECT content, version, place, segment FROM chunks JOIN versions ON versions.id = version "
                    f"WHERE content IN ({placeholders(some)})", *some,
                )  # fmt: skip
                for content, version, position, segment_id in rows:
                    segment = self._segments[segment_id][1]
                    found[content] = np.array(segment.vectors[segment.span(version)[0] + position])
                kept = self._query(f"SELECT * FROM embedded WHERE content IN ({placeholders(some)})", *some)
                found |= {content: np.frombuffer(vector, np.float32) for content, vector in kept}
        return found

    def keep_vectors(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """By content hash, of a file that is being embedded: until it is staged, or the index has caught up."""
        with self._lock, self._database.transaction() as db:
            db.conn.executemany(
                "INSERT OR REPLACE INTO embedded VALUES (?, ?)",
                [(content, vector.astype(np.float32).tobytes()) for content, vector in vectors.items()],
            )

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def stage(self, files: Sequence[PreparedFile], segments: Mapping[str, Segment] | None = None) -> list[FileVersion]:
        """Stores versions that are in no generation yet. Durable when it returns. `segments`: by `build_segments`."""
        versions: list[FileVersion] = []
        segments = build_segments(files) if segments is None else segments
        with self._lock:
            last = self._query("SELECT seq FROM sqlite_sequence WHERE name = 'versions'")  # no number comes twice
            first = last[0][0] + 1 if last else 1
            numbered = list(enumerate(files, first))
            written_segments = {
                folder: self._write(folder, replace(segment, versions=segment.versions + first))
                for folder, segment in segments.items()
            }
            with self._database.transaction() as db:
                for written in written_segments.values():
                    _insert_segment(db.conn, written)
                for version_id, file in numbered:
                    segment_id = written_segments[file.key.folder].segment_id if file.chunks else None
                    locations = suspicious_locations(file.key, file.chunks)
                    version = FileVersion(
                        version_id,
                        file.key,
                        file.record,
                        len(file.chunks),
                        segment_id,
                        len(locations),
                        locations[:LISTED_LOCATIONS],
                    )
                    row = catalog.version_row(version)
                    db.conn.execute(f"INSERT INTO versions ({VERSION_COLUMNS}) VALUES ({placeholders(row)})", row)
                    db.conn.executemany(
                        f"INSERT INTO chunks (version, place, {CHUNK_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)",
                        [(version_id, at, *catalog.chunk_row(chunk)) for at, chunk in enumerate(file.chunks)],
                    )
                    versions.append(version)
                db.conn.executemany(
                    "DELETE FROM embedded WHERE content = ?",
                    [(chunk.content_hash,) for file in files for chunk in file.chunks],
                )
            self._segments |= {one.segment_id: (one.folder, one.segment) for one in written_segments.values()}
        return versions

    def publish(
        self, current: Generation, new_versions: Collection[FileVersion], removed: Collection[FileKey], cause: str
    ) -> Generation:
        """Makes the next generation: `new_versions` replace those of their files, `removed` are gone."""
        with self._lock:
            number = max(self.newest(), current.number, self._first_number - 1) + 1
            new_versions = self._with_current_segments(new_versions)
            segments = {one.segment: self._segments[one.segment][1] for one in new_versions if one.segment is not None}
            successor = current.successor(number, new_versions, removed, segments)
            changes = [("removed", f"{key.folder}/{key.file}") for key in sorted(removed) if key in current.files]
            changes += [
                ("changed" if version.key in current.files else "added", f"{version.key.folder}/{version.key.file}")
                for version in sorted(new_versions, key=lambda version: version.key)
            ]
            counts = [sum(what == each for each, _ in changes) for what in ("added", "changed", "removed")]
            keys = {*removed, *(version.key for version in new_versions)}
            replaced = [current.files[key].id for key in keys if key in current.files]
            with self._database.transaction() as db:
                db.conn.execute(
                    "INSERT INTO generations VALUES (?,?,?,?,?,?,?,?,?)",
                    (number, time.time(), cause, len(successor.files), successor.chunks, *counts,
                     json.dumps(changes[:LISTED_FILES])),
                )  # fmt: skip
                db.conn.executemany(
                    "UPDATE lives SET died = ? WHERE version = ? AND died IS NULL", [(number, old) for old in replaced]
                )
                db.conn.executemany(
                    "INSERT INTO lives VALUES (?, ?, NULL)", [(version.id, number) for version in new_versions]
                )
                catalog.update_read_times(db.conn, new_versions)  # a version that came back was read again
                catalog.prune(db.conn, self._kept_generations)
        return successor

    def _with_current_segments(self, versions: Collection[FileVersion]) -> list[FileVersion]:
        """The same versions; their segments may have been merged since."""
        segment_of: dict[int, int | None] = {}
        ids = [version.id for version in versions]
        for start in range(0, len(ids), _QUERY_VALUES):
            some = ids[start : start + _QUERY_VALUES]
            rows = self._query(f"SELECT id, segment FROM versions WHERE id IN ({placeholders(some)})", *some)
            segment_of |= dict(rows)
        return [replace(version, segment=segment_of[version.id]) for version in versions]

    def touch(self, current: Generation, records: Mapping[FileKey, FileRecord]) -> Generation:
        """Stores when files were read. No new generation: no search result changes."""
        successor = current.with_records(records)
        with self._lock, self._database.transaction() as db:
            catalog.update_read_times(db.conn, [successor.files[key] for key in records if key in successor.files])
        return successor

    def delete_unpublished(self) -> None:
        """Versions that were staged for a generation which was never published, and now never will be."""
        with self._lock, self._database.transaction() as db:
            db.conn.execute("DELETE FROM versions WHERE id NOT IN (SELECT version FROM lives)")
            db.conn.execute("DELETE FROM embedded")

    def generations_with(self, key: FileKey) -> tuple[int, ...]:
        return purging.generations_with(self._database.connection().conn, key)

    def purge(self, key: FileKey) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Drops its versions that are not live and the generations that had one; these, and segments with dead rows."""
        with self._lock:
            with self._database.transaction() as db:
                purged, words, known = purging.purge(db.conn, key)
            self._database.scrub(words)
            return purged, tuple(one for one, (_, part) in self._segments.items() if not part.mask(known).all())

    def rewrite(self) -> None:
        """Nothing of a deleted row is left in the catalogue's file, whichever process deleted it."""
        self._database.rewrite()

    @property
    def unscrubbed(self) -> bool:
        return self._database.unscrubbed

    # ── merging ──────────────────────────────────────────────────────────────────────────────────

    def merge_candidates(self) -> list[int]:
        """Segments to merge: many of one size class, or one with many rows that no generation needs."""
        needed = dict(self._query("SELECT segment, sum(chunks) FROM versions WHERE segment NOT NULL GROUP BY segment"))
        by_size: dict[tuple[str, int], list[int]] = {}
        for segment_id, (folder, segment) in sorted(dict(self._segments).items()):
            rows = needed.get(segment_id, 0)
            if len(segment) - rows > _DEAD_ROW_SHARE * len(segment):
                return [segment_id]
            by_size.setdefault((folder, int(np.log2(max(rows, 1)) / 2)), []).append(segment_id)
        return next((found for found in by_size.values() if len(found) >= _MERGE_FACTOR), [])

    def merge(self, segment_ids: Sequence[int]) -> MergedSegments:
        """One segment from several, without rows that no generation needs. Takes long, and may run beside a writer;
        `commit_merge` then puts it into the index."""
        parts = [self._segments[segment_id] for segment_id in segment_ids]
        rows = self._query(f"SELECT id FROM versions WHERE segment IN ({placeholders(segment_ids)})", *segment_ids)
        version_ids = [version_id for (version_id,) in rows]
        masks = [(segment, segment.mask(version_ids)) for _, segment in parts]
        if not any(mask.any() for _, mask in masks):
            return MergedSegments(tuple(segment_ids), None)
        return MergedSegments(tuple(segment_ids), self._write(parts[0][0], Segment.merge(masks)))

    def commit_merge(self, merged: MergedSegments) -> Generation:
        """Replaces the segments by the merged one. Returns the newest generation over it."""
        new, old = merged.written, merged.segment_ids
        with self._lock:
            with self._database.transaction() as db:
                if new is not None:
                    _insert_segment(db.conn, new)
                db.conn.execute(
                    f"UPDATE versions SET segment = ? WHERE segment IN ({placeholders(old)})",
                    (new.segment_id if new is not None else None, *old),
                )
                db.conn.execute(f"DELETE FROM segments WHERE id IN ({placeholders(old)})", old)
            if new is not None:
                self._segments[new.segment_id] = (new.folder, new.segment)
            for segment_id in old:
                del self._segments[segment_id]
                (self._folder / segment_file_name(segment_id)).unlink(missing_ok=True)  # who has it mapped keeps it
        return self.generation(self.newest())

    # ── maintenance ──────────────────────────────────────────────────────────────────────────────

    def set_mark(self, name: str, value: str | None) -> None:
        """Stores a value under a name, across restarts; None removes it."""
        with self._lock, self._database.transaction() as db:
            db.conn.execute("DELETE FROM marks WHERE name = ?", (name,))
            if value is not None:
                db.conn.execute("INSERT INTO marks VALUES (?, ?)", (name, value))

    def get_mark(self, name: str) -> str | None:
        rows = self._query("SELECT value FROM marks WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def check_integrity(self) -> None:
        """Raises ValueError when the catalogue, the files and the newest generation contradict each other."""
        with self._lock:
            for (state,) in self._query("PRAGMA integrity_check"):
                if state != "ok":
                    raise ValueError(f"catalog.db: {state}")
            for segment_id, rows in self._query("SELECT id, rows FROM segments"):
                if segment_id not in self._segments or len(self._segments[segment_id][1]) != rows:
                    raise ValueError(f"segment {segment_id} is not what the catalogue says")
                if not (self._folder / segment_file_name(segment_id)).exists():
                    raise ValueError(f"segment {segment_id} has no file")
            wrong = self._query(
                "SELECT id FROM versions WHERE chunks != (SELECT count(*) FROM chunks WHERE version = versions.id) "
                "OR (chunks > 0) != (segment IS NOT NULL)"
            )
            if wrong:
                raise ValueError(f"versions {[number for (number,) in wrong][:5]} do not have the chunks that they say")
            self.generation(self.newest()).check_integrity()

    def _write(self, folder: str, segment: Segment) -> _WrittenSegment:
        """To a file of its own, which the catalogue does not name yet."""
        with self._segment_number_lock:
            segment_id, self._next_segment = self._next_segment, self._next_segment + 1
        path = self._folder / segment_file_name(segment_id)
        try:
            arrays, checksum = segment.write(path)
        except OSError:
            path.unlink(missing_ok=True)  # a part of it would keep the room that is missing
            raise
        return _WrittenSegment(segment_id, folder, Segment.open(path, arrays, checksum), json.dumps(arrays), checksum)

    def _drop_segment(self, segment_id: int) -> None:
        with self._database.transaction() as db:
            db.conn.execute("DELETE FROM versions WHERE segment = ?", (segment_id,))
            db.conn.execute("DELETE FROM segments WHERE id = ?", (segment_id,))
        (self._folder / segment_file_name(segment_id)).unlink(missing_ok=True)

    def _query(self, sql: str, *values: Any) -> list[Any]:
        return list(self._database.connection().conn.execute(sql, values).fetchall())


def _insert_segment(db: sqlite3.Connection, written: _WrittenSegment) -> None:
    db.execute(
        "INSERT INTO segments VALUES (?,?,?,?,?)",
        (written.segment_id, written.folder, len(written.segment), written.arrays, written.checksum),
    )

"""The tables of the index's `catalog.db`, and the conversion of its rows. Knows nothing of segments' contents."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.retrieval.index.files import Chunk, FileKey, FileRecord, FileState
from server.retrieval.index.generation import FileVersion

MIGRATIONS: Final = (
    """
    CREATE TABLE segments (
        id INTEGER PRIMARY KEY, folder TEXT NOT NULL, rows INTEGER NOT NULL, arrays TEXT NOT NULL,
        checksum INTEGER NOT NULL
    );
    CREATE TABLE versions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, folder TEXT NOT NULL, file TEXT NOT NULL, state TEXT NOT NULL,
        reason TEXT NOT NULL, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, read_ns INTEGER NOT NULL,
        digest TEXT NOT NULL, chunks INTEGER NOT NULL, segment INTEGER REFERENCES segments (id),
        suspicious INTEGER NOT NULL, suspicious_at TEXT NOT NULL
    );
    CREATE INDEX versions_by_place ON versions (folder, file, digest);
    CREATE INDEX versions_by_segment ON versions (segment);
    CREATE TABLE chunks (
        version INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE, place INTEGER NOT NULL, id TEXT NOT NULL,
        content TEXT NOT NULL, text TEXT NOT NULL, heading TEXT NOT NULL, line_start INTEGER, line_end INTEGER,
        page INTEGER, suspicion REAL NOT NULL, PRIMARY KEY (version, place)
    ) WITHOUT ROWID;
    CREATE INDEX chunks_by_content ON chunks (content);
    CREATE INDEX chunks_by_id ON chunks (id);
    CREATE TABLE generations (
        number INTEGER PRIMARY KEY, at REAL NOT NULL, cause TEXT NOT NULL, files INTEGER NOT NULL,
        chunks INTEGER NOT NULL, added INTEGER NOT NULL, changed INTEGER NOT NULL, removed INTEGER NOT NULL,
        told TEXT NOT NULL
    );
    CREATE TABLE lives (
        version INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE, born INTEGER NOT NULL, died INTEGER,
        PRIMARY KEY (version, born)
    ) WITHOUT ROWID;
    CREATE INDEX lives_by_death ON lives (died);
    CREATE TABLE marks (name TEXT PRIMARY KEY, value TEXT NOT NULL)
    """,
    # Vectors of a file that is being embedded: so that a stop in the middle of a large one loses nothing.
    """
    ALTER TABLE versions ADD COLUMN ctime_ns INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE embedded (content TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID
    """,
)

VERSION_COLUMNS: Final = (
    "id, folder, file, state, reason, bytes, mtime_ns, read_ns, digest, ctime_ns, chunks, segment, suspicious, "
    "suspicious_at"
)
CHUNK_COLUMNS: Final = "id, content, text, heading, line_start, line_end, page, suspicion"


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """A generation in the history. `told` lists its first files, each with its change: added, changed or removed."""

    number: int
    at: float
    cause: str
    files: int
    chunks: int
    added: int
    changed: int
    removed: int
    told: tuple[tuple[str, str], ...]


def version_row(version: FileVersion) -> tuple[Any, ...]:
    """Values of `VERSION_COLUMNS`."""
    key, record = version.key, version.record
    return (version.id, key.folder, key.file, record.state.value, record.reason, record.bytes, record.mtime_ns,
            record.read_ns, record.digest, record.ctime_ns, version.chunks, version.segment, version.suspicious,
            json.dumps(version.suspicious_at))  # fmt: skip


def version_from_row(row: Sequence[Any]) -> FileVersion:
    number, folder, file, state, reason, size, mtime_ns, read_ns, digest, ctime_ns, *rest = row
    chunks, segment, suspicious, locations = rest
    record = FileRecord(FileState(state), reason, size, mtime_ns, read_ns, digest, ctime_ns)
    return FileVersion(number, FileKey(folder, file), record, chunks, segment, suspicious, tuple(json.loads(locations)))


def chunk_row(chunk: Chunk) -> tuple[Any, ...]:
    heading = json.dumps(chunk.heading)
    return (chunk.id, chunk.content_hash, chunk.text, heading, chunk.line_start, chunk.line_end, chunk.page,
            chunk.suspicion)  # fmt: skip


def chunk_from_row(row: Sequence[Any]) -> Chunk:
    chunk_id, content, text, heading, line_start, line_end, page, suspicion = row
    return Chunk(chunk_id, content, text, tuple(json.loads(heading)), line_start, line_end, page, suspicion=suspicion)


def generation_record_from_row(row: Sequence[Any]) -> GenerationRecord:
    number, at, cause, files, chunks, added, changed, removed, told = row
    listed = tuple((str(what), str(file)) for what, file in json.loads(told))
    return GenerationRecord(number, at, cause, files, chunks, added, changed, removed, listed)


def update_read_times(db: sqlite3.Connection, versions: Iterable[FileVersion]) -> None:
    db.executemany(
        "UPDATE versions SET bytes = ?, mtime_ns = ?, read_ns = ?, ctime_ns = ? WHERE id = ?",
        [(one.record.bytes, one.record.mtime_ns, one.record.read_ns, one.record.ctime_ns, one.id) for one in versions],
    )


def prune(db: sqlite3.Connection, kept_generations: int) -> None:
    """Takes out the oldest generations, and what they alone had."""
    db.execute(
        "DELETE FROM generations WHERE number NOT IN (SELECT number FROM generations ORDER BY number DESC LIMIT ?)",
        (kept_generations,),
    )
    oldest = "(SELECT min(number) FROM generations)"
    gone = db.execute(f"SELECT DISTINCT version FROM lives WHERE died <= {oldest}").fetchall()
    db.execute(f"DELETE FROM lives WHERE died <= {oldest}")
    db.executemany("DELETE FROM versions WHERE id = ? AND id NOT IN (SELECT version FROM lives)", gone)


def placeholders(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def segment_file_name(segment_id: int) -> str:
    return f"seg-{segment_id}"

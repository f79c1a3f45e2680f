"""Takes all that is left of a deleted file out of the catalogue: its versions, and the generations that had one.

Works on a connection of the catalogue. Knows nothing of segments' contents.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from server.retrieval.index.files import FileKey

MIN_SCRUBBED_CHARS: Final = 12
SCRUBBED_CHUNKS: Final = 100

_LIVE = "born <= number AND (died IS NULL OR died > number)"


def generations_with(db: sqlite3.Connection, key: FileKey) -> tuple[int, ...]:
    """Kept generations in which the file is live, oldest first."""
    rows = db.execute(
        "SELECT DISTINCT number FROM generations, lives JOIN versions ON versions.id = version "
        f"WHERE folder = ? AND file = ? AND {_LIVE} ORDER BY number",
        (key.folder, key.file),
    )
    return tuple(number for (number,) in rows)


def purge(db: sqlite3.Connection, key: FileKey) -> tuple[tuple[int, ...], tuple[str, ...], list[int]]:
    """Numbers of the generations that it dropped, some of the file's texts, and the versions that are left.
    A version that is live now stays. Inside a transaction."""
    dead = [
        version
        for (version,) in db.execute(
            "SELECT id FROM versions WHERE folder = ? AND file = ? "
            "AND NOT EXISTS (SELECT 1 FROM lives WHERE version = versions.id AND died IS NULL)",
            (key.folder, key.file),
        )
    ]
    marks = ", ".join("?" * len(dead))
    query = f"SELECT DISTINCT number FROM generations, lives WHERE version IN ({marks}) AND {_LIVE} ORDER BY number"
    numbers = tuple(number for (number,) in db.execute(query, dead))
    query = f"SELECT text FROM chunks WHERE version IN ({marks}) LIMIT {SCRUBBED_CHUNKS}"
    lines = [max(text.splitlines(), key=len, default="") for (text,) in db.execute(query, dead)]
    db.executemany("DELETE FROM generations WHERE number = ?", [(number,) for number in numbers])
    db.executemany("DELETE FROM versions WHERE id = ?", [(version,) for version in dead])
    left = [version for (version,) in db.execute("SELECT id FROM versions")]
    return numbers, tuple(line for line in lines if len(line) >= MIN_SCRUBBED_CHARS), left

"""Which words stand in any byte of a data folder: files, free pages, logs of the database, compressed values.

Read by a process of its own: closing a handle of the database's file here would drop SQLite's locks on it.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path


def remaining(folder: Path, words: Collection[str]) -> set[str]:
    """Those of `words`, in any case."""
    command = [sys.executable, __file__, str(folder), *words]
    return set(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _contents(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "models" not in path.relative_to(folder).parts:
            yield path.read_bytes()
            if path.suffix == ".db":
                yield from _unpacked(path)


def _unpacked(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in db.execute(f"SELECT * FROM {table}"):
                for value in row:
                    if isinstance(value, bytes):
                        try:
                            yield zlib.decompress(value)
                        except zlib.error:
                            continue


if __name__ == "__main__":
    contents = [content.lower() for content in _contents(Path(sys.argv[1]))]
    print(json.dumps([word for word in sys.argv[2:] if any(word.lower().encode() in one for one in contents)]))

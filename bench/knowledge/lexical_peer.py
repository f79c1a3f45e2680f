"""One lexical index, in the peers' environment: `python lexical_peer.py` with a job as JSON on its input.

    {"way": …, "texts": [[text, terms], …], "questions": [[text, terms], …], "right": [row, …],
     "many": [[text, terms], …], "timed": n, "folder": path}
    →  {"r1", "r5": shares, "query", "add": seconds, "disk": bytes}

Knows nothing of the sets or of Tailor.
"""

from __future__ import annotations

import json
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

Entry = tuple[str, list[str]]


class Index(Protocol):
    def add(self, entries: Sequence[Entry]) -> None: ...
    def find(self, question: Entry, count: int) -> list[int]: ...
    def disk(self) -> int: ...


class Fts5:
    """An SQLite table; the question's words joined by OR, ranked by its bm25()."""

    def __init__(self, folder: Path, words: str) -> None:
        self.path, self.words = folder / "fts5.db", words
        self.db = sqlite3.connect(self.path)
        tokenizer = "trigram" if words == "trigram" else "unicode61"
        self.db.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, tokenize='{tokenizer}')")

    def add(self, entries: Sequence[Entry]) -> None:
        with self.db:
            rows = ((" ".join(terms) if self.words == "ours" else text,) for text, terms in entries)
            self.db.executemany("INSERT INTO texts (text) VALUES (?)", rows)

    def find(self, question: Entry, count: int) -> list[int]:
        words = question[1] if self.words == "ours" else re.findall(r"\w+", question[0])
        if self.words == "trigram":
            words = [word[at : at + 3] for word in words for at in range(len(word) - 2)]
        if not words:
            return []
        query = " OR ".join(f'"{word}"' for word in dict.fromkeys(words))
        found = self.db.execute(
            "SELECT rowid FROM texts WHERE texts MATCH ? ORDER BY bm25(texts) LIMIT ?", (query, count)
        )
        return [row - 1 for (row,) in found]

    def disk(self) -> int:
        return self.path.stat().st_size


class Bm25s:
    """Built whole each time: it takes no text more."""

    def __init__(self, folder: Path) -> None:
        self.entries: list[list[str]] = []

    def add(self, entries: Sequence[Entry]) -> None:
        import bm25s  # type: ignore[import-not-found]

        self.entries += [terms or ["∅"] for _, terms in entries]
        self.index = bm25s.BM25(k1=1.2, b=0.75)
        self.index.index(self.entries, show_progress=False)

    def find(self, question: Entry, count: int) -> list[int]:
        rows, _ = self.index.retrieve([question[1]], k=min(count, len(self.entries)), show_progress=False)
        return [int(row) for row in rows[0]]

    def disk(self) -> int:
        return 0


class Tantivy:
    """Terms joined by spaces, split at them again."""

    def __init__(self, folder: Path) -> None:
        import tantivy  # type: ignore[import-not-found]

        self.library, self.folder = tantivy, folder / "tantivy"
        self.folder.mkdir()
        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("row", stored=True)
        builder.add_text_field("text", tokenizer_name="whitespace", index_option="freq")
        self.schema = builder.build()
        self.index = tantivy.Index(self.schema, path=str(self.folder))
        self.rows = 0

    def add(self, entries: Sequence[Entry]) -> None:
        writer = self.index.writer(heap_size=64_000_000, num_threads=1)
        for _, terms in entries:
            writer.add_document(self.library.Document(row=self.rows, text=" ".join(terms)))
            self.rows += 1
        writer.commit()
        writer.wait_merging_threads()
        self.index.reload()

    def find(self, question: Entry, count: int) -> list[int]:
        query = self.library.Query
        asked = dict.fromkeys(question[1])
        terms = [(self.library.Occur.Should, query.term_query(self.schema, "text", term)) for term in asked]
        if not terms:
            return []
        searcher = self.index.searcher()
        hits = searcher.search(query.boolean_query(terms), count).hits
        return [int(searcher.doc(address)["row"][0]) for _, address in hits]

    def disk(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())


def made(way: str, folder: Path) -> Index:
    library, words = way.split("-")
    if library == "fts5":
        return Fts5(folder, words)
    return Bm25s(folder) if library == "bm25s" else Tantivy(folder)


def ranked(job: dict[str, Any], folder: Path) -> dict[str, float]:
    index = made(job["way"], folder)
    index.add(job["texts"])
    pairs = [(index.find(question, 5), right) for question, right in zip(job["questions"], job["right"], strict=True)]
    return {
        "r1": statistics.mean(rows[:1] == [right] for rows, right in pairs),
        "r5": statistics.mean(right in rows for rows, right in pairs),
    }


def timed(job: dict[str, Any], folder: Path) -> dict[str, float]:
    index = made(job["way"], folder)
    index.add(job["many"])
    took = []
    for question in job["questions"][: job["timed"]]:
        began = time.perf_counter()
        index.find(question, 200)
        took.append(time.perf_counter() - began)
    new = ("quorvix zanzibar", ["quorvix", "zanzibar"])
    began = time.perf_counter()
    index.add([new])
    while index.find(new, 1) != [len(job["many"])]:
        time.sleep(0.001)
    return {"query": statistics.median(took), "add": time.perf_counter() - began, "disk": index.disk()}


def main(job: dict[str, Any]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=job["folder"]) as first:
        shares = ranked(job, Path(first))
    with tempfile.TemporaryDirectory(dir=job["folder"]) as second:
        return shares | timed(job, Path(second))


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))

"""Generations on disk: `gen-<n>/` {faiss.index, chunks.jsonl, manifest.json} and `CURRENT`, which names one.

A generation is written beside, synced to disk and renamed into place; then `CURRENT` is replaced. A
kill at any point leaves the last complete one. The manifest holds what built the index (`made_by`)
and checksums: what is foreign or damaged is passed over, never fatal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from server.retrieval.generation import Chunk, FileKey, FileRecord, FileState, Generation, Segment

log = logging.getLogger("tailor.retrieval")

FORMAT: Final = 1
KEPT: Final = 2
ABANDONED_S: Final = 3600
_PREFIX = "gen-"
_VECTORS, _CHUNKS, _MANIFEST, _CURRENT = "faiss.index", "chunks.jsonl", "manifest.json", "CURRENT"


class IndexStore:
    """The index folder. One writer at a time; `made_by` is compared as a whole."""

    def __init__(self, folder: Path, made_by: Mapping[str, str | int]) -> None:
        self._folder = folder
        self._made_by = {"format": FORMAT, **made_by}

    def open(self, dimension: int) -> Generation | None:
        """The generation that CURRENT names, else the newest whole one; None when there is none."""
        for path in self._candidates():
            try:
                generation = self._read(path, dimension)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                log.warning("index generation %s is passed over: %s", path.name, error)
                continue
            if generation is not None:
                return generation
        return None

    def write(self, generation: Generation) -> None:
        """Makes the generation durable and current, then removes those older than the last two."""
        self._folder.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=self._folder))
        try:
            self._fill(building, generation)
            target = self._folder / f"{_PREFIX}{generation.number}"
            if target.exists():
                shutil.rmtree(target)
            building.rename(target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        _sync_folder(self._folder)
        self._point_at(target.name)
        self._prune()

    def next_number(self) -> int:
        return max((_number(path) for path in self._generations()), default=0) + 1

    def _fill(self, folder: Path, generation: Generation) -> None:
        faiss.write_index(generation.index, str(folder / _VECTORS))
        with (folder / _CHUNKS).open("w", encoding="utf-8") as lines:
            for segment in generation.segments.values():
                for chunk in segment.chunks:
                    lines.write(json.dumps(_chunk_row(chunk)) + "\n")
        manifest = {
            "made_by": self._made_by,
            "dimension": generation.dimension,
            "sha256": {name: _digest(folder / name) for name in (_VECTORS, _CHUNKS)},
            "files": [_file_row(segment) for segment in generation.segments.values()],
        }
        (folder / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        for name in (_VECTORS, _CHUNKS, _MANIFEST):
            _sync_file(folder / name)
        _sync_folder(folder)

    def _point_at(self, name: str) -> None:
        pending = self._folder / f"{_CURRENT}.new"
        pending.write_text(name, encoding="utf-8")
        _sync_file(pending)
        pending.replace(self._folder / _CURRENT)
        _sync_folder(self._folder)

    def _prune(self) -> None:
        for path in self._generations()[KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
        for path in self._folder.glob("building-*"):
            with contextlib.suppress(FileNotFoundError):  # a younger one may be another process's
                if path.stat().st_mtime < time.time() - ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)

    def _generations(self) -> list[Path]:
        """Newest first."""
        return sorted(
            (path for path in self._folder.glob(f"{_PREFIX}*") if _number(path)), key=_number, reverse=True
        )

    def _candidates(self) -> Iterator[Path]:
        newest = self._generations()
        try:
            named = self._folder / (self._folder / _CURRENT).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            named = None
        if named in newest:
            yield named
        yield from (path for path in newest if path != named)

    def _read(self, folder: Path, dimension: int) -> Generation | None:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["made_by"] != self._made_by or manifest["dimension"] != dimension:
            log.info("index generation %s was built by another embedder or chunker", folder.name)
            return None
        for name, expected in manifest["sha256"].items():
            if _digest(folder / name) != expected:
                raise ValueError(f"{name} does not have its checksum")
        index = faiss.read_index(str(folder / _VECTORS))
        vectors = index.reconstruct_n(0, index.ntotal) if index.ntotal else np.zeros((0, dimension), np.float32)
        chunks = [_chunk(json.loads(line)) for line in (folder / _CHUNKS).read_text(encoding="utf-8").splitlines()]
        segments, at = [], 0
        for row in manifest["files"]:
            end = at + row["chunks"]
            segments.append(Segment.build(*_file(row), tuple(chunks[at:end]), vectors[at:end]))
            at = end
        if not at == len(chunks) == len(vectors):
            raise ValueError(f"{at} chunks in the manifest, {len(chunks)} texts, {len(vectors)} vectors")
        generation = Generation.build(_number(folder), dimension, segments)
        generation.check_integrity()
        return generation


def _number(path: Path) -> int:
    digits = path.name.removeprefix(_PREFIX)
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _chunk_row(chunk: Chunk) -> list[Any]:
    return [chunk.id, chunk.content, chunk.text, chunk.heading, chunk.line_start, chunk.line_end, chunk.page]


def _chunk(row: list[Any]) -> Chunk:
    identity, content, text, heading, line_start, line_end, page = row
    return Chunk(identity, content, text, tuple(heading), line_start, line_end, page)


def _file_row(segment: Segment) -> dict[str, Any]:
    key, record = segment.key, segment.record
    return {
        "folder": key.folder,
        "file": key.file,
        "state": record.state.value,
        "reason": record.reason,
        "bytes": record.bytes,
        "mtime_ns": record.mtime_ns,
        "read_ns": record.read_ns,
        "digest": record.digest,
        "chunks": len(segment.chunks),
    }


def _file(row: dict[str, Any]) -> tuple[FileKey, FileRecord]:
    record = FileRecord(
        FileState(row["state"]), row["reason"], row["bytes"], row["mtime_ns"], row["read_ns"], row["digest"]
    )
    return FileKey(row["folder"], row["file"]), record


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""One step from the generation in hand to what lies on disk.

`plan()` compares, `advance()` reads, chunks and embeds what changed, for a bounded time. Every file's
trouble becomes its record; none stops the others. Knows nothing of threads, watching or the disk
format of the index.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.errors import KnowledgeError
from server.retrieval.chunker import chunk
from server.retrieval.generation import Chunk, FileKey, FileRecord, FileState, Generation, Segment, identified
from server.retrieval.loaders import load
from server.retrieval.scanner import MAX_FILE_BYTES, Found
from server.types import Embedder

log = logging.getLogger("tailor.retrieval")

GROUP: Final = 64                    # texts embedded together
SAME_TICK_NS: Final = 2_000_000_000  # a file changed this shortly before it was read may have changed since


class _Stopped(Exception):
    """The caller wants to end; what is done so far stays."""


class _FileChanging(Exception):
    """The file grew or shrank while it was read."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`kept` needs no reading; `to_read` does, small files first, of which `news` differ from what is
    known (the others are read again because their time proves nothing). `differs`: kept alone is a change."""

    kept: Mapping[FileKey, Segment]
    to_read: tuple[Found, ...]
    news: frozenset[FileKey]
    differs: bool


@dataclass(frozen=True, slots=True)
class Step:
    """`generation` is None when no row and no state changed; then `records` still says when files were
    read. `left` was not reached, `retry` was changing while it was read."""

    generation: Generation | None
    records: Mapping[FileKey, FileRecord]
    left: tuple[Found, ...]
    retry: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A file read and cut; `same` when it holds what the current generation already has."""

    file: Found
    record: FileRecord
    chunks: tuple[Chunk, ...] = ()
    same: bool = False


class Indexer:
    """Stateless beside its settings; used by one thread at a time."""

    def __init__(self, embedder: Embedder, chunk_tokens: int) -> None:
        self._embedder = embedder
        self._budget = chunk_tokens

    def plan(self, current: Generation, found: Mapping[FileKey, Found]) -> Plan:
        kept: dict[FileKey, Segment] = {}
        to_read: list[Found] = []
        news: set[FileKey] = set()
        differs = not current.segments.keys() <= found.keys()
        for key, file in found.items():
            old = current.segments.get(key)
            if old is not None and _is_settled(old.record, file):
                kept[key] = old
            elif file.problem:
                record = FileRecord(file.state, file.problem, file.bytes, file.mtime_ns)
                kept[key] = Segment.without_text(key, record, current.dimension)
                differs = True
            else:
                to_read.append(file)
                if old is None or (old.record.bytes, old.record.mtime_ns) != (file.bytes, file.mtime_ns):
                    news.add(key)
        return Plan(kept, tuple(sorted(to_read, key=lambda file: file.bytes)), frozenset(news), differs)

    def advance(
        self,
        current: Generation,
        plan: Plan,
        number: int,
        *,
        deadline: float,
        stopping: Callable[[], bool],
    ) -> Step:
        """Reads group by group until `deadline` (time.monotonic()); `stopping` ends it sooner.

        Files not reached keep their old segment, so a search finds their last text meanwhile.
        """
        segments, records = dict(plan.kept), dict[FileKey, FileRecord]()
        waiting, retry = deque(plan.to_read), list[Found]()
        vectors = _Vectors(current, self._embedder, stopping)
        differs = plan.differs
        while waiting and time.monotonic() < deadline and not stopping():
            group = self._group(current, waiting, retry)
            try:
                vectors.add([chunk for one in group for chunk in one.chunks])
            except _Stopped:
                waiting.extendleft(one.file for one in group)
                break
            for one in group:
                key = one.file.key
                records[key] = one.record
                if one.same:
                    segments[key] = current.segments[key]
                else:
                    segments[key] = Segment.build(key, one.record, one.chunks, vectors.of(one.chunks))
                    differs = True
        for file in (*waiting, *retry):
            if file.key in current.segments:
                segments[file.key] = current.segments[file.key]
        differs = differs or not current.segments.keys() <= segments.keys()  # vanished before its turn
        generation = None
        if differs:
            generation = Generation.build(number, current.dimension, segments.values(), current).with_records(records)
        return Step(generation, records, tuple(waiting), tuple(retry))

    def _group(self, current: Generation, waiting: deque[Found], retry: list[Found]) -> list[_Prepared]:
        """Files from the front of `waiting` until there is enough to embed together."""
        group: list[_Prepared] = []
        texts = 0
        while waiting and texts < GROUP:
            file = waiting.popleft()
            try:
                one = self._prepare(file, current.segments.get(file.key))
            except FileNotFoundError:
                continue
            except _FileChanging:
                retry.append(file)
                continue
            group.append(one)
            texts += len(one.chunks)
        return group

    def _prepare(self, file: Found, old: Segment | None) -> _Prepared:
        read_ns = time.time_ns()
        try:
            data = _read(file)
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            record = FileRecord(FileState.FAILED, reason, file.bytes, file.mtime_ns, read_ns)
            return _Prepared(file, record, same=old is not None and _says_the_same(old.record, record))
        digest = hashlib.sha256(data).hexdigest()
        if old is not None and old.record.digest == digest:
            about = replace(old.record, bytes=file.bytes, mtime_ns=file.mtime_ns, read_ns=read_ns)
            return _Prepared(file, about, same=True)
        state, reason, chunks = self._cut(file, data)
        return _Prepared(file, FileRecord(state, reason, file.bytes, file.mtime_ns, read_ns, digest), chunks)

    def _cut(self, file: Found, data: bytes) -> tuple[FileState, str, tuple[Chunk, ...]]:
        try:
            pieces = chunk(load(file.path.name, data), self._measure, self._budget)
        except KnowledgeError as error:
            log.info("%s/%s is not indexed: %s", file.key.folder, file.key.file, error)
            return FileState.FAILED, str(error), ()
        if not pieces:
            return FileState.EMPTY, "the file holds no text", ()
        return FileState.INDEXED, "", identified(file.key, pieces)

    def _measure(self, text: str) -> int:
        """Tokens of the embedder. In a language it does not know its tokens say nothing: there, two
        letters a token, as Korean has in vocabularies made for it, so that chunks keep their sense."""
        return self._embedder.count(text) if self._embedder.knows(text) else math.ceil(len(text) / 2)


class _Vectors:
    """Vectors by content: those of the current generation, and new ones, each embedded once."""

    def __init__(self, current: Generation, embedder: Embedder, stopping: Callable[[], bool]) -> None:
        self._current = current
        self._known: dict[str, NDArray[np.float32]] = {}
        self._embedder = embedder
        self._stopping = stopping

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Embeds what is not known. Raises _Stopped between slices."""
        if chunks and not self._known:
            for segment in self._current.segments.values():
                self._known.update(zip((chunk.content for chunk in segment.chunks), segment.vectors, strict=True))
        unknown = list({chunk.content: chunk for chunk in chunks if chunk.content not in self._known}.values())
        for start in range(0, len(unknown), GROUP):
            if self._stopping():
                raise _Stopped
            part = unknown[start : start + GROUP]
            vectors = self._embedder.embed([chunk.embedded_text for chunk in part])
            self._known.update(zip((chunk.content for chunk in part), vectors, strict=True))

    def of(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        if not chunks:
            return np.zeros((0, self._current.dimension), dtype=np.float32)
        return np.stack([self._known[chunk.content] for chunk in chunks])


def _read(file: Found) -> bytes:
    """The whole content of one moment. Raises OSError; _FileChanging when the moment cannot be had."""
    with file.path.open("rb") as opened:
        before = os.fstat(opened.fileno())
        data = opened.read(MAX_FILE_BYTES + 1)
        after = os.fstat(opened.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise _FileChanging
    if (file.bytes, file.mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _FileChanging
    return data


def _is_settled(record: FileRecord, file: Found) -> bool:
    """Size and time as when it was read, and read long enough after its last change."""
    if (record.bytes, record.mtime_ns) != (file.bytes, file.mtime_ns):
        return False
    if file.problem or not record.digest:
        return (record.state, record.reason) == (file.state, file.problem)
    return record.mtime_ns + SAME_TICK_NS < record.read_ns


def _says_the_same(record: FileRecord, other: FileRecord) -> bool:
    return replace(record, read_ns=0) == replace(other, read_ns=0)

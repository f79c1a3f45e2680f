"""From files on disk to versions in the index: reads, cuts and embeds what changed.

`plan()` compares, `take()` prepares a group of files and stores it. Every file's trouble becomes its record; none stops
the others. Knows nothing of threads, watching or how a generation is kept.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.errors import KnowledgeError
from server.retrieval.index.chunker import chunk
from server.retrieval.index.files import Chunk, FileKey, FileRecord, FileState, identified
from server.retrieval.index.generation import Generation, Version
from server.retrieval.index.store import IndexStore, Prepared
from server.retrieval.updating.reader import Reader, ReaderClosed, WorkerMissing
from server.retrieval.updating.scanner import MAX_FILE_BYTES, Found
from server.types import Embedder

log = logging.getLogger("tailor.retrieval")

GROUP: Final = 64                    # texts embedded together
SAME_TICK_NS: Final = 2_000_000_000  # a file changed this shortly before it was read may have changed since


class Stopped(Exception):
    """The caller wants to end; what is stored so far stays."""


class _FileChanging(Exception):
    """The file grew or shrank while it was read."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`to_read`, small files first, of which `news` differ from what is known (the others are read again because
    their time proves nothing); `told` are files that need no reading to say what they are; `dropped` are gone."""

    to_read: tuple[Found, ...]
    news: frozenset[FileKey]
    told: tuple[Prepared, ...]
    dropped: frozenset[FileKey]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.to_read)


@dataclass(slots=True)
class Taken:
    """What has come of a plan so far: `cut` is not stored yet, `born` are stored versions that take their files'
    places, `touched` files hold what is known, `retry` were changing while they were read."""

    cut: list[Prepared] = field(default_factory=list)
    born: list[Version] = field(default_factory=list)
    touched: dict[FileKey, FileRecord] = field(default_factory=dict)
    vanished: set[FileKey] = field(default_factory=set)
    retry: list[Found] = field(default_factory=list)

    def leave_out(self, keys: Collection[FileKey]) -> None:
        """Something newer is known of these files."""
        self.cut = [one for one in self.cut if one.key not in keys]
        self.born = [one for one in self.born if one.key not in keys]
        self.touched = {key: record for key, record in self.touched.items() if key not in keys}
        self.retry = [one for one in self.retry if one.key not in keys]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A file read and cut, to be embedded."""

    file: Found
    record: FileRecord
    chunks: tuple[Chunk, ...]


class Indexer:
    """Used by one thread at a time."""

    def __init__(self, store: IndexStore, embedder: Embedder, chunk_tokens: int, reader: Reader) -> None:
        self._store = store
        self._embedder = embedder
        self._budget = chunk_tokens
        self._reader = reader

    def plan(
        self, current: Generation, found: Mapping[FileKey, Found], within: Collection[FileKey] | None = None
    ) -> Plan:
        """`within`: the files that were looked at, where it was not all."""
        to_read: list[Found] = []
        news: set[FileKey] = set()
        told: list[Prepared] = []
        for key, file in found.items():
            old = current.files.get(key)
            if old is not None and _is_settled(old.record, file):
                continue
            if file.problem:
                told.append(self._bare(key, FileRecord(file.state, file.problem, file.bytes, file.mtime_ns)))
                continue
            to_read.append(file)
            if old is None or (old.record.bytes, old.record.mtime_ns) != (file.bytes, file.mtime_ns):
                news.add(key)
        looked = current.files.keys() if within is None else current.files.keys() & within
        return Plan(
            tuple(sorted(to_read, key=lambda file: file.bytes)), frozenset(news), tuple(told),
            frozenset(looked - found.keys()),
        )  # fmt: skip

    def take(self, current: Generation, waiting: deque[Found], taken: Taken, stopping: Callable[[], bool]) -> None:
        """Takes a group of files from the front of `waiting`. Raises Stopped."""
        group: list[_Cut] = []
        texts = 0
        while waiting and texts < GROUP:
            file = waiting.popleft()
            try:
                cut = self._prepare(current, file, taken)
            except FileNotFoundError:
                taken.vanished.add(file.key)
            except _FileChanging:
                taken.retry.append(file)
            else:
                if cut is not None:
                    group.append(cut)
                    texts += len(cut.chunks)
        vectors = self._vectors([chunk for cut in group for chunk in cut.chunks], stopping)
        for cut in group:
            taken.cut.append(Prepared(cut.file.key, cut.record, cut.chunks, self._stacked(cut.chunks, vectors)))

    def store(self, taken: Taken) -> None:
        """Makes durable what has been cut."""
        cut, taken.cut = taken.cut, []
        if cut:
            taken.born += self._store.stage(cut)

    def _bare(self, key: FileKey, record: FileRecord) -> Prepared:
        return Prepared(key, record, (), np.zeros((0, self._embedder.dimension), np.float32))

    def _prepare(self, current: Generation, file: Found, taken: Taken) -> _Cut | None:
        """None where the file holds what is known already."""
        read_ns = time.time_ns()
        old = current.files.get(file.key)
        try:
            data = _read(file)
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            record = FileRecord(FileState.FAILED, reason, file.bytes, file.mtime_ns, read_ns)
            if old is not None and _says_the_same(old.record, record):
                taken.touched[file.key] = record
                return None
            return _Cut(file, record, ())
        digest = hashlib.sha256(data).hexdigest()
        known = old if old is not None and old.record.digest == digest else self._store.known(file.key, digest)
        if known is not None:
            record = replace(known.record, bytes=file.bytes, mtime_ns=file.mtime_ns, read_ns=read_ns)
            if known == old:
                taken.touched[file.key] = record
            else:
                taken.born.append(replace(known, record=record))
            return None
        state, reason, chunks = self._cut(file, data)
        return _Cut(file, FileRecord(state, reason, file.bytes, file.mtime_ns, read_ns, digest), chunks)

    def _cut(self, file: Found, data: bytes) -> tuple[FileState, str, tuple[Chunk, ...]]:
        try:
            pieces = chunk(self._reader.read(file.path.name, data), self._measure, self._budget)
        except ReaderClosed as error:
            raise Stopped from error
        except WorkerMissing as error:
            log.error("%s", error)
            raise _FileChanging from error  # tried again; the others go on
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

    def _vectors(self, chunks: Sequence[Chunk], stopping: Callable[[], bool]) -> dict[str, NDArray[np.float32]]:
        """By content: those that the index has, and new ones, each embedded once. Raises Stopped between slices."""
        by_content = {chunk.content: chunk for chunk in chunks}
        vectors = self._store.vectors(by_content)
        unknown = [chunk for content, chunk in by_content.items() if content not in vectors]
        for start in range(0, len(unknown), GROUP):
            if stopping():
                raise Stopped
            part = unknown[start : start + GROUP]
            embedded = self._embedder.embed([chunk.embedded_text for chunk in part])
            vectors |= zip((chunk.content for chunk in part), embedded, strict=True)
        return vectors

    def _stacked(self, chunks: Sequence[Chunk], vectors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        if not chunks:
            return np.zeros((0, self._embedder.dimension), dtype=np.float32)
        return np.stack([vectors[chunk.content] for chunk in chunks])


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

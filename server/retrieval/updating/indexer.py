"""From files on disk to versions in the index: reads, chunks and embeds what changed.

`plan()` compares a scan with the index; `index_batch()` reads, chunks and embeds some of the files; `store()` makes
them durable. Every file's error becomes its record; none stops the others. Knows nothing of threads, watching or how a
generation is kept.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from server.errors import KnowledgeError
from server.relations import TextRole
from server.retrieval.index.chunker import chunk
from server.retrieval.index.files import Chunk, FileKey, FileRecord, FileState, identify_chunks
from server.retrieval.index.generation import FileVersion, Generation
from server.retrieval.index.prepared import PreparedFile, build_segments
from server.retrieval.index.store import IndexStore
from server.retrieval.updating.reader import Reader, ReaderClosed, WorkerUnavailable, is_read_inline
from server.retrieval.updating.scanner import MAX_FILE_BYTES, ScannedFile
from server.types import Embedder

log = logging.getLogger("tailor.retrieval")

_Result = TypeVar("_Result")

BATCH_TEXTS: Final = 64  # texts after which no more files join a batch
SLICE_TEXTS: Final = 4  # texts embedded between two pauses
KEPT_TEXTS: Final = 256  # texts embedded before their vectors are kept for the case of a stop
PAUSE_S: Final = 0.2  # between two pauses
SMALL_BYTES: Final = 64 * 1024  # of a file that is read without a pause
SAME_TICK_NS: Final = 2_000_000_000  # a file changed this shortly before it was read may have changed since


class IndexingStopped(Exception):
    """The caller wants it to stop; what is stored so far stays."""


class _FileChanging(Exception):
    """The file grew or shrank while it was read."""


class _Superseded(Exception):
    """All files of the batch have changed or gone since it began."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`to_read`, small files first, of which `changed` differ from their records (the others are read again because
    their time proves nothing); `rejected` are files whose problem is known without reading them; `removed` are gone."""

    to_read: tuple[ScannedFile, ...]
    changed: frozenset[FileKey]
    rejected: tuple[PreparedFile, ...]
    removed: frozenset[FileKey]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.to_read)


@dataclass(slots=True)
class IndexingResult:
    """What a plan has yielded so far: `prepared` is not stored yet, `new_versions` are stored and replace what their
    files had, `touched` files have the content that is known, `retry` were changing while they were read."""

    prepared: list[PreparedFile] = field(default_factory=list)
    new_versions: list[FileVersion] = field(default_factory=list)
    touched: dict[FileKey, FileRecord] = field(default_factory=dict)
    vanished: set[FileKey] = field(default_factory=set)
    retry: list[ScannedFile] = field(default_factory=list)
    in_hand: dict[FileKey, ScannedFile] = field(default_factory=dict)  # of the batch that is being embedded

    def discard(self, keys: Collection[FileKey]) -> None:
        """Drops these files: something newer is known of them."""
        self.in_hand = {key: file for key, file in self.in_hand.items() if key not in keys}
        self.prepared = [one for one in self.prepared if one.key not in keys]
        self.new_versions = [one for one in self.new_versions if one.key not in keys]
        self.touched = {key: record for key, record in self.touched.items() if key not in keys}
        self.retry = [one for one in self.retry if one.key not in keys]


@dataclass(frozen=True, slots=True)
class _ChunkedFile:
    """A file that has been read and chunked, to be embedded."""

    file: ScannedFile
    record: FileRecord
    chunks: tuple[Chunk, ...]


class Indexer:
    """Used by one thread at a time. `pause` is called between small pieces of work, several times a second: it may
    index something else meanwhile, and raise IndexingStopped."""

    def __init__(
        self,
        store: IndexStore,
        embedder: Embedder,
        chunk_tokens: int,
        reader: Reader,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._chunk_tokens = chunk_tokens
        self._reader = reader
        self._pause = pause
        self._paused_at = time.monotonic()
        self.unfinished_bytes = 0  # of the files in hand, what is not embedded yet

    def plan(
        self, current: Generation, found: Mapping[FileKey, ScannedFile], within: Collection[FileKey] | None = None
    ) -> Plan:
        """`within`: the files that were scanned, where it was not all."""
        to_read: list[ScannedFile] = []
        changed: set[FileKey] = set()
        rejected: list[PreparedFile] = []
        for key, file in found.items():
            old = current.files.get(key)
            if old is not None and _is_unchanged(old.record, file):
                continue
            if file.problem:
                record = FileRecord(file.state, file.problem, file.bytes, file.mtime_ns)
                rejected.append(self._without_chunks(key, record))
                continue
            to_read.append(file)
            if old is None or (old.record.bytes, old.record.mtime_ns) != (file.bytes, file.mtime_ns):
                changed.add(key)
        scanned = current.files.keys() if within is None else current.files.keys() & within
        return Plan(
            tuple(sorted(to_read, key=lambda file: file.bytes)), frozenset(changed), tuple(rejected),
            frozenset(scanned - found.keys()),
        )  # fmt: skip

    def index_batch(self, current: Generation, queue: deque[ScannedFile], result: IndexingResult) -> None:
        """Reads, chunks and embeds a batch of files from the front of `queue`. Raises IndexingStopped."""
        batch: list[_ChunkedFile] = []
        text_count = 0
        result.in_hand = {}
        while queue and text_count < BATCH_TEXTS:
            file = queue.popleft()
            result.in_hand[file.key] = file
            self.unfinished_bytes += file.bytes
            try:
                chunked = self._read_and_chunk(current, file, result)
            except FileNotFoundError:
                result.vanished.add(file.key)
            except _FileChanging:
                result.retry.append(file)
            else:
                if chunked is not None:
                    batch.append(chunked)
                    text_count += len(chunked.chunks)
        try:
            vectors = self._embed_chunks([chunk for chunked in batch for chunk in chunked.chunks], result)
        except _Superseded:
            batch = []
        finally:
            self.unfinished_bytes = 0
        for chunked in batch:
            if chunked.file.key in result.in_hand:
                stacked = self._stacked(chunked.chunks, vectors)
                result.prepared.append(PreparedFile(chunked.file.key, chunked.record, chunked.chunks, stacked))
        result.in_hand = {}

    def store(self, result: IndexingResult) -> None:
        """Makes durable what has been prepared."""
        prepared = tuple(result.prepared)
        if prepared:
            segments = self._pausing(lambda: build_segments(prepared))
            still_newest = {id(one) for one in result.prepared}  # of some, something newer may be known by now
            staged = self._store.stage(prepared, segments)
            known = zip(prepared, staged, strict=True)
            result.new_versions += [version for file, version in known if id(file) in still_newest]
            result.prepared = []

    def _breathe(self) -> None:
        """Pauses where the last pause is some time ago."""
        if time.monotonic() - self._paused_at >= PAUSE_S:
            self._pause()
            self._paused_at = time.monotonic()

    def _pausing(self, work: Callable[[], _Result]) -> _Result:
        """Its result; pauses while it goes on in a thread of its own."""
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(work)
            while not wait([future], PAUSE_S).done:
                self._breathe()
            return future.result()

    def _without_chunks(self, key: FileKey, record: FileRecord) -> PreparedFile:
        return PreparedFile(key, record, (), np.zeros((0, self._embedder.dimension), np.float32))

    def _read_and_chunk(self, current: Generation, file: ScannedFile, result: IndexingResult) -> _ChunkedFile | None:
        """None where the file has the content that is known already."""
        read_ns = time.time_ns()
        old = current.files.get(file.key)
        try:
            data = _read(file)
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            record = FileRecord(FileState.FAILED, reason, file.bytes, file.mtime_ns, read_ns, ctime_ns=file.ctime_ns)
            if old is not None and _same_outcome(old.record, record):
                result.touched[file.key] = record
                return None
            return _ChunkedFile(file, record, ())
        digest = hashlib.sha256(data).hexdigest()
        known = old if old is not None and old.record.digest == digest else self._store.find_version(file.key, digest)
        if known is not None:
            record = replace(
                known.record, bytes=file.bytes, mtime_ns=file.mtime_ns, read_ns=read_ns, ctime_ns=file.ctime_ns
            )
            if known == old:
                result.touched[file.key] = record
            else:
                result.new_versions.append(replace(known, record=record))
            return None
        state, reason, chunks = self._load_and_chunk(file, data)
        record = FileRecord(state, reason, file.bytes, file.mtime_ns, read_ns, digest, file.ctime_ns)
        return _ChunkedFile(file, record, chunks)

    def _load_and_chunk(self, file: ScannedFile, data: bytes) -> tuple[FileState, str, tuple[Chunk, ...]]:
        try:
            name = file.path.name
            read = partial(self._reader.read, name, data)
            document = read() if len(data) <= SMALL_BYTES and is_read_inline(name, data) else self._pausing(read)
            chunk_texts = chunk(document, self._count_tokens, self._chunk_tokens)
        except ReaderClosed as error:
            raise IndexingStopped from error
        except WorkerUnavailable as error:
            log.error("%s", error)
            raise _FileChanging from error  # tried again; the others go on
        except KnowledgeError as error:
            log.info("%s/%s is not indexed: %s", file.key.folder, file.key.file, error)
            return FileState.FAILED, str(error), ()
        if not chunk_texts:
            return FileState.EMPTY, "; ".join(["the file holds no text", *document.omitted]), ()
        return FileState.INDEXED, "; ".join(document.omitted), identify_chunks(file.key, chunk_texts, self._breathe)

    def _count_tokens(self, text: str) -> int:
        """Tokens of the embedder. In a language that it does not know its tokens mean nothing: there it is two
        letters a token, as Korean has in vocabularies made for it, so that chunks are not too short."""
        self._breathe()
        return self._embedder.count(text) if self._embedder.knows(text) else math.ceil(len(text) / 2)

    def _embed_chunks(self, chunks: Sequence[Chunk], result: IndexingResult) -> dict[str, NDArray[np.float32]]:
        """By content hash: those that the index has, and new ones, each embedded once. What was embedded before a stop
        is kept. Raises IndexingStopped and _Superseded between slices."""
        by_hash = {chunk.content_hash: chunk for chunk in chunks}
        vectors = self._store.vectors(by_hash)
        unknown = [chunk for content_hash, chunk in by_hash.items() if content_hash not in vectors]
        in_hand, fresh = self.unfinished_bytes, dict[str, NDArray[np.float32]]()
        try:
            for start in range(0, len(unknown), SLICE_TEXTS):
                self.unfinished_bytes = round(in_hand * (1 - start / len(unknown)))
                self._breathe()
                if not result.in_hand:
                    raise _Superseded
                part = unknown[start : start + SLICE_TEXTS]
                embedded = self._embedder.embed([chunk.embedded_text for chunk in part], TextRole.PASSAGE)
                fresh |= zip((chunk.content_hash for chunk in part), embedded, strict=True)
                if len(fresh) >= KEPT_TEXTS:
                    self._store.keep_vectors(fresh)
                    vectors |= fresh
                    fresh = {}
        except (IndexingStopped, _Superseded):
            self._store.keep_vectors(fresh)
            raise
        return vectors | fresh

    def _stacked(self, chunks: Sequence[Chunk], vectors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        if not chunks:
            return np.zeros((0, self._embedder.dimension), dtype=np.float32)
        return np.stack([vectors[chunk.content_hash] for chunk in chunks])


def _read(file: ScannedFile) -> bytes:
    """A consistent snapshot of the content. Raises OSError, and _FileChanging where the file changes meanwhile."""
    with file.path.open("rb") as opened:
        before = os.fstat(opened.fileno())
        data = opened.read(MAX_FILE_BYTES + 1)
        after = os.fstat(opened.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise _FileChanging
    if (file.bytes, file.mtime_ns, file.ctime_ns) != (after.st_size, after.st_mtime_ns, after.st_ctime_ns):
        raise _FileChanging
    return data


def _is_unchanged(record: FileRecord, file: ScannedFile) -> bool:
    """Size and times as when it was read, and read long enough after its last change. The time of its status tells a
    change after which a program has set the other back."""
    if (record.bytes, record.mtime_ns) != (file.bytes, file.mtime_ns):
        return False
    if file.problem or not record.digest:
        return (record.state, record.reason) == (file.state, file.problem)
    return record.ctime_ns == file.ctime_ns and record.mtime_ns + SAME_TICK_NS < record.read_ns


def _same_outcome(record: FileRecord, other: FileRecord) -> bool:
    return replace(record, read_ns=0, ctime_ns=0) == replace(other, read_ns=0, ctime_ns=0)

"""One state of the whole index: immutable, so that whoever holds it sees no change.

A generation is made of segments, one a file, which unchanged files share from generation to
generation. Knows nothing of disk or of how chunks come about.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import faiss
import numpy as np
from numpy.typing import NDArray

from server.retrieval.chunker import Piece
from server.retrieval.lexical import Postings, merged, postings
from server.types import Passage

FILES_A_PART = 64  # of the lexical index, on average


class FileState(StrEnum):
    INDEXED = "indexed"
    INDEXING = "indexing"        # waits for its turn, or is being read
    EMPTY = "empty"
    FAILED = "failed"            # `reason` says what to do
    UNSUPPORTED = "unsupported"  # a format, link or place that is not read


@dataclass(frozen=True, slots=True)
class FileKey:
    """`file` is the path inside the folder, with forward slashes."""

    folder: str
    file: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file was when it was last read. `digest` is empty when it could not be read at all."""

    state: FileState
    reason: str = ""
    bytes: int = 0
    mtime_ns: int = 0
    read_ns: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`content` hashes what is embedded: the same content has the same vector wherever it stands."""

    id: str
    content: str
    text: str
    heading: tuple[str, ...] = ()
    line_start: int | None = None
    line_end: int | None = None
    page: int | None = None

    @property
    def embedded_text(self) -> str:
        return embedded_text(self.heading, self.text)

    @property
    def searched_text(self) -> str:
        """For the lexical side: a word of the heading counts twice."""
        return f"{' '.join(self.heading)}\n{self.embedded_text}"

    def passage(self, key: FileKey, score: float) -> Passage:
        return Passage(
            id=self.id,
            folder=key.folder,
            file=key.file,
            text=self.text,
            heading=self.heading,
            line_start=self.line_start,
            line_end=self.line_end,
            page=self.page,
            score=score,
        )


def embedded_text(heading: Sequence[str], text: str) -> str:
    return f"{' > '.join(heading)}\n{text}" if heading else text


def identified(key: FileKey, pieces: Sequence[Piece]) -> tuple[Chunk, ...]:
    """Chunks of one file. An id stays while folder, file and text stay; equal texts count up."""
    seen: dict[str, int] = {}
    chunks = []
    for piece in pieces:
        content = _hash(embedded_text(piece.heading, piece.text))
        ordinal = seen.get(content, 0)
        seen[content] = ordinal + 1
        chunks.append(
            Chunk(
                id=_hash("\0".join((key.folder, key.file, content, str(ordinal))))[:16],
                content=content,
                text=piece.text,
                heading=piece.heading,
                line_start=piece.line_start,
                line_end=piece.line_end,
                page=piece.page,
            )
        )
    return tuple(chunks)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Segment:
    """One file's part of the index: `vectors` is [chunks, dimension]."""

    key: FileKey
    record: FileRecord
    chunks: tuple[Chunk, ...]
    vectors: NDArray[np.float32]
    postings: Postings

    @classmethod
    def build(
        cls, key: FileKey, record: FileRecord, chunks: tuple[Chunk, ...], vectors: NDArray[np.float32]
    ) -> Segment:
        return cls(key, record, chunks, vectors, postings([chunk.searched_text for chunk in chunks]))

    @classmethod
    def without_text(cls, key: FileKey, record: FileRecord, dimension: int) -> Segment:
        """A file that holds nothing to search: empty, failed or unsupported."""
        return cls.build(key, record, (), np.zeros((0, dimension), dtype=np.float32))


@dataclass(frozen=True, slots=True)
class Generation:
    """Segments in the order of folder and file, so that a folder's rows are one range of the FAISS index.

    `rows[i]` is what row i of the index is the vector of.
    """

    number: int
    dimension: int
    segments: Mapping[FileKey, Segment]
    index: faiss.IndexFlatIP
    rows: tuple[tuple[FileKey, Chunk], ...] = field(repr=False)
    _spans: Mapping[str, tuple[int, int]] = field(repr=False)
    _parts: Mapping[str, Sequence[Postings]] = field(repr=False)
    _merged: Mapping[tuple[int, ...], Postings] = field(repr=False)

    @classmethod
    def build(
        cls, number: int, dimension: int, segments: Iterable[Segment], previous: Generation | None = None
    ) -> Generation:
        """`previous` gives the lexical parts of files that did not change."""
        ordered = {one.key: one for one in sorted(segments, key=lambda one: (one.key.folder, one.key.file))}
        index = faiss.IndexFlatIP(dimension)
        spans: dict[str, tuple[int, int]] = {}
        rows: list[tuple[FileKey, Chunk]] = []
        for segment in ordered.values():
            start = spans.get(segment.key.folder, (index.ntotal, 0))[0]
            if len(segment.chunks):
                index.add(segment.vectors)
                rows += [(segment.key, chunk) for chunk in segment.chunks]
            spans[segment.key.folder] = (start, index.ntotal)
        parts, merges = _lexical_parts(ordered.values(), previous._merged if previous is not None else {})
        return cls(number, dimension, ordered, index, tuple(rows), spans, parts, merges)

    def span(self, folder: str) -> tuple[int, int]:
        """First row of the folder and the row after its last."""
        return self._spans.get(folder, (0, 0))

    def lexical(self, folder: str) -> Sequence[Postings]:
        """The folder's lexical parts, in the order of its rows."""
        return self._parts.get(folder, ())

    def with_records(self, records: Mapping[FileKey, FileRecord]) -> Generation:
        """The same rows, with other knowledge of when the files were read."""
        segments = {
            key: replace(segment, record=records.get(key, segment.record)) for key, segment in self.segments.items()
        }
        return replace(self, segments=segments)

    def check_integrity(self) -> None:
        """Raises ValueError unless every chunk has one row and every folder its own range."""
        chunks = sum(len(segment.chunks) for segment in self.segments.values())
        rows = sum(end - start for start, end in self._spans.values())
        if not chunks == rows == len(self.rows) == self.index.ntotal:
            raise ValueError(f"{chunks} chunks, {rows} rows in folders, {self.index.ntotal} rows in the index")
        for segment in self.segments.values():
            if segment.vectors.shape != (len(segment.chunks), self.dimension):
                raise ValueError(f"{segment.key.file}: {len(segment.chunks)} chunks, vectors {segment.vectors.shape}")


def _lexical_parts(
    segments: Iterable[Segment], known: Mapping[tuple[int, ...], Postings]
) -> tuple[dict[str, list[Postings]], dict[tuple[int, ...], Postings]]:
    """Some files a part. Where a part ends depends on a file's name alone, so that a new file changes
    the part it falls into and no other. `known` is keyed by the identity of what was merged, which
    the generation it comes from keeps alive."""
    groups: dict[str, list[list[Postings]]] = {}
    for segment in segments:
        inside = groups.setdefault(segment.key.folder, [[]])
        if zlib.crc32(segment.key.file.encode()) % FILES_A_PART == 0:
            inside.append([])
        if segment.chunks:
            inside[-1].append(segment.postings)
    parts: dict[str, list[Postings]] = {}
    merges: dict[tuple[int, ...], Postings] = {}
    for folder, inside in groups.items():
        for group in filter(None, inside):
            key = tuple(id(one) for one in group)
            merges[key] = known[key] if key in known else merged(group)
            parts.setdefault(folder, []).append(merges[key])
    return parts, merges

"""What the index keeps of a file: its key, how it was read, and its chunks. Knows nothing of segments or of disk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from server.retrieval.index.chunker import ChunkText
from server.retrieval.index.suspicion import suspicion
from server.types import SUSPICIOUS, Passage


class FileState(StrEnum):
    INDEXED = "indexed"
    INDEXING = "indexing"  # pending, or being read
    EMPTY = "empty"
    FAILED = "failed"  # `reason` says what to do
    UNSUPPORTED = "unsupported"  # a format, link or location that is not read


@dataclass(frozen=True, slots=True, order=True)
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
    ctime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """`content_hash` is of what is embedded: equal content has one vector wherever it stands. `continues` is set when
    the document is chunked, and kept by its segment from then on."""

    id: str
    content_hash: str
    text: str
    heading: tuple[str, ...] = ()
    line_start: int | None = None
    line_end: int | None = None
    page: int | None = None
    continues: bool = field(default=False, compare=False)
    suspicion: float = 0.0

    @property
    def embedded_text(self) -> str:
        return embedded_text(self.heading, self.text)

    @property
    def searched_text(self) -> str:
        """For lexical search: a word of the heading counts twice."""
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
            suspicion=self.suspicion,
        )


def embedded_text(heading: Sequence[str], text: str) -> str:
    return f"{' > '.join(heading)}\n{text}" if heading else text


def identify_chunks(
    key: FileKey, pieces: Sequence[ChunkText], pause: Callable[[], None] = lambda: None
) -> tuple[Chunk, ...]:
    """Chunks of one file. An id stays while folder, file and text stay; equal texts count up. `pause` is called before
    each."""
    seen: Counter[str] = Counter()

    def identify(piece: ChunkText) -> Chunk:
        pause()
        embedded = embedded_text(piece.heading, piece.text)
        content_hash = _hash(embedded)
        ordinal = seen[content_hash]
        seen[content_hash] += 1
        return Chunk(
            id=_hash("\0".join((key.folder, key.file, content_hash, str(ordinal))))[:16],
            content_hash=content_hash,
            text=piece.text,
            heading=piece.heading,
            line_start=piece.line_start,
            line_end=piece.line_end,
            page=piece.page,
            continues=piece.continues,
            suspicion=suspicion(embedded),
        )

    return tuple(map(identify, pieces))


def suspicious_locations(key: FileKey, chunks: Sequence[Chunk]) -> tuple[str, ...]:
    """The locations of chunks that read like instructions to a model, in order."""
    return tuple(
        chunk.passage(key, 0.0).place or " > ".join(chunk.heading) or f"passage {number}"
        for number, chunk in enumerate(chunks, 1)
        if chunk.suspicion >= SUSPICIOUS
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

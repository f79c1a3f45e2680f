"""Files that have been read and embedded, and the segment made of them. Knows nothing of disks or generations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.retrieval.index.files import Chunk, FileKey, FileRecord
from server.retrieval.index.segment import Segment
from server.words import term_counts


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """A file version to be stored: `vectors` [chunks, dimension]."""

    key: FileKey
    record: FileRecord
    chunks: tuple[Chunk, ...]
    vectors: NDArray[np.float32]


def build_segment(files: Iterable[tuple[int, PreparedFile]]) -> Segment:
    """Of (version, file), in rising order of the versions."""
    versions: list[int] = []
    terms, vectors, continues = [], [], []
    for version_id, file in files:
        versions += [version_id] * len(file.chunks)
        terms += [term_counts(chunk.searched_text) for chunk in file.chunks]
        vectors.append(file.vectors)
        continues += [chunk.continues for chunk in file.chunks]
    return Segment.build(versions, terms, np.concatenate(vectors), continues)

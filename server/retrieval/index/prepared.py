"""Files that have been read and embedded, and the segment made of them. Knows nothing of disks or generations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.retrieval.index.files import Chunk, FileKey, FileRecord
from server.retrieval.index.segment import Segment
from server.words import script_number, term_counts


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """A file version to be stored: `vectors` [chunks, dimension]."""

    key: FileKey
    record: FileRecord
    chunks: tuple[Chunk, ...]
    vectors: NDArray[np.float32]


def build_segments(files: Sequence[PreparedFile]) -> dict[str, Segment]:
    """A segment for each folder that has chunks. As long as they are not staged, the version of a file is its position
    among `files`."""
    in_folder: dict[str, list[tuple[int, PreparedFile]]] = defaultdict(list)
    for position, file in enumerate(files):
        if file.chunks:
            in_folder[file.key.folder].append((position, file))
    return {folder: _build_segment(numbered) for folder, numbered in sorted(in_folder.items())}


def _build_segment(files: Iterable[tuple[int, PreparedFile]]) -> Segment:
    versions: list[int] = []
    terms, vectors, continues, scripts = [], [], [], []
    for position, file in files:
        versions += [position] * len(file.chunks)
        terms += [term_counts(chunk.searched_text) for chunk in file.chunks]
        vectors.append(file.vectors)
        continues += [chunk.continues for chunk in file.chunks]
        scripts += [script_number(chunk.text) for chunk in file.chunks]
    return Segment.build(versions, terms, np.concatenate(vectors), continues, scripts)

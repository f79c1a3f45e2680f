"""Some chunks of one folder, searchable: vectors, postings and lengths as arrays in one file, mapped into memory.

A segment is never changed once it is written. Rows are sorted by their file's version. Dense search is exact by FAISS
up to `EXACT_ROWS`; beyond it an inverted file with 8-bit codes (Jégou et al., 2011) gives the candidates, whose cosines
are then computed exactly. Knows nothing of folders on disk, of generations, or of what a chunk's text is.
"""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
ArrayLayout = dict[str, tuple[str, list[int], int]]
"""Name of an array → its type, its shape, and where in the file it begins."""

EXACT_ROWS: Final = 20_000
PROBED_SHARE: Final = 0.1  # share of the inverted lists that a search probes
TRAINING_PER_LIST: Final = 64  # training vectors for each inverted list
_ALIGN: Final = 64
_MAX_COUNT: Final = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Segment:
    """`vectors` [rows, dimension]; `lengths` [rows] in terms; `versions` [rows], rising; `continues` [rows], where one
    continues the text of the row before; `scripts` [rows], what each is written in (`words.script_number`); `terms`
    [terms], sorted hashes, with `starts` [terms + 1] into `rows` and `counts`; `coarse`, FAISS's index as bytes, empty
    while exact."""

    vectors: NDArray[np.float32]
    lengths: NDArray[np.int32]
    versions: NDArray[np.int64]
    continues: Mask
    scripts: NDArray[np.uint8]
    terms: NDArray[np.uint64]
    starts: NDArray[np.int64]
    rows: NDArray[np.uint32]
    counts: NDArray[np.uint16]
    coarse: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __len__(self) -> int:
        return len(self.versions)

    @classmethod
    def build(
        cls,
        versions: Sequence[int],
        terms: Sequence[Mapping[str, int]],
        vectors: NDArray[np.float32],
        continues: Sequence[bool] = (),
        scripts: Sequence[int] = (),
    ) -> Segment:
        """`versions`, `terms` (term → how often), `continues` and `scripts` of each row; without the last two, no row
        continues another, and none is known to be written in any."""
        numbers: dict[str, int] = {}
        term_numbers, rows, counts = [], [], []
        for row, term_counts in enumerate(terms):
            for term, count in term_counts.items():
                term_numbers.append(numbers.setdefault(term, len(numbers)))
                rows.append(row)
                counts.append(min(count, _MAX_COUNT))
        hashes = np.array([term_hash(term) for term in numbers], np.uint64)[np.array(term_numbers, np.int64)]
        return cls._assemble(
            vectors,
            np.array([sum(term_counts.values()) for term_counts in terms], np.int32),
            np.array(versions, np.int64),
            np.array(continues or [False] * len(versions), np.bool_),
            np.array(scripts or [0] * len(versions), np.uint8),
            (hashes, np.array(rows, np.uint32), np.array(counts, np.uint16)),
        )

    @classmethod
    def merge(cls, parts: Sequence[tuple[Segment, Mask]]) -> Segment:
        """One segment with the rows that the masks keep."""
        hashes, rows, counts, offset = [], [], [], 0
        for part, keep in parts:
            new_rows = np.cumsum(keep) - 1 + offset
            kept = keep[part.rows]
            hashes.append(np.repeat(part.terms, np.diff(part.starts))[kept])
            rows.append(new_rows[part.rows[kept]].astype(np.uint32))
            counts.append(part.counts[kept])
            offset += int(keep.sum())
        versions = np.concatenate([part.versions[keep] for part, keep in parts])
        order = np.argsort(versions, kind="stable")
        new_rows = np.empty_like(order)
        new_rows[order] = np.arange(len(order))
        return cls._assemble(
            np.concatenate([part.vectors[keep] for part, keep in parts])[order],
            np.concatenate([part.lengths[keep] for part, keep in parts])[order],
            versions[order],
            np.concatenate([part.continues[keep] for part, keep in parts])[order],
            np.concatenate([part.scripts[keep] for part, keep in parts])[order],
            (np.concatenate(hashes), new_rows[np.concatenate(rows)].astype(np.uint32), np.concatenate(counts)),
        )

    @classmethod
    def _assemble(
        cls,
        vectors: NDArray[np.float32],
        lengths: NDArray[np.int32],
        versions: NDArray[np.int64],
        continues: Mask,
        scripts: NDArray[np.uint8],
        postings: tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint16]],
    ) -> Segment:
        hashes, rows, counts = postings
        order = np.lexsort((rows, hashes))
        terms, firsts = np.unique(hashes[order], return_index=True)
        starts = np.append(firsts, len(hashes)).astype(np.int64)
        coarse = _build_inverted_file(vectors) if len(versions) > EXACT_ROWS else np.zeros(0, np.uint8)
        return cls(vectors, lengths, versions, continues, scripts, terms, starts, rows[order], counts[order], coarse)

    # ── on disk ──────────────────────────────────────────────────────────────────────────────────

    def write(self, path: Path) -> tuple[ArrayLayout, int]:
        """Writes and syncs the file. Returns what `open` needs: where each array is, and the checksum."""
        layout: ArrayLayout = {}
        checksum = 0
        with path.open("wb") as file:
            for name in _ARRAYS:
                array: Array = np.ascontiguousarray(getattr(self, name))
                checksum = _write_checked(file.write, b"\0" * (-file.tell() % _ALIGN), checksum)
                layout[name] = (array.dtype.str, list(array.shape), file.tell())
                checksum = _write_checked(file.write, array.tobytes(), checksum)
            file.flush()
            os.fsync(file.fileno())
        return layout, checksum

    @classmethod
    def open(cls, path: Path, layout: ArrayLayout, checksum: int) -> Segment:
        """Raises OSError, ValueError where the file is not what was written."""
        data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        if zlib.crc32(data.data) != checksum:
            raise ValueError(f"{path.name} does not have its checksum")
        arrays: dict[str, Any] = {}
        for name in _ARRAYS:
            if name not in layout:  # of an older version, which only serves until its index is built anew
                arrays[name] = np.zeros(layout["versions"][1], np.uint8)
                continue
            dtype, shape, offset = layout[name]
            kind = np.dtype(dtype)
            part = data[offset : offset + kind.itemsize * math.prod(shape)]
            arrays[name] = np.asarray(part).view(kind).reshape(shape)  # a plain array: slices of a map are slow
        return cls(**arrays)

    # ── lookups ──────────────────────────────────────────────────────────────────────────────────

    def span(self, version: int) -> tuple[int, int]:
        """First row of a file's version and the row after its last; both the same where it has none."""
        first, last = np.searchsorted(self.versions, [version, version + 1])
        return int(first), int(last)

    def mask(self, versions: Iterable[int]) -> Mask:
        """[rows]: those of these versions."""
        wanted = np.sort(np.fromiter(versions, np.int64))
        if not len(wanted):
            return np.zeros(len(self), np.bool_)
        at = np.minimum(np.searchsorted(wanted, self.versions), len(wanted) - 1)
        found: Mask = wanted[at] == self.versions
        return found

    def postings_of(self, term: str) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
        """The term's postings: its rows, rising, and its frequency in each."""
        return self.postings_of_each([term])[0]

    def postings_of_each(self, terms: Sequence[str]) -> list[tuple[NDArray[np.uint32], NDArray[np.uint16]]]:
        """`postings_of` each."""
        wanted = np.array([term_hash(term) for term in terms], np.uint64)
        at = np.searchsorted(self.terms, wanted)
        present = at < len(self.terms)
        present[present] = self.terms[at[present]] == wanted[present]
        starts = self.starts[at[present]].tolist()
        ends = self.starts[at[present] + 1].tolist()
        found = [(self.rows[:0], self.counts[:0])] * len(terms)
        for number, start, end in zip(np.flatnonzero(present).tolist(), starts, ends, strict=True):
            found[number] = self.rows[start:end], self.counts[start:end]
        return found

    def best_neighbour(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[rows], for values that are never negative: the higher value of the rows before and after, where they belong
        to one text. A row without such neighbours has its own."""
        joined, alone = self._neighbour_weights
        found = values * alone
        np.maximum(found[1:], values[:-1] * joined, out=found[1:])
        np.maximum(found[:-1], values[1:] * joined, out=found[:-1])
        return found

    def nearest(self, vector: NDArray[np.float32], count: int, mask: Mask) -> Rows:
        """At most `count` rows of the mask, those whose vectors are nearest to `vector` [dimension]."""
        faiss.omp_set_num_threads(1)  # of this thread: more would take processors from the model's threads
        chosen = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # type: ignore[call-arg,arg-type]
        params: Any = faiss.SearchParameters(sel=chosen)  # type: ignore[call-arg]
        if len(self.coarse):
            params = faiss.SearchParametersIVF(sel=chosen, nprobe=self._probe_count(mask))  # type: ignore[call-arg]
        _, found = self._index.search(vector[None], min(count, len(self)), params=params)
        rows: Rows = found[0][found[0] >= 0]
        return rows

    def cosines(self, vector: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.vectors[rows] @ vector
        return found

    def _probe_count(self, mask: Mask) -> int:
        """Where the mask has few rows, more lists are probed: they may be in any."""
        share = PROBED_SHARE / max(float(mask.mean()), PROBED_SHARE)
        return max(1, math.ceil(share * int(self._index.nlist)))

    @cached_property
    def _neighbour_weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """1 where the next row continues a row [rows - 1], and 1 where a row has no such neighbour [rows]; else 0."""
        joined = self.continues[1:]
        alone = ~(np.append(False, joined) | np.append(joined, False))[: len(self)]
        return joined.astype(np.float32), alone.astype(np.float32)

    @cached_property
    def _index(self) -> Any:
        if len(self.coarse):
            return faiss.deserialize_index(np.asarray(self.coarse))
        index = faiss.IndexFlatIP(self.vectors.shape[1])
        index.add(np.ascontiguousarray(self.vectors))
        return index


_ARRAYS: Final = (
    "vectors",
    "lengths",
    "versions",
    "continues",
    "scripts",
    "terms",
    "starts",
    "rows",
    "counts",
    "coarse",
)


def _write_checked(write: Callable[[bytes | memoryview], object], data: bytes | memoryview, checksum: int) -> int:
    """Writes, and returns the checksum so far."""
    write(data)
    return zlib.crc32(data, checksum)


def _build_inverted_file(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    faiss.omp_set_num_threads(1)
    lists = math.isqrt(len(vectors))
    dimension = vectors.shape[1]
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dimension, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    sample = np.random.default_rng(0).choice(len(vectors), min(len(vectors), lists * TRAINING_PER_LIST), replace=False)
    index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    index.add(np.ascontiguousarray(vectors))
    written: NDArray[np.uint8] = faiss.serialize_index(index)
    return written


@lru_cache(maxsize=1 << 16)
def term_hash(term: str) -> int:
    """64 bits: among a million terms two collide in one of 40 million indexes."""
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")

"""One state of the whole index: immutable, so that whoever holds it sees no change.

A generation says which versions of files live and, for each folder, in which segments their rows are. Segments are
shared from generation to generation. Knows nothing of disk or of how chunks come about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from server.retrieval.index.files import Chunk, FileKey, FileRecord
from server.retrieval.index.segment import Mask, Segment


@dataclass(frozen=True, slots=True)
class Version:
    """A file as it was read once. `segment` holds its rows; None where it has no chunks. `suspicious` chunks read like
    instructions to a model; `suspicious_at` says where the first of them stand."""

    id: int
    key: FileKey
    record: FileRecord
    chunks: int = 0
    segment: int | None = None
    suspicious: int = 0
    suspicious_at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A segment and which of its rows live."""

    segment: Segment
    alive: Mask


ReadChunk = Callable[[int, int], Chunk | None]
"""A version's chunk at a place; None when its generation is not kept any more."""


@dataclass(frozen=True, slots=True)
class Generation:
    """`views`: folder → number of a segment → what lives in it."""

    number: int
    files: Mapping[FileKey, Version]
    views: Mapping[str, Mapping[int, View]]
    read: ReadChunk = field(repr=False)
    versions: Mapping[int, Version] = field(repr=False)
    """The same as `files`, by id."""

    @classmethod
    def build(
        cls, number: int, versions: Iterable[Version], segments: Mapping[int, tuple[str, Segment]], read: ReadChunk
    ) -> Generation:
        """`segments`: number → (folder, segment)."""
        living = {version.id: version for version in versions}
        inside: dict[int, list[int]] = {}
        for version in living.values():
            if version.segment is not None:
                inside.setdefault(version.segment, []).append(version.id)
        views: dict[str, dict[int, View]] = {}
        for at, ids in sorted(inside.items()):
            folder, segment = segments[at]
            views.setdefault(folder, {})[at] = View(segment, segment.mask(ids))
        return cls(number, {version.key: version for version in living.values()}, views, read, living)

    @classmethod
    def empty(cls) -> Generation:
        return cls.build(0, (), {}, lambda version, place: None)

    @property
    def chunks(self) -> int:
        return sum(version.chunks for version in self.files.values())

    def holds(self, folder: str) -> bool:
        """Whether there is something to find in the folder."""
        return bool(self.views.get(folder))

    def following(
        self, number: int, born: Collection[Version], dropped: Collection[FileKey], segments: Mapping[int, Segment]
    ) -> Generation:
        """The next generation: `born` take their keys' places, `dropped` are gone. `segments` are those that `born`
        stand in. Costs the segments that change, and no others."""
        files, versions = dict(self.files), dict(self.versions)
        dead: dict[tuple[str, int], list[int]] = {}
        for key in {*dropped, *(version.key for version in born)}:
            old = files.pop(key, None)
            if old is not None:
                del versions[old.id]
                if old.segment is not None:
                    dead.setdefault((key.folder, old.segment), []).append(old.id)
        fresh: dict[tuple[str, int], list[int]] = {}
        for version in born:
            files[version.key] = versions[version.id] = version
            if version.segment is not None:
                fresh.setdefault((version.key.folder, version.segment), []).append(version.id)
        views = {folder: dict(inside) for folder, inside in self.views.items()}
        for folder, at in dead.keys() | fresh.keys():
            known = views.setdefault(folder, {}).get(at)
            segment = known.segment if known is not None else segments[at]
            alive = known.alive.copy() if known is not None else segment.mask(())
            for ids, living in ((dead.get((folder, at), ()), False), (fresh.get((folder, at), ()), True)):
                for old_or_new in ids:
                    alive[slice(*segment.span(old_or_new))] = living
            views[folder][at] = View(segment, alive)
            if not alive.any():
                del views[folder][at]
        return replace(self, number=number, files=files, versions=versions, views=views)

    def with_records(self, records: Mapping[FileKey, FileRecord]) -> Generation:
        """The same rows, with other knowledge of when the files were read."""
        files, versions = dict(self.files), dict(self.versions)
        for key, record in records.items():
            if key in files:
                files[key] = replace(files[key], record=record)
                versions[files[key].id] = files[key]
        return replace(self, files=files, versions=versions)

    def check_integrity(self) -> None:
        """Raises ValueError unless every chunk of every living file has one living row, and no other row lives."""
        rows = 0
        for folder, inside in self.views.items():
            for at, view in inside.items():
                rows += int(view.alive.sum())
                if len(view.alive) != len(view.segment):
                    raise ValueError(f"segment {at} of {folder}: {len(view.segment)} rows, {len(view.alive)} marks")
        for key, version in self.files.items():
            if self.versions.get(version.id) != version or version.key != key:
                raise ValueError(f"{key.folder}/{key.file} is not the version that it is known as")
            found = 0
            if version.segment is not None:
                view = self.views[key.folder][version.segment]
                found = int(view.alive[slice(*view.segment.span(version.id))].sum())
            if found != version.chunks:
                raise ValueError(f"{key.folder}/{key.file} has {version.chunks} chunks and {found} rows")
        if rows != self.chunks:
            raise ValueError(f"{self.chunks} chunks and {rows} living rows")

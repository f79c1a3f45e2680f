"""A snapshot of the whole index: immutable, so that whoever holds it sees no change.

A generation says which versions of files are live and, for each folder, in which segments their rows are. Segments are
shared from generation to generation. Knows nothing of disk or of how chunks are made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from server.retrieval.index.files import Chunk, FileKey, FileRecord
from server.retrieval.index.segment import Mask, Segment


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file as it was read once. `segment` holds its rows; None where it has no chunks. `suspicious` chunks read like
    instructions to a model; `suspicious_at` are the locations of the first of them."""

    id: int
    key: FileKey
    record: FileRecord
    chunks: int = 0
    segment: int | None = None
    suspicious: int = 0
    suspicious_at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A segment and which of its rows are live; the others are deleted."""

    segment: Segment
    live_rows: Mask


ReadChunk = Callable[[int, int], Chunk | None]
"""A version's chunk at a position; None when its generation is not kept any more."""


@dataclass(frozen=True, slots=True)
class Generation:
    """`views`: folder → segment id → its live rows."""

    number: int
    files: Mapping[FileKey, FileVersion]
    views: Mapping[str, Mapping[int, SegmentView]]
    read: ReadChunk = field(repr=False)
    versions: Mapping[int, FileVersion] = field(repr=False)
    """The same as `files`, by id."""

    @classmethod
    def build(
        cls, number: int, versions: Iterable[FileVersion], segments: Mapping[int, tuple[str, Segment]], read: ReadChunk
    ) -> Generation:
        """`segments`: id → (folder, segment)."""
        live = {version.id: version for version in versions}
        version_ids: dict[int, list[int]] = {}
        for version in live.values():
            if version.segment is not None:
                version_ids.setdefault(version.segment, []).append(version.id)
        views: dict[str, dict[int, SegmentView]] = {}
        for segment_id, ids in sorted(version_ids.items()):
            folder, segment = segments[segment_id]
            views.setdefault(folder, {})[segment_id] = SegmentView(segment, segment.mask(ids))
        return cls(number, {version.key: version for version in live.values()}, views, read, live)

    @classmethod
    def empty(cls) -> Generation:
        return cls.build(0, (), {}, lambda version, place: None)

    @property
    def chunks(self) -> int:
        return sum(version.chunks for version in self.files.values())

    def has_chunks(self, folder: str) -> bool:
        """Whether the folder has a live row."""
        return bool(self.views.get(folder))

    def successor(
        self,
        number: int,
        new_versions: Collection[FileVersion],
        removed: Collection[FileKey],
        segments: Mapping[int, Segment],
    ) -> Generation:
        """The next generation: `new_versions` replace what their keys had, `removed` are gone. `segments` hold the new
        versions. Costs the segments that change, and no others."""
        files, versions = dict(self.files), dict(self.versions)
        deleted: dict[tuple[str, int], list[int]] = {}
        for key in {*removed, *(version.key for version in new_versions)}:
            old = files.pop(key, None)
            if old is not None:
                del versions[old.id]
                if old.segment is not None:
                    deleted.setdefault((key.folder, old.segment), []).append(old.id)
        inserted: dict[tuple[str, int], list[int]] = {}
        for version in new_versions:
            files[version.key] = versions[version.id] = version
            if version.segment is not None:
                inserted.setdefault((version.key.folder, version.segment), []).append(version.id)
        views = {folder: dict(by_segment) for folder, by_segment in self.views.items()}
        for folder, segment_id in deleted.keys() | inserted.keys():
            known = views.setdefault(folder, {}).get(segment_id)
            segment = known.segment if known is not None else segments[segment_id]
            live_rows = known.live_rows.copy() if known is not None else segment.mask(())
            leave, enter = deleted.get((folder, segment_id), ()), inserted.get((folder, segment_id), ())
            for ids, live in ((leave, False), (enter, True)):
                for version_id in ids:
                    live_rows[slice(*segment.span(version_id))] = live
            views[folder][segment_id] = SegmentView(segment, live_rows)
            if not live_rows.any():
                del views[folder][segment_id]
        return replace(self, number=number, files=files, versions=versions, views=views)

    def with_records(self, records: Mapping[FileKey, FileRecord]) -> Generation:
        """The same rows, with newer records of when the files were read."""
        files, versions = dict(self.files), dict(self.versions)
        for key, record in records.items():
            if key in files:
                files[key] = replace(files[key], record=record)
                versions[files[key].id] = files[key]
        return replace(self, files=files, versions=versions)

    def check_integrity(self) -> None:
        """Raises ValueError unless every chunk of every file has one live row, and no other row is live."""
        rows = 0
        for folder, by_segment in self.views.items():
            for segment_id, view in by_segment.items():
                rows += int(view.live_rows.sum())
                if len(view.live_rows) != len(view.segment):
                    raise ValueError(
                        f"segment {segment_id} of {folder}: {len(view.segment)} rows, {len(view.live_rows)} marks"
                    )
        for key, version in self.files.items():
            if self.versions.get(version.id) != version or version.key != key:
                raise ValueError(f"{key.folder}/{key.file} is not the version that it is known as")
            found = 0
            if version.segment is not None:
                view = self.views[key.folder][version.segment]
                found = int(view.live_rows[slice(*view.segment.span(version.id))].sum())
            if found != version.chunks:
                raise ValueError(f"{key.folder}/{key.file} has {version.chunks} chunks and {found} rows")
        if rows != self.chunks:
            raise ValueError(f"{self.chunks} chunks and {rows} living rows")

"""What the knowledge page shows: folders, their files and each file's state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from server.retrieval.generation import FileKey, FileState, Generation


@dataclass(frozen=True, slots=True)
class FileStatus:
    """`changed_at` is the file's own time. `chunks` are those that searches find now."""

    file: str
    state: FileState
    chunks: int
    bytes: int
    reason: str
    changed_at: float


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """The folder named '' holds what lies in no folder and is therefore not read."""

    name: str
    files: tuple[FileStatus, ...]


@dataclass(frozen=True, slots=True)
class KnowledgeStatus:
    """`busy`: files wait or are being read."""

    generation: int
    busy: bool
    folders: tuple[FolderStatus, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that is on disk and not yet in the generation."""

    bytes: int
    mtime_ns: int
    since: float  # time.monotonic()

    def status(self, file: str, chunks: int = 0) -> FileStatus:
        return FileStatus(file, FileState.INDEXING, chunks, self.bytes, "", self.mtime_ns / 1e9)


def assemble(
    generation: Generation, folders: Collection[str], waiting: Mapping[FileKey, Waiting], gone: Collection[FileKey]
) -> KnowledgeStatus:
    """The generation's files, with the waiting ones over them and without the deleted ones."""
    files: dict[str, dict[str, FileStatus]] = {name: {} for name in folders}
    for key, segment in generation.segments.items():
        if key not in gone:
            record = segment.record
            files.setdefault(key.folder, {})[key.file] = FileStatus(
                key.file, record.state, len(segment.chunks), record.bytes, record.reason, record.mtime_ns / 1e9
            )
    for key, file in waiting.items():
        shown = files.setdefault(key.folder, {})
        shown[key.file] = file.status(key.file, shown[key.file].chunks if key.file in shown else 0)
    return KnowledgeStatus(
        generation.number,
        bool(waiting),
        tuple(
            FolderStatus(name, tuple(inside[file] for file in sorted(inside))) for name, inside in sorted(files.items())
        ),
    )

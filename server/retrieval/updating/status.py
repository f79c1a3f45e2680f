"""The status of the knowledge: folders, their files and each file's state. The field names are those of the API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from server.retrieval.index.files import FileKey, FileState
from server.retrieval.index.generation import Generation


@dataclass(frozen=True, slots=True)
class FileStatus:
    """`changed_at` is the file's own time. `chunks` are those that searches find now; `suspicious` of them read like
    instructions to a model, and `suspicious_at` are the locations of the first of these ("lines 3-9", "page 2")."""

    file: str
    state: FileState
    chunks: int
    bytes: int
    reason: str
    changed_at: float
    suspicious: int = 0
    suspicious_at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """The folder named '' has the files that lie in no folder and are therefore not read."""

    name: str
    files: tuple[FileStatus, ...]


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """Of a long import. `left_s` is how long the rest will take; None until that can be said."""

    files: int
    of_files: int
    bytes: int
    of_bytes: int
    left_s: float | None


@dataclass(frozen=True, slots=True)
class MissingFolder:
    """A folder whose files are not there though nobody deleted them: the index keeps what it has of them. The name ''
    is all folders."""

    folder: str
    reason: str


@dataclass(frozen=True, slots=True)
class KnowledgeStatus:
    """`busy`: files are pending. `held`: the generation that was rolled back to, while the index does not follow the
    files; `pending` files on disk differ from it then. `building`: another index is being built to replace the one that
    serves. `problem`: why the index cannot be written to disk, '' when it can."""

    generation: int
    busy: bool
    folders: tuple[FolderStatus, ...]
    progress: ImportProgress | None = None
    held: int | None = None
    pending: int = 0
    building: bool = False
    problem: str = ""
    missing: tuple[MissingFolder, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A file that is on disk and not yet in the generation."""

    bytes: int
    mtime_ns: int
    since: float  # time.monotonic()

    def status(self, file: str, chunks: int = 0) -> FileStatus:
        return FileStatus(file, FileState.INDEXING, chunks, self.bytes, "", self.mtime_ns / 1e9)


def folder_statuses(
    generation: Generation,
    folders: Collection[str],
    pending: Mapping[FileKey, PendingFile],
    deleted: Collection[FileKey],
) -> tuple[FolderStatus, ...]:
    """The generation's files, with the pending ones over them and without the deleted ones."""
    files: dict[str, dict[str, FileStatus]] = {name: {} for name in folders}
    for key, version in generation.files.items():
        if key not in deleted:
            record = version.record
            files.setdefault(key.folder, {})[key.file] = FileStatus(
                key.file, record.state, version.chunks, record.bytes, record.reason, record.mtime_ns / 1e9,
                version.suspicious, version.suspicious_at,
            )  # fmt: skip
    for key, file in pending.items():
        shown = files.setdefault(key.folder, {})
        shown[key.file] = file.status(key.file, shown[key.file].chunks if key.file in shown else 0)
    return tuple(
        FolderStatus(name, tuple(by_name[file] for file in sorted(by_name))) for name, by_name in sorted(files.items())
    )

"""The knowledge as one user may see it: the only way to it for chats and routes.

Every method goes through `Access.may_see`. What a user may not see does not exist for them: not found, not refused.
Knows nothing of how a search or an update works.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from server.errors import NotFound
from server.retrieval.access import Access
from server.retrieval.index.catalog import GenerationRecord
from server.retrieval.index.files import FileState
from server.retrieval.knowledge import FileDeletion, KnowledgeBase, PassageContext
from server.retrieval.search.results import SearchResult
from server.retrieval.search.searcher import SearchFilter
from server.retrieval.updating.status import FileStatus, KnowledgeStatus
from server.types import Passage, UserId
from server.words import normalize

REACH: Final = 3  # passages of context before and after a passage


@dataclass(frozen=True, slots=True)
class FolderAccess:
    """A folder that not everybody may see. `problem`: why nobody may."""

    folder: str
    users: tuple[str, ...]
    problem: str


class SharedKnowledge:
    """Gives each user their view. `base` is for whoever starts, stops and subscribes to it."""

    def __init__(self, base: KnowledgeBase, access: Access) -> None:
        self.base = base
        self._access = access
        base.subscribe(self._record_access)

    def _record_access(self) -> None:
        """Records the access list of each folder from the start, so that it is known when the folder is deleted."""
        for folder in self.base.folders():
            self._access.access_list(folder)

    def for_user(self, user: UserId) -> KnowledgeView:
        return KnowledgeView(self.base, self._access, user)


class KnowledgeView:
    """Blocks, as the knowledge does: call it off the loop."""

    def __init__(self, base: KnowledgeBase, access: Access, user: UserId) -> None:
        self._base = base
        self._access = access
        self._user = user

    def may_see(self, folder: str) -> bool:
        return self._access.may_see(self._user, folder)

    def is_new(self, folder: str) -> bool:
        """No folder of that name exists or existed: it hides nothing."""
        return self._access.is_new(folder)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def search(
        self,
        query: str,
        folders: Sequence[str],
        *,
        previous_query: str = "",
        filters: SearchFilter | None = None,
        traced: bool = False,
    ) -> SearchResult:
        """As `KnowledgeBase.search`, in those of the folders that the user may see."""
        visible = self._visible_folders(folders)
        return self._base.search(query, visible, previous_query=previous_query, filters=filters, traced=traced)

    def relevance(self, query: str, folders: Iterable[str]) -> dict[str, float]:
        """As `KnowledgeBase.relevance`, of those of the folders that the user may see."""
        return self._base.relevance(query, self._visible_folders(folders))

    def _visible_folders(self, names: Iterable[str]) -> list[str]:
        """As they are called on the disk, whose names may be in another Unicode form (a Mac's zip files)."""
        on_disk: dict[str, list[str]] = defaultdict(list)
        for folder in self._base.folders():
            on_disk[normalize(folder, "NFC")].append(folder)
        found = [folder for name in names for folder in on_disk.get(normalize(name, "NFC"), [name])]
        return [folder for folder in dict.fromkeys(found) if self.may_see(folder)]

    def passage(self, passage_id: str, reach: int = REACH) -> PassageContext:
        """A passage that was cited, and `reach` passages before and after it. Raises NotFound."""
        found = self._base.passage_context(passage_id, reach)
        if found is None or not self.may_see(found.passage.folder):
            raise NotFound(f"no passage '{passage_id[:80]}': its file was deleted, or its generation is not kept")
        return found

    def visible(self, passages: Sequence[Passage]) -> tuple[Passage, ...]:
        """The same, with those that the user may not see (any more) emptied: the numbers of the others stay."""
        return tuple(one if self.may_see(one.folder) else Passage("", "", "", "") for one in passages)

    def status(self) -> KnowledgeStatus:
        """Where a folder is hidden, the figures of the whole index are left out."""
        status = self._base.status()
        folders = tuple(folder for folder in status.folders if self.may_see(folder.name))
        if len(folders) == len(status.folders):
            return status
        busy = any(file.state is FileState.INDEXING for folder in folders for file in folder.files)
        missing = tuple(one for one in status.missing if self.may_see(one.folder))
        return replace(status, folders=folders, busy=busy, progress=None, pending=0, missing=missing)

    def access_lists(self, *, problems: bool) -> tuple[FolderAccess, ...]:
        """Of the folders that the user may see and, with `problems`, of those that nobody may by mistake."""
        found = []
        for folder in self._base.status().folders:
            access_list = self._access.access_list(folder.name) if folder.name else None
            if access_list is None or access_list.users is None:
                continue
            if (problems and access_list.problem) or self.may_see(folder.name):
                found.append(FolderAccess(folder.name, tuple(sorted(access_list.users)), access_list.problem))
        return tuple(found)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def save(self, folder: str, filename: str, data: bytes) -> FileStatus:
        """Raises NotFound, InvalidInput."""
        self._base.check_folder(folder)
        if not self._access.is_new(folder) and not self.may_see(folder):
            raise NotFound(f"no folder '{folder[:80]}' that you may change; choose another name")
        return self._base.save(folder, filename, data)

    def delete(self, folder: str, file: str, *, purge: bool = False) -> FileDeletion:
        """See `KnowledgeBase.delete`. Raises NotFound."""
        if not self.may_see(folder):
            raise NotFound(f"no file '{file[:200]}' in the knowledge folder '{folder[:80]}'")
        return self._base.delete(folder, file, purge=purge)

    # ── generations, of all folders together ─────────────────────────────────────────────────────

    def history(self) -> list[GenerationRecord]:
        """Newest first. Where a folder is hidden, only the changes in the other folders, of the files that are listed;
        the size of the whole index is then -1."""
        records = self._base.history()
        hidden = {folder for one in records for folder in map(_folder_of, one.told) if not self.may_see(folder)}
        if not hidden and all(self.may_see(folder.name) for folder in self._base.status().folders):
            return records
        shown = []
        for one in records:
            listed = tuple(entry for entry in one.told if _folder_of(entry) not in hidden)
            counts = [sum(what == each for each, _ in listed) for what in ("added", "changed", "removed")]
            if listed or one.cause != "files":
                shown.append(replace(one, files=-1, chunks=-1, added=counts[0], changed=counts[1], removed=counts[2],
                                     told=listed))  # fmt: skip
        return shown

    def roll_back(self, number: int) -> int:
        return self._base.roll_back(number)

    def follow(self) -> None:
        self._base.follow()

    def rebuild(self) -> None:
        self._base.rebuild()


def _folder_of(change: tuple[str, str]) -> str:
    return change[1].partition("/")[0] if "/" in change[1] else ""

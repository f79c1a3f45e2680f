"""Who may see which folder of knowledge. One function decides: `Access.may_see`.

    knowledge/<folder>/.users    names of accounts and @groups of them, one a line; `#` begins a comment
    absent                       everybody
    empty or unreadable          nobody, and the status says so

The file is read at every question, so that a change counts at once. The access list last seen of a folder is kept in
`data/index/access.json`: texts of a folder that was deleted from the disk, which an index held at an earlier generation
still has, stay limited as they were, and a folder without any record is nobody's. Knows nothing of sessions.
"""

from __future__ import annotations

import json
import logging
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.private_files import write_private
from server.retrieval.index.devices import FolderDevices
from server.types import UserId
from server.words import normalize

log = logging.getLogger("tailor.retrieval")

USERS_FILE: Final = ".users"
LOCAL_USER: Final = UserId("local")  # the one user of a server without accounts, who may see everything
MAX_BYTES: Final = 64 * 1024
SAVE_GRACE_S: Final = 2.0  # some editors remove a file to write it again: until then it is not removed


@dataclass(frozen=True, slots=True)
class AccessList:
    """Of one folder. `users` is None where everybody may see it; `problem` says why nobody may."""

    users: frozenset[str] | None
    problem: str = ""


NOBODY: Final = AccessList(frozenset())


class Access:
    """Safe from any thread. `principals_of` gives what may stand for a user in a list: the name of the account, and
    `@group` for each group; nothing where the account was deleted."""

    def __init__(self, root: Path, last_seen_file: Path, principals_of: Callable[[UserId], frozenset[str]]) -> None:
        self._root = root
        self._last_seen_file = last_seen_file
        self._principals_of = principals_of
        self._lock = threading.Lock()
        self._last_seen = _load_last_seen(last_seen_file)
        self._devices = FolderDevices(root, last_seen_file.parent)

    def may_see(self, user: UserId, folder: str) -> bool:
        """The one rule, for reading and for writing. '' holds what lies in no folder, which is nobody's secret."""
        if user == LOCAL_USER or not folder:
            return True
        users = self.access_list(folder).users
        return users is None or not users.isdisjoint(self._principals_of(user))

    def access_list(self, folder: str) -> AccessList:
        """As it is now, or as last seen where the folder was deleted."""
        if folder in (".", "..") or any(char in folder for char in "/\\\0"):
            return NOBODY
        folders = [self._root / form for form in _forms(folder)]
        found = [access_list for access_list in map(self._read, folders) if access_list is not None]
        key = normalize(folder, "NFC")
        with self._lock:
            if not found:
                return AccessList(self._last_seen[key]) if key in self._last_seen else NOBODY
            access_list = _strictest(found)
            before = self._last_seen.get(key)
            if access_list.users is None and before is not None and any(map(_is_being_saved, folders)):
                return AccessList(before)
            if key not in self._last_seen or before != access_list.users:
                self._last_seen[key] = access_list.users
                self._save_last_seen()
            return access_list

    def is_new(self, folder: str) -> bool:
        """Nothing of that name is there, or was."""
        with self._lock:
            known = normalize(folder, "NFC") in self._last_seen
        return not known and not any((self._root / form).exists() for form in _forms(folder))

    def _read(self, folder: Path) -> AccessList | None:
        """None where the folder is not there."""
        path = folder / USERS_FILE
        try:
            if not _is_plain(path):
                most = MAX_BYTES // 1024
                problem = f"{USERS_FILE} is no plain file of at most {most} KB, so nobody may see the folder"
                return AccessList(frozenset(), problem)
            return _parse(path.read_text(encoding="utf-8-sig"))
        except (FileNotFoundError, NotADirectoryError):
            if not folder.is_dir() or self._devices.away(folder.name):  # an unmounted share has its file with it
                return None
            return AccessList(None)
        except OSError as error:
            problem = f"{USERS_FILE} cannot be read ({error.strerror}), so nobody may see the folder"
            return AccessList(frozenset(), problem)
        except UnicodeDecodeError:
            problem = f"{USERS_FILE} is not UTF-8 text, so nobody may see the folder; save it as UTF-8"
            return AccessList(frozenset(), problem)

    def _save_last_seen(self) -> None:
        stored = {
            folder: sorted(users) if users is not None else None for folder, users in sorted(self._last_seen.items())
        }
        temporary = self._last_seen_file.with_suffix(".new")
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            write_private(temporary, json.dumps(stored, ensure_ascii=False))
            temporary.replace(self._last_seen_file)
        except (OSError, UnicodeEncodeError) as error:  # it stays known in memory, until this process ends
            log.warning("who may see which folder cannot be kept in %s: %s", self._last_seen_file, error)


def _is_plain(path: Path) -> bool:
    """Links are not followed: what they lead to may be changed by others. Raises OSError."""
    file_stat = path.lstat()
    return stat.S_ISREG(file_stat.st_mode) and file_stat.st_size <= MAX_BYTES


def _parse(text: str) -> AccessList:
    users = frozenset(filter(None, (line.partition("#")[0].strip().lower() for line in text.splitlines())))
    problem = f"{USERS_FILE} names nobody, so nobody may see the folder; write one name a line, or remove the file"
    return AccessList(users, "" if users else problem)


def _forms(folder: str) -> set[str]:
    """Some systems store names decomposed; a limit counts under each form."""
    return {folder, normalize(folder, "NFC"), normalize(folder, "NFD")}


def _strictest(access_lists: Iterable[AccessList]) -> AccessList:
    users: frozenset[str] | None = None
    problem = ""
    for access_list in access_lists:
        if access_list.users is not None:
            users = access_list.users if users is None else users & access_list.users
            problem = problem or access_list.problem
    return AccessList(users, problem)


def _is_being_saved(path: Path) -> bool:
    try:
        return abs(time.time() - path.stat().st_mtime) < SAVE_GRACE_S
    except OSError:
        return False


def _load_last_seen(path: Path) -> dict[str, frozenset[str] | None]:
    """What is damaged is nothing: then folders that are not on the disk are nobody's."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {str(folder): None if users is None else frozenset(map(str, users)) for folder, users in stored.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}

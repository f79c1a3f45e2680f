"""Who may see which folder of knowledge. One function decides: `Access.may_see`.

    knowledge/<folder>/.users    names of accounts, one a line; `#` begins a comment
    absent                       everybody
    empty or unreadable          nobody, and the status says so

The file is read at every question, so that a change counts at once. What was last seen of a folder is kept in
`data/index/access.json`: texts of a folder that is gone from the disk, which an index held at an earlier generation
still has, stay limited as they were, and a folder of which nothing is known is nobody's. Knows nothing of sessions.
"""

from __future__ import annotations

import json
import logging
import stat
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.types import UserId

log = logging.getLogger("tailor.retrieval")

FILE: Final = ".users"
LOCAL: Final = UserId("local")   # the one user of a server without accounts, who may everything
MOST_BYTES: Final = 64 * 1024
SAVING_S: Final = 2.0            # some editors remove a file and write it anew; so long it is not taken for removed


@dataclass(frozen=True, slots=True)
class Limit:
    """Of one folder: `users` is None where everybody may see it; `problem` says why nobody may."""

    users: frozenset[str] | None
    problem: str = ""


NOBODY: Final = Limit(frozenset())


class Access:
    """Safe from any thread. `name_of` gives the name of an account, None where it is gone."""

    def __init__(self, root: Path, seen: Path, name_of: Callable[[UserId], str | None]) -> None:
        self._root = root
        self._seen_file = seen
        self._name_of = name_of
        self._lock = threading.Lock()
        self._seen = _read_seen(seen)

    def may_see(self, user: UserId, folder: str) -> bool:
        """The one rule, for reading and for writing. '' holds what lies in no folder, which is nobody's secret."""
        if user == LOCAL or not folder:
            return True
        users = self.limit(folder).users
        return users is None or self._name_of(user) in users

    def limit(self, folder: str) -> Limit:
        """As it is now, or as it was when the folder was last there."""
        if folder in (".", "..") or any(char in folder for char in "/\\\0"):
            return NOBODY
        places = [self._root / form for form in _forms(folder)]
        found = [limit for limit in map(self._of, places) if limit is not None]
        key = unicodedata.normalize("NFC", folder)
        with self._lock:
            if not found:
                return Limit(self._seen[key]) if key in self._seen else NOBODY
            limit = _strictest(found)
            before = self._seen.get(key)
            if limit.users is None and before is not None and any(map(_is_being_saved, places)):
                return Limit(before)
            if key not in self._seen or before != limit.users:
                self._seen[key] = limit.users
                self._keep()
            return limit

    def is_new(self, folder: str) -> bool:
        """Nothing of that name is there, or was."""
        with self._lock:
            known = unicodedata.normalize("NFC", folder) in self._seen
        return not known and not any((self._root / form).exists() for form in _forms(folder))

    def _of(self, place: Path) -> Limit | None:
        """None where the folder is not there."""
        path = place / FILE
        try:
            if not _is_plain(path):
                problem = f"{FILE} is no plain file of at most {MOST_BYTES // 1024} KB, so nobody may see the folder"
                return Limit(frozenset(), problem)
            return _limit(path.read_text(encoding="utf-8-sig"))
        except (FileNotFoundError, NotADirectoryError):
            return Limit(None) if place.is_dir() else None
        except OSError as error:
            return Limit(frozenset(), f"{FILE} cannot be read ({error.strerror}), so nobody may see the folder")
        except UnicodeDecodeError:
            return Limit(frozenset(), f"{FILE} is not UTF-8 text, so nobody may see the folder; save it as UTF-8")

    def _keep(self) -> None:
        held = {folder: sorted(users) if users is not None else None for folder, users in sorted(self._seen.items())}
        pending = self._seen_file.with_suffix(".new")
        try:
            pending.parent.mkdir(parents=True, exist_ok=True)
            pending.write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")
            pending.replace(self._seen_file)
        except (OSError, UnicodeEncodeError) as error:  # it is known as long as this process lives
            log.warning("who may see which folder cannot be kept in %s: %s", self._seen_file, error)


def _is_plain(path: Path) -> bool:
    """Links are not followed: what they lead to may be changed by others. Raises OSError."""
    about = path.lstat()
    return stat.S_ISREG(about.st_mode) and about.st_size <= MOST_BYTES


def _limit(text: str) -> Limit:
    users = frozenset(filter(None, (line.partition("#")[0].strip().lower() for line in text.splitlines())))
    problem = f"{FILE} names nobody, so nobody may see the folder; write one name a line, or remove the file"
    return Limit(users, "" if users else problem)


def _forms(folder: str) -> set[str]:
    """Some systems store names decomposed; a limit counts under each form."""
    return {folder, unicodedata.normalize("NFC", folder), unicodedata.normalize("NFD", folder)}


def _strictest(limits: Iterable[Limit]) -> Limit:
    users: frozenset[str] | None = None
    problem = ""
    for limit in limits:
        if limit.users is not None:
            users = limit.users if users is None else users & limit.users
            problem = problem or limit.problem
    return Limit(users, problem)


def _is_being_saved(place: Path) -> bool:
    try:
        return abs(time.time() - place.stat().st_mtime) < SAVING_S
    except OSError:
        return False


def _read_seen(path: Path) -> dict[str, frozenset[str] | None]:
    """What is damaged is nothing: then folders that are not on the disk are nobody's."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return {str(folder): None if users is None else frozenset(map(str, users)) for folder, users in held.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}

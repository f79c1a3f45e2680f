"""The domains of a prompts folder, always as they are on disk.

Each call looks at the folder's names, times and sizes, and reads only files that changed. A file that
breaks keeps serving as it last was, and is reported. Safe to call from any thread; blocks for a few
system calls. Knows nothing of models, chats or users.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from server.errors import NotFound, PromptFileError
from server.prompting.domain import Domain
from server.prompting.domain_file import parse_domain

log = logging.getLogger("tailor.prompting")

BUILT_IN = b"""---
title: General
description: Everyday questions.
sampling: {temperature: 0.2, top_p: 0.9}
---
You are a helpful assistant. Reply in the user's language, clearly and briefly.
"""

_Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class _Held:
    """A file as last read: the newest version that works, and what is wrong with the present one."""

    stamp: _Stamp | None
    good: Domain | None
    problem: PromptFileError | None


class PromptLibrary:
    """`default` names the domain that always exists: built in, until the folder has a file for it."""

    def __init__(self, folder: Path, default: str) -> None:
        self._folder = folder
        self._built_in = parse_domain(f"{default}.md", BUILT_IN)
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def domains(self) -> tuple[Domain, ...]:
        """All that can answer, by name."""
        return tuple(domain for _, domain in sorted(self._good().items()))

    def get(self, name: str) -> Domain:
        """Raises NotFound naming the domains there are, or what is wrong with the file of this one."""
        good = self._good()
        if name in good:
            return good[name]
        problem = self._held_now().get(f"{name}.md", _Held(None, None, None)).problem
        if problem is not None:
            raise NotFound(f"the domain '{name}' has never had a file that works: {problem}")
        raise NotFound(f"there is no domain '{name}'; there are {', '.join(sorted(good))}")

    def problems(self) -> tuple[PromptFileError, ...]:
        """What is wrong with the folder's files now, by file; an older version may still serve."""
        return tuple(held.problem for _, held in sorted(self._held_now().items()) if held.problem is not None)

    def _good(self) -> dict[str, Domain]:
        found = {held.good.name: held.good for held in self._held_now().values() if held.good is not None}
        return {self._built_in.name: self._built_in, **found}

    def _held_now(self) -> dict[str, _Held]:
        with self._lock:
            stamps = self._stamps()
            if {file: held.stamp for file, held in self._held.items()} != stamps:
                self._held = {file: self._read(file, stamp) for file, stamp in stamps.items()}
            return self._held

    def _stamps(self) -> dict[str, _Stamp | None]:
        """Files that could be domains; None stands for one whose state cannot be told."""
        stamps: dict[str, _Stamp | None] = {}
        try:
            entries = list(os.scandir(self._folder))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            log.warning("the prompts folder cannot be listed: %s", error)
            return {file: held.stamp for file, held in self._held.items()}
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.endswith(".md"):
                continue
            try:
                if entry.is_file():
                    state = entry.stat()
                    stamps[entry.name] = (state.st_mtime_ns, state.st_size, state.st_ino)
            except FileNotFoundError:
                continue
            except OSError:
                stamps[entry.name] = None
        return stamps

    def _read(self, file: str, stamp: _Stamp | None) -> _Held:
        before = self._held.get(file)
        if before is not None and before.stamp == stamp:
            return before
        path = self._folder / file
        try:
            return _Held(stamp, parse_domain(path, path.read_bytes()), None)
        except PromptFileError as error:
            problem = error
        except OSError as error:
            problem = PromptFileError(path, 1, f"the file cannot be read: {error.strerror}")
        good = before.good if before else None
        log.warning("%s; %s", problem, "its last good version goes on serving" if good else "it does not serve")
        return _Held(stamp, good, problem)

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
from server.prompting.domain_file import MAX_BYTES, parse_domain
from server.words import printable

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
class _CachedFile:
    """A file as last read: its last valid version, and what is wrong with the present one."""

    stamp: _Stamp | None
    valid: Domain | None
    problem: PromptFileError | None


class PromptLibrary:
    """`default` names the domain that always exists: built in, until the folder has a file for it."""

    def __init__(self, folder: Path, default: str) -> None:
        self._folder = folder
        self.built_in = parse_domain(f"{default}.md", BUILT_IN)
        self._lock = threading.Lock()
        self._files: dict[str, _CachedFile] = {}

    def domains(self) -> tuple[Domain, ...]:
        """All that can answer, by name."""
        return tuple(domain for _, domain in sorted(self._valid_domains().items()))

    def get(self, name: str) -> Domain:
        """Raises NotFound naming the domains there are, or what is wrong with the file of this one."""
        valid = self._valid_domains()
        if name in valid:
            return valid[name]
        problem = self._current_files().get(f"{name}.md", _CachedFile(None, None, None)).problem
        if problem is not None:
            raise NotFound(f"the domain '{name}' has never had a file that works: {problem}")
        raise NotFound(f"there is no domain '{name}'; there are {', '.join(sorted(valid))}")

    def problems(self) -> tuple[PromptFileError, ...]:
        """What is wrong with the folder's files now, by file; an older version may still serve."""
        files = sorted(self._current_files().items())
        return tuple(cached.problem for _, cached in files if cached.problem is not None)

    def _valid_domains(self) -> dict[str, Domain]:
        found = [cached.valid for cached in self._current_files().values() if cached.valid is not None]
        return {self.built_in.name: self.built_in, **{domain.name: domain for domain in found}}

    def _current_files(self) -> dict[str, _CachedFile]:
        with self._lock:
            stamps = self._stamps()
            if {file: cached.stamp for file, cached in self._files.items()} != stamps:
                self._files = {file: self._read(file, stamp) for file, stamp in stamps.items()}
            return self._files

    def _stamps(self) -> dict[str, _Stamp | None]:
        """Files that could be domains; None stands for one whose state cannot be told."""
        stamps: dict[str, _Stamp | None] = {}
        try:
            entries = list(os.scandir(self._folder))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            log.warning("the prompts folder cannot be listed: %s", error)
            return {file: cached.stamp for file, cached in self._files.items()}
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

    def _read(self, file: str, stamp: _Stamp | None) -> _CachedFile:
        previous = self._files.get(file)
        if previous is not None and previous.stamp == stamp:
            return previous
        path = self._folder / file
        try:
            with path.open("rb") as opened:  # a byte more than it may have is enough to refuse it
                return _CachedFile(stamp, parse_domain(path, opened.read(MAX_BYTES + 1)), None)
        except PromptFileError as error:
            problem = error
        except OSError as error:
            problem = PromptFileError(path, 1, f"the file cannot be read: {error.strerror}")
        valid = previous.valid if previous else None
        log.warning(
            "%s; %s", printable(str(problem)), "its last good version goes on serving" if valid else "it does not serve"
        )
        return _CachedFile(stamp, valid, problem)

"""The domains as one user may see them: the only way to them for chats and routes.

A domain whose file limits it (`access:`) does not exist for anybody else: not listed, not routed to, not found. Where
the default domain is limited, the built-in one answers everybody else. Knows nothing of accounts or sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from server.errors import NotFound, PromptFileError
from server.prompting.domain import Domain
from server.prompting.library import PromptLibrary
from server.types import UserId

Principals = Callable[[UserId], frozenset[str] | None]


class SharedDomains:
    """Gives each user their view. `principals_of`: what may stand for a user in an access list, their name and their
    `@groups`; None for who may see everything."""

    def __init__(self, library: PromptLibrary, principals_of: Principals) -> None:
        self._library = library
        self._principals_of = principals_of

    def for_user(self, user: UserId) -> DomainView:
        return DomainView(self._library, self._principals_of(user))


class DomainView:
    """Of one user, as they stand in the groups now. Blocks for a few system calls."""

    def __init__(self, library: PromptLibrary, principals: frozenset[str] | None) -> None:
        self._library = library
        self._principals = principals

    def domains(self) -> tuple[Domain, ...]:
        """All that can answer this user, by name."""
        seen = {domain.name: domain for domain in self._library.domains() if self._may_see(domain)}
        built_in = self._library.built_in
        seen.setdefault(built_in.name, built_in)
        return tuple(domain for _, domain in sorted(seen.items()))

    def get(self, name: str) -> Domain:
        """Raises NotFound, alike for what is hidden and for what is not there."""
        found = {domain.name: domain for domain in self.domains()}
        if name in found:
            return found[name]
        if self._principals is None:
            return self._library.get(name)  # says what is wrong with its file
        raise NotFound(f"there is no domain '{name[:64]}'; there are {', '.join(found)}")

    def problems(self) -> tuple[PromptFileError, ...]:
        """What is wrong with files: of the domains that this user may see, and where none is hidden, of all."""
        known = {domain.name: domain for domain in self._library.domains()}
        all_seen = all(map(self._may_see, known.values()))
        return tuple(
            problem
            for problem in self._library.problems()
            if (self._may_see(known[name]) if (name := Path(problem.file).stem) in known else all_seen)
        )

    def _may_see(self, domain: Domain) -> bool:
        if domain.access is None or self._principals is None:
            return True
        return not self._principals.isdisjoint(domain.access)

"""Passwords: which are taken, their Argon2id hashes (RFC 9106), and the two threads on which all hashing is done.

A hash costs tens of milliseconds and megabytes on purpose. It has threads of its own, with a bounded queue, so that a
flood of logins delays logins alone. Knows nothing of accounts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from server.errors import InvalidInput, Overloaded
from server.words import normalize

MIN_PASSWORD: Final = 8  # characters
MAX_PASSWORD: Final = 1_024
NO_PASSWORD: Final = "-"  # no hash has this form: an account that signs in elsewhere
WORKERS: Final = 2
MAX_WAITING: Final = 32  # beyond those that are being hashed
RETRY_S: Final = 2.0

_T = TypeVar("_T")


class Passwords:
    """Hashes on the calling thread."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        # An unknown name is checked against this, so that it takes as long as a wrong password.
        self.decoy = self._hasher.hash(secrets.token_hex(16))

    def hash(self, password: str) -> str:
        """Raises InvalidInput for a password that is too short or too long."""
        check_length(password)
        if len(password) < MIN_PASSWORD:
            raise InvalidInput(f"a password has at least {MIN_PASSWORD} characters; choose a longer one")
        return self._hasher.hash(_normalised(password))

    def verify(self, hashed: str, password: str) -> bool:
        """Raises InvalidInput for a password that is too long to be one."""
        check_length(password)
        try:
            return self._hasher.verify(hashed, _normalised(password))
        except (VerificationError, InvalidHashError):
            return False

    def needs_rehash(self, hashed: str) -> bool:
        return self._hasher.check_needs_rehash(hashed)


def check_length(password: str) -> None:
    """Before anything else looks at it."""
    if len(password) > MAX_PASSWORD:
        raise InvalidInput(f"a password has at most {MAX_PASSWORD:,} characters; this one has {len(password):,}")


def _normalised(password: str) -> bytes:
    """One form for the same characters typed on different systems (Hangul above all)."""
    return normalize(password, "NFKC").encode("utf-8", "surrogatepass")


class PasswordWorkers:
    """Runs what hashes on threads of its own; belongs to one event loop."""

    def __init__(self, workers: int = WORKERS, waiting: int = MAX_WAITING) -> None:
        self._executor = ThreadPoolExecutor(workers, "passwords")
        self._most = workers + waiting
        self._taken = 0

    async def run(self, work: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        """Raises Overloaded, before anything is done, when too many wait."""
        if self._taken >= self._most:
            raise Overloaded("too many logins are being checked; try again in a moment", RETRY_S)
        self._taken += 1
        future = self._executor.submit(copy_context().run, partial(work, *arguments, **named))
        loop = asyncio.get_running_loop()
        # A caller who goes away frees no thread: the place is free when the work is done.
        future.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(self._release))
        return await asyncio.wrap_future(future)

    def _release(self) -> None:
        self._taken -= 1

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

"""Slows guessing down without locking anybody out. docs/accounts.md says what it holds against, and why so.

Three counts, all of failures, so that whoever has the right password is never slowed by it:

    name at an address   five are free, then the wait doubles from a second to five minutes
    address              a budget over all names, refilled slowly: a list of names gets no further than one name
    name                 a budget over all addresses, refilled slowly: when it is used up, an address that is not known
                         for the name has one try instead of five, and waits a minute and longer after it

A name that is used up by strangers refuses nobody: an address that has not failed has its try at once. An address is an
IPv4 address or an IPv6 /64, which is what one connection is given. Who shows a live session is counted by that, and not
by the address. Keys are digests of a fixed size, and each table has a bound. Lives on the event loop.
Knows nothing of passwords or of whether a name exists.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

from server.errors import RateLimited

FREE_FAILURES: Final = 5  # in a row, before a wait
FREE_FAILURES_STRICT: Final = 1  # of a name whose budget is used up, at an address that is not known
FIRST_WAIT_S: Final = 1.0
FIRST_WAIT_STRICT_S: Final = 60.0
MAX_WAIT_S: Final = 300.0
ADDRESS_BUDGET: Final = 30
ADDRESS_REFILL_S: Final = 20.0  # until one more is free
NAME_BUDGET: Final = 100
NAME_REFILL_S: Final = 36.0
MAX_AT_ONCE: Final = 4  # of one address
MAX_ENTRIES: Final = 10_000  # of each table
DIGEST_BYTES: Final = 16


def address_block(address: str) -> str:
    """The address, an IPv6 one as its /64; '' for what is no address (a Unix socket)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


@dataclass(slots=True)
class _Budget:
    left: float
    at: float


class _Budgets:
    """Token buckets by key: `size` at once, and one more each `refill_s`."""

    def __init__(self, size: int, refill_s: float) -> None:
        self._size = size
        self._refill_s = refill_s
        self._budgets: OrderedDict[bytes, _Budget] = OrderedDict()

    def wait_s(self, key: bytes) -> float:
        """0 where one is left."""
        budget = self._current(key)
        return 0.0 if budget.left >= 1 else (1 - budget.left) * self._refill_s

    def take(self, key: bytes) -> None:
        budget = self._current(key)
        budget.left = max(budget.left - 1, 0.0)
        self._budgets[key] = budget
        self._budgets.move_to_end(key)
        if len(self._budgets) > MAX_ENTRIES:
            self._budgets.popitem(last=False)

    def give_back(self, key: bytes) -> None:
        budget = self._current(key)
        budget.left = min(budget.left + 1, float(self._size))
        if budget.left >= self._size:
            self._budgets.pop(key, None)

    def _current(self, key: bytes) -> _Budget:
        now = time.monotonic()
        budget = self._budgets.get(key) or _Budget(float(self._size), now)
        budget.left = min(budget.left + (now - budget.at) / self._refill_s, float(self._size))
        budget.at = now
        return budget

    def __len__(self) -> int:
        return len(self._budgets)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try that was let through, counted as a failure until `LoginThrottle.succeeded` or `undo` is called."""

    pair: bytes
    source: bytes
    name: bytes


class LoginThrottle:
    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)  # who can choose names must not choose what collides
        self._pairs: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # failures, when the next try is free
        self._sources = _Budgets(ADDRESS_BUDGET, ADDRESS_REFILL_S)
        self._names = _Budgets(NAME_BUDGET, NAME_REFILL_S)
        self._running: Counter[bytes] = Counter()

    def attempt(self, name: str, source: str, *, known: bool = False) -> Attempt:
        """Counts a failure, undone by success: so a burst of parallel tries counts whole. `source` is an address block
        or a live session; `known`: the account of that name has a session from it. Raises RateLimited."""
        attempt = Attempt(self._digest(source, name), self._digest(source), self._digest(name))
        if self._running[attempt.source] >= MAX_AT_ONCE:
            raise RateLimited(_message(1.0), 1.0)
        strict = not known and self._names.wait_s(attempt.name) > 0
        failures, free_at = self._pairs.get(attempt.pair, (0, 0.0))
        now = time.monotonic()
        wait = max(free_at - now, self._sources.wait_s(attempt.source))
        if wait > 0:
            raise RateLimited(_message(wait), wait)
        self._pairs[attempt.pair] = (failures + 1, now + _wait_after(failures + 1, strict))
        self._pairs.move_to_end(attempt.pair)
        if len(self._pairs) > MAX_ENTRIES:
            self._pairs.popitem(last=False)
        self._sources.take(attempt.source)
        self._names.take(attempt.name)
        self._running[attempt.source] += 1
        return attempt

    def succeeded(self, attempt: Attempt) -> None:
        self._pairs.pop(attempt.pair, None)
        self._sources.give_back(attempt.source)
        self._names.give_back(attempt.name)

    def undo(self, attempt: Attempt) -> None:
        """It was not tried after all."""
        failures, _ = self._pairs.get(attempt.pair, (1, 0.0))
        self._pairs[attempt.pair] = (failures - 1, 0.0)
        self._sources.give_back(attempt.source)
        self._names.give_back(attempt.name)

    def ended(self, attempt: Attempt) -> None:
        """Whatever came of it."""
        self._running[attempt.source] -= 1
        if self._running[attempt.source] <= 0:
            del self._running[attempt.source]

    def forgive(self, name: str, source: str) -> None:
        """The name has a new password, set from there."""
        self._pairs.pop(self._digest(source, name), None)

    def _digest(self, *parts: str) -> bytes:
        digest = hashlib.blake2b(self._salt, digest_size=DIGEST_BYTES)
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(4, "big") + encoded)
        return digest.digest()


def _wait_after(failures: int, strict: bool) -> float:
    free = FREE_FAILURES_STRICT if strict else FREE_FAILURES
    if failures < free:
        return 0.0
    first = FIRST_WAIT_STRICT_S if strict else FIRST_WAIT_S
    return min(first * 2.0 ** min(failures - free, 30), MAX_WAIT_S)


def _message(wait_s: float) -> str:
    seconds = math.ceil(wait_s)
    return f"too many failed logins; try again in {seconds} second{'s' if seconds > 1 else ''}"

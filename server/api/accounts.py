"""Accounts, their sessions and their API keys.

Passwords are kept as Argon2id hashes (RFC 9106), session tokens and keys, which are random, as SHA-256: a
copy of the database opens nothing. Failed logins slow down by name, in memory. All methods block: an
event loop calls them in a thread. Knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlite_utils import Database as Connection

from server.database import Database
from server.errors import Conflict, InvalidInput, NotFound, Unauthorized
from server.types import UserId

MIN_PASSWORD = 8
MAX_PASSWORD = 1_024
FREE_FAILURES = 5  # in a row, before a wait
MAX_WAIT_S = 300.0
MAX_THROTTLED_NAMES = 10_000  # whose failures are remembered
KEY_PREFIX = "tlr-"
SESSION_DAYS = 30.0
_TOKEN_BYTES = 32
_NAME = re.compile(r"[a-z0-9._-]{1,64}")

MIGRATIONS = (
    """
    CREATE TABLE accounts (
        user_id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        password TEXT NOT NULL,
        admin INTEGER NOT NULL,
        created_at REAL NOT NULL
    );
    CREATE TABLE sessions (
        token BLOB PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL
    );
    CREATE INDEX sessions_of_user ON sessions (user_id);
    CREATE TABLE api_keys (
        key BLOB PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES accounts (user_id) ON DELETE CASCADE,
        created_at REAL NOT NULL
    );
    CREATE INDEX api_keys_of_user ON api_keys (user_id);
    """,
)


@dataclass(frozen=True, slots=True)
class Account:
    """`user_id` is random, so that a name that is given again inherits nothing."""

    user_id: UserId
    name: str
    admin: bool


@dataclass(frozen=True, slots=True)
class Session:
    """An open login. `token` is the secret; it is shown here once. `expires_at` in seconds since the epoch."""

    token: str = field(repr=False)
    account: Account
    expires_at: float


class Accounts:
    """Safe to call from any thread. Makes its tables when built."""

    def __init__(self, database: Database, *, hasher: PasswordHasher | None = None) -> None:
        self._database = database
        self._hasher = hasher or PasswordHasher()
        self._throttle = _Throttle()
        # An unknown name is checked against this, so that it takes as long as a wrong password.
        self._decoy_hash = self._hasher.hash(secrets.token_hex(16))
        database.migrate("accounts", MIGRATIONS)

    def add(self, name: str, password: str, admin: bool = False) -> Account:
        """Raises InvalidInput for a bad name or password, Conflict for a name that is taken."""
        name = _checked_name(name)
        hashed = self._hasher.hash(_checked_password(password))
        account = Account(UserId(secrets.token_hex(16)), name, admin)
        with self._database.transaction() as db:
            if _find(db, name) is not None:
                raise Conflict(f"there is an account '{name}' already; choose another name")
            db.execute(
                "INSERT INTO accounts VALUES (?, ?, ?, ?, ?)", [account.user_id, name, hashed, admin, time.time()]
            )
        return account

    def set_password(self, name: str, password: str) -> None:
        """Changes the password and revokes all sessions and keys. Raises NotFound, InvalidInput."""
        hashed = self._hasher.hash(_checked_password(password))
        with self._database.transaction() as db:
            row = _require(db, name)
            db.execute("UPDATE accounts SET password = ? WHERE user_id = ?", [hashed, row["user_id"]])
            db.execute("DELETE FROM sessions WHERE user_id = ?", [row["user_id"]])
            db.execute("DELETE FROM api_keys WHERE user_id = ?", [row["user_id"]])
        self._throttle.reset(row["name"])

    def ensure(self, name: str, password: str, *, admin: bool = False) -> None:
        """Makes the account, or gives it this password; sessions stay when it has the password already."""
        row = _find(self._database.connection(), _checked_name(name))
        if row is None:
            self.add(name, password, admin)
        elif not self._verify(row["password"], password):
            self.set_password(name, password)

    def remove(self, name: str) -> None:
        """Removes the account with its sessions and keys. Raises NotFound."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM accounts WHERE user_id = ?", [_require(db, name)["user_id"]])

    def list(self) -> tuple[Account, ...]:
        """All accounts by name."""
        return tuple(_account(row) for row in self._database.connection().query("SELECT * FROM accounts ORDER BY name"))

    def name_of(self, user_id: UserId) -> str | None:
        """None where there is no such account (any more)."""
        found = self._account_by("SELECT * FROM accounts WHERE user_id = ?", [user_id])
        return found.name if found is not None else None

    def login(self, name: str, password: str, *, days: float = SESSION_DAYS) -> Session:
        """Opens a session of `days`. Raises Unauthorized: wrong name or password alike, or wait first."""
        name = name.strip().lower()
        self._throttle.attempt(name)
        row = _find(self._database.connection(), name)
        if not self._verify(row["password"] if row else self._decoy_hash, password) or row is None:
            raise Unauthorized("wrong name or password")
        self._throttle.reset(name)
        return self._open(row, password, days)

    def session(self, token: str) -> Account | None:
        """Whose session it is; None where it is unknown, expired or revoked."""
        return self._account_by(
            "SELECT accounts.* FROM accounts JOIN sessions USING (user_id) WHERE token = ? AND expires_at > ?",
            [_digest(token), time.time()],
        )

    def logout(self, token: str) -> None:
        """Ends that session; one that is not there is no error."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM sessions WHERE token = ?", [_digest(token)])

    def new_api_key(self, name: str) -> str:
        """A key for programs, shown once; it holds until the password changes. Raises NotFound."""
        key = KEY_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        with self._database.transaction() as db:
            user_id = _require(db, name)["user_id"]
            db.execute("INSERT INTO api_keys VALUES (?, ?, ?)", [_digest(key), user_id, time.time()])
        return key

    def by_api_key(self, key: str) -> Account | None:
        """Whose key it is; None where it is unknown or revoked."""
        return self._account_by(
            "SELECT accounts.* FROM accounts JOIN api_keys USING (user_id) WHERE key = ?", [_digest(key)]
        )

    def _open(self, row: dict[str, Any], password: str, days: float) -> Session:
        token, now = secrets.token_urlsafe(_TOKEN_BYTES), time.time()
        expires_at = now + days * 86_400
        stronger = self._hasher.check_needs_rehash(row["password"])
        hashed = self._hasher.hash(_normalised(password)) if stronger else row["password"]
        with self._database.transaction() as db:
            current = _find(db, row["name"])
            if current is None or current["password"] != row["password"]:  # changed while it was verified
                raise Unauthorized("wrong name or password")
            db.execute("UPDATE accounts SET password = ? WHERE user_id = ?", [hashed, row["user_id"]])
            db.execute("DELETE FROM sessions WHERE expires_at <= ?", [now])
            db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", [_digest(token), row["user_id"], now, expires_at])
        return Session(token, _account(row), expires_at)

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, _normalised(password)[: MAX_PASSWORD + 1])
        except (VerificationError, InvalidHashError):
            return False

    def _account_by(self, sql: str, values: Sequence[object]) -> Account | None:
        return next((_account(row) for row in self._database.connection().query(sql, values)), None)


class _Throttle:
    """Failures in a row by name. The name need not exist, so that waiting tells nothing about it."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # name: how many, when it may try again
        self._lock = threading.Lock()

    def attempt(self, name: str) -> None:
        """Counts a failure, undone by `reset`: so a burst of parallel attempts counts whole."""
        now = time.monotonic()
        with self._lock:
            failures, free_at = self._failures.pop(name, (0, 0.0))
            if free_at > now:
                self._failures[name] = (failures, free_at)
                wait = math.ceil(free_at - now)
                raise Unauthorized(f"too many failed logins; try again in {wait} second{'s' if wait > 1 else ''}")
            failures += 1
            wait_s = min(2.0 ** (failures - FREE_FAILURES), MAX_WAIT_S) if failures >= FREE_FAILURES else 0.0
            self._failures[name] = (failures, now + wait_s)
            while len(self._failures) > MAX_THROTTLED_NAMES:
                self._failures.popitem(last=False)

    def reset(self, name: str) -> None:
        with self._lock:
            self._failures.pop(name, None)


def _checked_name(name: str) -> str:
    name = name.strip().lower()
    if not _NAME.fullmatch(name):
        raise InvalidInput("an account's name has 1 to 64 of the characters a-z, 0-9, '.', '_' and '-'")
    return name


def _checked_password(password: str) -> bytes:
    normal = _normalised(password)
    if len(password) < MIN_PASSWORD:
        raise InvalidInput(f"a password has at least {MIN_PASSWORD} characters")
    if len(normal) > MAX_PASSWORD:
        raise InvalidInput(f"a password has at most {MAX_PASSWORD:,} bytes")
    return normal


def _normalised(password: str) -> bytes:
    """One form for the same characters typed on different systems (Hangul above all)."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


def _digest(secret: str) -> bytes:
    """What is looked up: comparing digests tells nothing about the secret, however long it takes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _find(db: Connection, name: str) -> dict[str, Any] | None:
    return next(iter(db.query("SELECT * FROM accounts WHERE name = ?", [name])), None)


def _require(db: Connection, name: str) -> dict[str, Any]:
    row = _find(db, name.strip().lower())
    if row is None:
        raise NotFound(f"no account '{name}'")
    return row


def _account(row: dict[str, Any]) -> Account:
    return Account(UserId(row["user_id"]), row["name"], bool(row["admin"]))

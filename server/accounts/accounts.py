"""Accounts with their passwords and roles, their sessions and their API keys.

Session tokens and keys, which are random, are kept as SHA-256, passwords as Argon2id: a copy of the database opens
nothing. All methods block, and those that take a password hash it on the calling thread: an event loop calls them in a
thread, the latter through `PasswordWorkers`. Knows nothing of HTTP, of throttling, or of what a user stores elsewhere.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from argon2 import PasswordHasher
from sqlite_utils import Database as Connection

from server.accounts.passwords import NO_PASSWORD, Passwords
from server.accounts.permissions import Role
from server.accounts.records import Account, ApiKey, Credential, Login, OpenSession, Origin, Session
from server.accounts.schema import MIGRATIONS
from server.accounts.throttle import address_block
from server.database import Database
from server.errors import Conflict, InvalidInput, NotFound, Unauthorized
from server.types import UserId

KEY_PREFIX = "tlr-"
SHOWN_PREFIX = 8  # characters of a key that its list shows
SESSION_DAYS = 30.0
MAX_KEYS = 50  # of one account
MAX_KEY_NAME = 64
MAX_AGENT = 200  # characters of a User-Agent that are kept
TOUCH_S = 60.0  # how stale `last_seen` and `last_used` may be
_TOKEN_BYTES = 32
_CHUNK = 500  # ids in one query
_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_ROLES = "(SELECT group_concat(role) FROM account_roles WHERE account_roles.user_id = accounts.user_id) AS roles"
_SELECT = f"SELECT accounts.*, {_ROLES} FROM accounts"
_LIVE = {
    "session": "SELECT id FROM sessions WHERE id IN ({}) AND expires_at > ?",
    "key": "SELECT id FROM api_keys WHERE id IN ({}) AND ? > 0",
}


class Accounts:
    """Safe to call from any thread. Makes its tables when built."""

    def __init__(self, database: Database, *, hasher: PasswordHasher | None = None) -> None:
        self._database = database
        self._passwords = Passwords(hasher)
        database.migrate("accounts", MIGRATIONS)

    # ── accounts ─────────────────────────────────────────────────────────────────────────────────

    def add(self, name: str, password: str | None, admin: bool = False, *, roles: Iterable[str] = ()) -> Account:
        """Without a password it can only sign in elsewhere. Raises InvalidInput, Conflict for a name that is taken."""
        name = checked_name(name)
        given = checked_roles([*roles, *([Role.ADMIN] if admin else [])])
        hashed = self._passwords.hash(password) if password is not None else NO_PASSWORD
        account = Account(UserId(secrets.token_hex(16)), name, given)
        with self._database.transaction() as db:
            if _find(db, name) is not None:
                raise Conflict(f"there is an account '{name}' already; choose another name")
            db.execute("INSERT INTO accounts VALUES (?, ?, ?, ?)", [account.user_id, name, hashed, time.time()])
            _save_roles(db, account.user_id, given)
        return account

    def list(self) -> tuple[Account, ...]:
        """All accounts by name."""
        return tuple(_account(row) for row in self._database.connection().query(f"{_SELECT} ORDER BY name"))

    def get(self, name: str) -> Account:
        """Raises NotFound."""
        return _account(_require(self._database.connection(), name))

    def by_id(self, user_id: UserId) -> Account | None:
        """None where there is no such account (any more)."""
        return self._account_by(f"{_SELECT} WHERE accounts.user_id = ?", [user_id])

    def name_of(self, user_id: UserId) -> str | None:
        found = self.by_id(user_id)
        return found.name if found is not None else None

    def principals_of(self, user_id: UserId) -> frozenset[str]:
        """What may stand for the user in an access list: the name, and `@group` for each group. Empty for nobody."""
        found = self._database.connection().query(
            "SELECT name FROM accounts WHERE user_id = :user UNION ALL "
            "SELECT '@' || group_name FROM user_group_members WHERE user_id = :user",
            {"user": user_id},
        )
        return frozenset(str(row["name"]) for row in found)

    def set_roles(self, name: str, roles: Iterable[str]) -> Account:
        """Replaces them. Raises NotFound, InvalidInput, Conflict where nobody would be left to manage accounts."""
        given = checked_roles(roles)
        with self._database.transaction() as db:
            row = _require(db, name)
            if Role.ADMIN not in given:
                _require_another_admin(db, row)
            _save_roles(db, row["user_id"], given)
            return _account(_require(db, name))

    def remove(self, name: str) -> Account:
        """Removes the account with its sessions and keys, and notes that what it stored elsewhere is to be erased.
        Raises NotFound, Conflict where nobody would be left to manage the other accounts."""
        with self._database.transaction() as db:
            row = _require(db, name)
            if next(iter(db.query("SELECT count(*) AS n FROM accounts")))["n"] > 1:
                _require_another_admin(db, row)
            db.execute("DELETE FROM accounts WHERE user_id = ?", [row["user_id"]])
            db.execute("DELETE FROM token_usage WHERE user_id = ?", [row["user_id"]])
            db.execute("INSERT INTO account_erasures VALUES (?, ?, ?)", [row["user_id"], row["name"], time.time()])
        return _account(row)

    def erasures(self) -> tuple[UserId, ...]:
        """Removed accounts whose data is still to be erased."""
        return tuple(UserId(row["user_id"]) for row in self._database.connection().query(
            "SELECT user_id FROM account_erasures ORDER BY rowid"))  # fmt: skip

    def erased(self, user_id: UserId) -> None:
        """Nothing of that account is left."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM account_erasures WHERE user_id = ?", [user_id])

    # ── passwords ────────────────────────────────────────────────────────────────────────────────

    def set_password(self, name: str, password: str, *, keep_session: str = "") -> None:
        """Changes the password and revokes all keys and sessions, but for that one. Raises NotFound, InvalidInput."""
        hashed = self._passwords.hash(password)
        with self._database.transaction() as db:
            user_id = _require(db, name)["user_id"]
            db.execute("UPDATE accounts SET password = ? WHERE user_id = ?", [hashed, user_id])
            db.execute("DELETE FROM sessions WHERE user_id = ? AND id <> ?", [user_id, keep_session])
            db.execute("DELETE FROM api_keys WHERE user_id = ?", [user_id])

    def has_password(self, user_id: UserId, password: str) -> bool:
        row = next(iter(self._database.connection().query(
            "SELECT password FROM accounts WHERE user_id = ?", [user_id])), None)  # fmt: skip
        return self._passwords.verify(row["password"] if row else self._passwords.decoy, password) and row is not None

    def has_any_password(self, user_id: UserId) -> bool:
        """False for an account that signs in elsewhere alone."""
        sql = "SELECT 1 FROM accounts WHERE user_id = ? AND password <> ?"
        return self._row(sql, [user_id, NO_PASSWORD]) is not None

    def ensure(self, name: str, password: str, *, admin: bool = False) -> None:
        """Makes the account, or gives it this password; sessions stay when it has the password already."""
        row = _find(self._database.connection(), checked_name(name))
        if row is None:
            self.add(name, password, admin)
        elif not self._passwords.verify(row["password"], password):
            self.set_password(name, password)

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    def login(self, name: str, password: str, *, origin: Origin | None = None, days: float = SESSION_DAYS) -> Session:
        """Opens a session of `days`. Raises Unauthorized, for a wrong name or password alike; InvalidInput."""
        row = _find(self._database.connection(), name.strip().lower())
        stored = row["password"] if row else self._passwords.decoy
        if not self._passwords.verify(stored, password) or row is None:
            raise Unauthorized("wrong name or password")
        stronger = self._passwords.hash(password) if self._passwords.needs_rehash(stored) else stored
        with self._database.transaction() as db:
            current = _find(db, row["name"])
            if current is None or current["password"] != stored:  # changed while it was verified
                raise Unauthorized("wrong name or password")
            db.execute("UPDATE accounts SET password = ? WHERE user_id = ?", [stronger, row["user_id"]])
            return self.open_session(_account(current), origin or Origin(), days=days)

    def open_session(self, account: Account, origin: Origin, *, days: float = SESSION_DAYS) -> Session:
        """For an account that has shown who it is."""
        token, session_id, now = secrets.token_urlsafe(_TOKEN_BYTES), secrets.token_hex(8), time.time()
        expires_at = now + days * 86_400
        agent = origin.agent[:MAX_AGENT]
        with self._database.transaction() as db:
            db.execute("DELETE FROM sessions WHERE expires_at <= ?", [now])
            db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [_digest(token), account.user_id, now, expires_at, session_id, agent, origin.address, now],
            )
        return Session(token, account, expires_at, session_id)

    def session(self, token: str) -> Account | None:
        """Whose session it is; None where it is unknown, expired or revoked."""
        login = self.login_of_session(token)
        return login.account if login else None

    def login_of_session(self, token: str) -> Login | None:
        """As `session`, with which one it is. Keeps the time it was last seen."""
        now = time.time()
        row = self._row(
            f"SELECT accounts.*, {_ROLES}, id, last_seen AS touched FROM accounts JOIN sessions USING (user_id) "
            "WHERE token = ? AND expires_at > ?",
            [_digest(token), now],
        )
        if row is None:
            return None
        if not 0 <= now - row["touched"] < TOUCH_S:
            self._execute("UPDATE sessions SET last_seen = ? WHERE id = ?", [now, row["id"]])
        return Login(_account(row), Credential("session", row["id"]))

    def logout(self, token: str) -> None:
        """Ends that session; one that is not there is no error."""
        self._execute("DELETE FROM sessions WHERE token = ?", [_digest(token)])

    def sessions(self, user_id: UserId) -> tuple[OpenSession, ...]:
        """Those that are open, the last seen first."""
        found = self._database.connection().query(
            "SELECT id, agent, address, created_at, last_seen, expires_at FROM sessions "
            "WHERE user_id = ? AND expires_at > ? ORDER BY last_seen DESC, rowid DESC",
            [user_id, time.time()],
        )
        return tuple(OpenSession(**row) for row in found)

    def revoke_session(self, user_id: UserId, session_id: str) -> None:
        """Raises NotFound."""
        if not self._execute("DELETE FROM sessions WHERE user_id = ? AND id = ?", [user_id, session_id]):
            raise NotFound(f"no session '{session_id[:64]}' of yours; it may have ended")

    def revoke_other_sessions(self, user_id: UserId, keep: str) -> int:
        """How many ended."""
        return self._execute("DELETE FROM sessions WHERE user_id = ? AND id <> ?", [user_id, keep])

    def known_blocks(self, name: str) -> frozenset[str]:
        """Address blocks from which that account has an open session."""
        found = self._database.connection().query(
            "SELECT DISTINCT address FROM sessions JOIN accounts USING (user_id) WHERE name = ? AND expires_at > ?",
            [name, time.time()],
        )
        return frozenset(address_block(row["address"]) for row in found if row["address"])

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────

    def new_api_key(self, name: str) -> str:
        """A key for programs, shown once; it holds until the password changes. Raises NotFound, Conflict."""
        return self.make_api_key(self.get(name).user_id, "")[1]

    def make_api_key(self, user_id: UserId, label: str) -> tuple[ApiKey, str]:
        """The key as it is listed, and the key itself. Raises InvalidInput, Conflict where there are too many."""
        label = label.strip()
        if len(label) > MAX_KEY_NAME:
            raise InvalidInput(f"a key's name has at most {MAX_KEY_NAME} characters; shorten it")
        secret = KEY_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        key = ApiKey(secrets.token_hex(8), label, secret[:SHOWN_PREFIX], time.time(), None)
        with self._database.transaction() as db:
            if db.execute("SELECT count(*) FROM api_keys WHERE user_id = ?", [user_id]).fetchone()[0] >= MAX_KEYS:
                raise Conflict(f"there are {MAX_KEYS} keys already; revoke one first")
            db.execute(
                "INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?, ?)",
                [_digest(secret), user_id, key.created_at, key.id, key.name, key.prefix, None],
            )
        return key, secret

    def by_api_key(self, key: str) -> Account | None:
        """Whose key it is; None where it is unknown or revoked."""
        login = self.login_of_key(key)
        return login.account if login else None

    def login_of_key(self, key: str) -> Login | None:
        """As `by_api_key`, with which one it is. Keeps the time it was last used."""
        row = self._row(
            f"SELECT accounts.*, {_ROLES}, id, last_used AS touched FROM accounts JOIN api_keys USING (user_id) "
            "WHERE key = ?",
            [_digest(key)],
        )
        if row is None:
            return None
        now = time.time()
        if row["touched"] is None or not 0 <= now - row["touched"] < TOUCH_S:
            self._execute("UPDATE api_keys SET last_used = ? WHERE id = ?", [now, row["id"]])
        return Login(_account(row), Credential("key", row["id"]))

    def api_keys(self, user_id: UserId) -> tuple[ApiKey, ...]:
        """The newest first."""
        found = self._database.connection().query(
            "SELECT id, name, prefix, created_at, last_used FROM api_keys WHERE user_id = ? ORDER BY rowid DESC",
            [user_id],
        )
        return tuple(ApiKey(**row) for row in found)

    def revoke_api_key(self, user_id: UserId, key_id: str) -> None:
        """Raises NotFound."""
        if not self._execute("DELETE FROM api_keys WHERE user_id = ? AND id = ?", [user_id, key_id]):
            raise NotFound(f"no API key '{key_id[:64]}' of yours; it may have been revoked")

    # ── what still holds ─────────────────────────────────────────────────────────────────────────

    def live(self, credentials: Collection[Credential]) -> frozenset[Credential]:
        """Those that still open something: one query for each 500 of a kind."""
        found = {one for one in credentials if one.kind == "local"}
        for kind, sql in _LIVE.items():
            ids = [one.id for one in credentials if one.kind == kind]
            for chunk in _chunks(ids):
                rows = self._database.connection().query(sql.format(_marks(chunk)), [*chunk, time.time()])
                found |= {Credential(kind, row["id"]) for row in rows}  # type: ignore[arg-type]  # a key of _LIVE
        return frozenset(found)

    def _row(self, sql: str, values: Sequence[object]) -> dict[str, Any] | None:
        return next(iter(self._database.connection().query(sql, values)), None)

    def _account_by(self, sql: str, values: Sequence[object]) -> Account | None:
        row = self._row(sql, values)
        return _account(row) if row else None

    def _execute(self, sql: str, values: Sequence[object]) -> int:
        """How many rows it changed."""
        with self._database.transaction() as db:
            return int(db.execute(sql, values).rowcount)


def checked_name(name: str) -> str:
    """Raises InvalidInput."""
    name = name.strip().lower()
    if not _NAME.fullmatch(name):
        raise InvalidInput("a name has 1 to 64 of the characters a-z, 0-9, '.', '_' and '-'")
    return name


def checked_roles(roles: Iterable[str]) -> frozenset[Role]:
    """With the role that everybody has. Raises InvalidInput."""
    known = {role.value for role in Role}
    unknown = sorted(str(role)[:64] for role in roles if role not in known)
    if unknown:
        raise InvalidInput(f"there is no role '{unknown[0]}'; there are {', '.join(role.value for role in Role)}")
    return frozenset({Role.USER, *map(Role, roles)})


def _save_roles(db: Connection, user_id: str, roles: Iterable[Role]) -> None:
    db.execute("DELETE FROM account_roles WHERE user_id = ?", [user_id])
    for role in sorted(set(roles) - {Role.USER}):
        db.execute("INSERT INTO account_roles VALUES (?, ?)", [user_id, role.value])


def _require_another_admin(db: Connection, row: dict[str, Any]) -> None:
    admins = {one["user_id"] for one in db.query("SELECT user_id FROM account_roles WHERE role = ?", [Role.ADMIN])}
    if admins == {row["user_id"]}:
        raise Conflict(f"'{row['name']}' is the only administrator; make another account one first")


def _digest(secret: str) -> bytes:
    """What is looked up: comparing digests tells nothing about the secret, however long it takes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _find(db: Connection, name: str) -> dict[str, Any] | None:
    return next(iter(db.query(f"{_SELECT} WHERE accounts.name = ?", [name])), None)


def _require(db: Connection, name: str) -> dict[str, Any]:
    row = _find(db, name.strip().lower())
    if row is None:
        raise NotFound(f"no account '{name[:64]}'")
    return row


def _account(row: dict[str, Any]) -> Account:
    roles = frozenset(Role(role) for role in (row["roles"] or "").split(",") if role)
    return Account(UserId(row["user_id"]), row["name"], roles | {Role.USER})


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))

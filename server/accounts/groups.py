"""Groups: named sets of accounts, for access lists (`@sales`). Blocks. Knows nothing of what a list limits."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database as Connection

from server.accounts.accounts import checked_name
from server.database import Database
from server.errors import Conflict, InvalidInput, NotFound
from server.types import UserId

MAX_GROUPS = 1_000


@dataclass(frozen=True, slots=True)
class Group:
    """`members` are names of accounts."""

    name: str
    members: tuple[str, ...]


class Groups:
    """Needs the tables of `Accounts`. Safe to call from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> tuple[Group, ...]:
        """All groups by name."""
        db = self._database.connection()
        return tuple(_group(db, row["name"]) for row in db.query("SELECT name FROM user_groups ORDER BY name"))

    def of(self, user_id: UserId) -> tuple[str, ...]:
        """The names of the groups that the user is in."""
        found = self._database.connection().query(
            "SELECT group_name FROM user_group_members WHERE user_id = ? ORDER BY group_name", [user_id]
        )
        return tuple(row["group_name"] for row in found)

    def add(self, name: str, members: Iterable[str] = ()) -> Group:
        """Raises InvalidInput, NotFound for a member without an account, Conflict for a name that is taken."""
        name = checked_name(name.removeprefix("@"))
        with self._database.transaction() as db:
            if _exists(db, name):
                raise Conflict(f"there is a group '{name}' already; choose another name")
            if db["user_groups"].count >= MAX_GROUPS:
                raise InvalidInput(f"there are {MAX_GROUPS:,} groups already; remove one first")
            db.execute("INSERT INTO user_groups VALUES (?, ?)", [name, time.time()])
            _fill(db, name, members)
            return _group(db, name)

    def set_members(self, name: str, members: Iterable[str]) -> Group:
        """Replaces them. Raises NotFound for the group, or for a member without an account."""
        name = name.strip().lower().removeprefix("@")
        with self._database.transaction() as db:
            if not _exists(db, name):
                raise NotFound(f"no group '{name[:64]}'")
            db.execute("DELETE FROM user_group_members WHERE group_name = ?", [name])
            _fill(db, name, members)
            return _group(db, name)

    def set_groups(self, user_id: UserId, names: Iterable[str]) -> None:
        """The groups of one user, made where they are not there yet."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM user_group_members WHERE user_id = ?", [user_id])
            for name in {checked_name(one) for one in names}:
                db.execute("INSERT OR IGNORE INTO user_groups VALUES (?, ?)", [name, time.time()])
                db.execute("INSERT INTO user_group_members VALUES (?, ?)", [name, user_id])

    def remove(self, name: str) -> None:
        """A list that names it names nobody then. Raises NotFound."""
        name = name.strip().lower().removeprefix("@")
        with self._database.transaction() as db:
            if not db.execute("DELETE FROM user_groups WHERE name = ?", [name]).rowcount:
                raise NotFound(f"no group '{name[:64]}'")


def _exists(db: Connection, name: str) -> bool:
    return db.execute("SELECT 1 FROM user_groups WHERE name = ?", [name]).fetchone() is not None


def _fill(db: Connection, group: str, members: Iterable[str]) -> None:
    for member in {one.strip().lower() for one in members}:
        row: Any = db.execute("SELECT user_id FROM accounts WHERE name = ?", [member]).fetchone()
        if row is None:
            raise NotFound(f"no account '{member[:64]}'")
        db.execute("INSERT INTO user_group_members VALUES (?, ?)", [group, row[0]])


def _group(db: Connection, name: str) -> Group:
    members = db.query(
        "SELECT accounts.name FROM user_group_members JOIN accounts USING (user_id) WHERE group_name = ? ORDER BY 1",
        [name],
    )
    return Group(name, tuple(row["name"] for row in members))

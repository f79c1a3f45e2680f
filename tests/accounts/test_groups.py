"""Groups of accounts: made, filled, and what stands for a user in an access list."""

from __future__ import annotations

from pathlib import Path

import pytest
from argon2 import PasswordHasher

from server.accounts import Accounts, Group, Groups
from server.database import Database
from server.errors import Conflict, InvalidInput, NotFound

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Accounts, Groups]:
    database = Database(tmp_path / "tailor.db")
    accounts = Accounts(database, hasher=CHEAP)
    for name in ("ann", "bob"):
        accounts.add(name, "long enough")
    return accounts, Groups(database)


def test_groups_stand_for_their_members(both: tuple[Accounts, Groups]) -> None:
    accounts, groups = both
    ann, bob = accounts.get("ann").user_id, accounts.get("bob").user_id
    assert groups.add("@Sales", ["ANN"]) == Group("sales", ("ann",))
    groups.add("law", ["ann", "bob"])
    assert accounts.principals_of(ann) == {"ann", "@sales", "@law"}
    assert accounts.principals_of(bob) == {"bob", "@law"}
    assert groups.of(ann) == ("law", "sales")
    assert groups.set_members("sales", ["bob"]).members == ("bob",)
    assert accounts.principals_of(ann) == {"ann", "@law"}
    groups.set_groups(ann, ["sales", "new"])
    assert [(group.name, group.members) for group in groups.list()] == [
        ("law", ("bob",)),
        ("new", ("ann",)),
        ("sales", ("ann", "bob")),
    ]
    groups.remove("@law")
    assert accounts.principals_of(bob) == {"bob", "@sales"}
    accounts.remove("bob")
    assert accounts.principals_of(bob) == frozenset()
    assert groups.set_members("sales", ["ann"]).members == ("ann",)


def test_what_groups_are_not(both: tuple[Accounts, Groups]) -> None:
    _, groups = both
    groups.add("sales", ["ann"])
    with pytest.raises(Conflict, match="a group 'sales' already"):
        groups.add("SALES")
    for name in ("", "a b", "@@x", "x" * 65):
        with pytest.raises(InvalidInput, match="1 to 64"):
            groups.add(name)
    for call in (lambda: groups.add("law", ["ann", "jun"]), lambda: groups.set_members("sales", ["jun"])):
        with pytest.raises(NotFound, match="no account 'jun'"):
            call()
    assert groups.list() == (Group("sales", ("ann",)),)  # all, or nothing
    for call in (lambda: groups.remove("law"), lambda: groups.set_members("law", [])):
        with pytest.raises(NotFound, match="no group 'law'"):
            call()

"""One table says which roles may do what."""

from __future__ import annotations

import re

import pytest

from server.accounts import GRANTS, Permission, Role, roles_with
from server.accounts.permissions import permissions_of
from tests.conftest import ROOT


def test_the_table_names_every_role_and_an_administrator_may_do_everything() -> None:
    assert set(GRANTS) == set(Role)
    assert GRANTS[Role.ADMIN] == set(Permission)
    assert GRANTS[Role.USER] == set()
    assert permissions_of([]) == set()
    assert permissions_of([Role.CURATOR, Role.TRAINER]) == {Permission.KNOWLEDGE_WRITE, Permission.ADAPTERS_LOAD}
    assert roles_with(Permission.ADAPTERS_LOAD) == (Role.TRAINER, Role.APPROVER, Role.ADMIN)
    with pytest.raises(TypeError):
        GRANTS[Role.USER] = frozenset(Permission)  # type: ignore[index]


def test_the_document_names_every_role() -> None:
    page = (ROOT / "docs" / "accounts.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page.split("## Roles")[1], re.MULTILINE)) >= set(Role)

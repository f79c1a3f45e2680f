"""Which domains a user may see: what is hidden does not exist for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import NotFound, PromptFileError
from server.prompting import PromptLibrary, SharedDomains
from server.prompting.domain_file import parse_domain
from server.types import UserId

PRINCIPALS = {"kim": frozenset({"kim", "@law"}), "ann": frozenset({"ann", "@sales"}), "local": None}


def write(folder: Path, name: str, access: str = "") -> None:
    (folder / f"{name}.md").write_text(f"---\ntitle: {name.title()}\n{access}\n---\nYou answer.\n", encoding="utf-8")


@pytest.fixture
def shared(tmp_path: Path) -> SharedDomains:
    write(tmp_path, "open")
    write(tmp_path, "deals", 'access: ["@Sales", kim]')
    write(tmp_path, "law", 'access: ["@law"]')
    write(tmp_path, "nobody", "access: []")
    return SharedDomains(PromptLibrary(tmp_path, "general"), lambda user: PRINCIPALS.get(user, frozenset()))


def names(shared: SharedDomains, user: str) -> list[str]:
    return [domain.name for domain in shared.for_user(UserId(user)).domains()]


def test_a_file_says_who_sees_it(shared: SharedDomains) -> None:
    assert names(shared, "kim") == ["deals", "general", "law", "open"]
    assert names(shared, "ann") == ["deals", "general", "open"]
    assert names(shared, "gone") == ["general", "open"]
    assert names(shared, "local") == ["deals", "general", "law", "nobody", "open"]


def test_what_is_hidden_is_not_found_like_what_is_not_there(shared: SharedDomains) -> None:
    ann = shared.for_user(UserId("ann"))
    said = []
    for name in ("law", "absent"):
        with pytest.raises(NotFound) as caught:
            ann.get(name)
        said.append(str(caught.value).replace(name, "?"))
    assert said[0] == said[1]
    assert "law" not in said[0].replace("?", "")
    assert ann.get("deals").access == {"@sales", "kim"}


def test_a_limited_default_leaves_the_built_in_one_to_others(shared: SharedDomains, tmp_path: Path) -> None:
    write(tmp_path, "general", "access: [ann]")
    assert shared.for_user(UserId("ann")).get("general").body == "You answer.\n"
    assert "helpful assistant" in shared.for_user(UserId("kim")).get("general").body


def test_problems_name_no_hidden_file(shared: SharedDomains, tmp_path: Path) -> None:
    assert names(shared, "local")  # all were read while they worked
    for name in ("open", "law", "fresh"):
        (tmp_path / f"{name}.md").write_text("---\nflavour: sweet\n---\nx", encoding="utf-8")

    def told(user: str) -> list[str]:
        return [Path(problem.file).stem for problem in shared.for_user(UserId(user)).problems()]

    assert told("ann") == ["open"]
    assert told("local") == ["fresh", "law", "open"]
    assert names(shared, "ann") == ["deals", "general", "open"]  # still limited as they last were


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("kim", "must be a list"),
        ('["@"]', "an account's name or '@' and a group's"),
        ('["a b"]', "an account's name or '@' and a group's"),
        ("[1]", "must be text"),
        ('["@@x"]', "an account's name"),
    ],
)
def test_what_no_list_may_hold(value: str, says: str) -> None:
    with pytest.raises(PromptFileError, match=says) as caught:
        parse_domain("x.md", f"---\ntitle: X\naccess: {value}\n---\nYou answer.\n".encode())
    assert caught.value.line == 3

"""docs/architecture.md describes the tree as it stands."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
LAYERS = [contract for contract in CONTRACTS if contract["type"] == "layers"]
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
MOST_WORDS = 30


def names(layer: str) -> set[str]:
    return set(re.findall(r"\w+", layer.replace("server.", "")))


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    table = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")][2:]


def test_the_picture_of_the_floors_is_the_one_that_is_held() -> None:
    drawn = [set(re.findall(r"\w+", re.split(r" {4,}", line[3:])[0])) for line in BLOCKS[0].splitlines()]
    held = [names(layer) - {"__main__"} for layer in next(c for c in LAYERS if "containers" not in c)["layers"]]
    assert drawn == held
    assert [int(line.split()[0]) for line in BLOCKS[0].splitlines()] == list(range(len(held), 0, -1))


def test_the_floors_inside_the_parts_are_the_ones_that_are_held() -> None:
    drawn = {}
    for line in BLOCKS[1].splitlines():
        part, floors = line.split(None, 1)
        drawn[part] = [names(floor) for floor in floors.split(">")]
    held = {
        contract["containers"][0].removeprefix("server."): [names(layer) for layer in contract["layers"]]
        for contract in LAYERS
        if "containers" in contract
    }
    assert drawn == held


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:server|tests|docs)/[\w./-]*)`", PAGE))))
def test_each_path_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_names_of_code_are_in_the_file_beside_them() -> None:
    named = re.findall(r"`(\w+)` (?:in|and the layers in) `(server/[\w/]+\.py)`", PAGE)
    assert len(named) >= 3
    for name, path in named:
        assert re.search(rf"\b(?:class|def) {name}\b", (ROOT / path).read_text(encoding="utf-8")), f"{name} in {path}"


def test_each_room_is_somewhere_on_the_page() -> None:
    rooms = [path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "server").glob("*/*/__init__.py")]
    assert [room for room in rooms if f"{room}/" not in PAGE] == []


def test_each_want_has_its_place_and_its_test() -> None:
    for want, look, test in rows("I want to …"):
        assert "`server/" in look, want
        assert "`tests/" in test, want


def test_the_glossary_is_short() -> None:
    assert 10 <= len(rows("Words")) <= MOST_WORDS

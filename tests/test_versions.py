"""The pinned versions and the ranges around them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT

PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [Requirement(one) for one in PROJECT["dependencies"]]
EXTRAS = [Requirement(one) for extra in PROJECT["optional-dependencies"].values() for one in extra]


def versions(which: str) -> dict[str, str]:
    """What .ci/versions.py gives."""
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "versions.py"), which],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("requirement", [*NEEDED, *EXTRAS], ids=str)
def test_each_range_holds_the_pinned_version(requirement: Requirement) -> None:
    if requirement.name in ("torch", "triton"):
        assert requirement.name not in PINNED, "torch's build for a card wants a triton of its own, beside no other"
    else:
        pinned = PINNED[requirement.name.lower()]
        assert Version(pinned) in requirement.specifier
        assert not Version(pinned).local, "a local tag names a build of one machine"


def test_what_is_installed_is_what_would_be_pinned() -> None:
    found = versions("installed")
    assert not {"torch", "triton"} & found.keys()
    assert "tailor-chat" not in found
    assert found["numpy"] == next(one.version for one in distributions(name="numpy"))
    assert not [name for name, version in found.items() if "+" in version]


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    found = versions("oldest")
    assert set(found) == {one.name for one in NEEDED} - {"torch"}
    for requirement in NEEDED:
        if requirement.name != "torch":
            assert Version(found[requirement.name]) in requirement.specifier


def test_the_python_they_were_tested_with_is_named_where_make_looks_for_it() -> None:
    """make says so where another Python installs them."""
    head = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"# Python 3\.\d+: ", head)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert r"s/^# Python \([0-9.]*\):.*/\1/p" in makefile

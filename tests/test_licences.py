"""THIRD_PARTY.md names what is shipped and installed, and `make sbom` lists it for programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from server.model_store import CHAT_WHEEL, E5_WHEEL, MINILM_WHEEL
from tests.conftest import ROOT

TEXT = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
NAMED = dict(re.findall(r"^\| `([^`]+)` \| (?:[\d.]+ \| )?([^|]+) \|$", TEXT, re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VENDOR = ROOT / "server" / "web" / "static" / "vendor"


@pytest.mark.parametrize("name", [Requirement(one).name for one in PROJECT["dependencies"]])
def test_each_dependency_is_named_with_its_licence(name: str) -> None:
    """After a new one: make licences."""
    assert re.search(r"MIT|Apache|BSD|MPL|PSF|ISC", NAMED[name.lower()])


def test_each_vendored_library_is_named_in_the_version_that_is_there_with_its_licence_file() -> None:
    folders = {folder.name for folder in VENDOR.iterdir() if folder.is_dir()}
    rows = re.findall(r"^\| `([^`]+)` \| ([\d.]+) \|", TEXT, re.MULTILINE)
    assert {f"{name.removeprefix('@').replace('/', '-')}@{version}" for name, version in rows} == folders
    assert all((VENDOR / folder / "LICENSE").is_file() for folder in folders)


@pytest.mark.parametrize("wheel", [CHAT_WHEEL, E5_WHEEL, MINILM_WHEEL], ids=lambda wheel: wheel.project)
def test_the_models_are_named(wheel: object) -> None:
    assert f"{wheel.project} {wheel.version}" in TEXT  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_list_for_programs_holds_packages_libraries_and_models(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    target = tmp_path / "sbom.json"
    command = [sys.executable, str(ROOT / ".ci" / "licences.py"), "sbom", str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    body = json.loads(target.read_text(encoding="utf-8"))
    assert body["bomFormat"] == "CycloneDX"
    assert body["metadata"]["component"]["name"] == PROJECT["name"]
    found = {one["name"].lower(): one for one in body["components"]}
    assert {"fastapi", "torch", "preact", "dompurify", "smollm2-135m-instruct"} <= set(found)
    assert found["preact"]["purl"] == "pkg:npm/preact@11.2.0"
    assert found["fastapi"]["version"]

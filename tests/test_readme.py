"""The documents describe what is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from server.config import Settings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
HIDDEN = {".gitignore", ".ci", ".git-blame-ignore-revs"}


def tracked(folder: str = "") -> set[str]:
    """First-level names under `folder`, as git knows them."""
    output = subprocess.run(
        ["git", "-c", "core.quotePath=false", "ls-files", "--cached", "--others", "--exclude-standard", folder or "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    prefix = f"{folder}/" if folder else ""
    return {line.removeprefix(prefix).split("/")[0] for line in output.splitlines()}


def tree() -> list[tuple[int, str]]:
    """(indent, path) of each entry of the README's tree."""
    block = re.search(r"```\n(server/ .*?)```", README, re.DOTALL)
    assert block
    entries = []
    for line in block.group(1).splitlines():
        words = line.split()
        while words and re.fullmatch(r"[\w-]+(\.[a-z]+|/)|Makefile", words[0]):
            entries.append((len(line) - len(line.lstrip()), words.pop(0)))
    return entries


def test_the_tree_names_what_is_there_and_nothing_else() -> None:
    top = {name.rstrip("/") for indent, name in tree() if indent == 0}
    assert top == tracked() - HIDDEN - {"README.md", "pyproject.toml"}
    inside = {name.rstrip("/") for indent, name in tree() if indent > 0}
    assert inside == tracked("server") - {"__init__.py", "__main__.py"}


@pytest.mark.parametrize(
    "document", sorted(p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{document} links to {target}"


DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(path for path in ROOT.glob("docs/*.md") if path.name != "log.md"),
]  # a log is history
SOURCES = [path for folder in ("server", "tests", "bench") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_names_of_code_that_documents_name_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:server|tests|bench|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), f"{document.name} names {path}"
    files = {path.name for path in SOURCES}
    assert [name for name in re.findall(r"`(\w+\.py)`", text) if name not in files] == []
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    classes = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w*)`", text))
    assert [name for name in sorted(classes) if not re.search(rf"\b{name}\b", code)] == []


def test_files_named_in_comments_exist() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in SOURCES
        for name in re.findall(r"\b((?:server|tests|bench|docs)/[\w/]+\.(?:py|md|jsonl))\b", path.read_text("utf-8"))
    }
    assert [pair for pair in sorted(named) if not (ROOT / pair[1]).exists()] == []


def test_settings_named_in_the_documents_exist() -> None:
    keys = {f"{section}.{key}" for section, value in Settings() for key in type(value).model_fields}
    sections = "|".join(Settings.model_fields)
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for named in re.findall(rf"`((?:{sections})\.[a-z_]+)`", path.read_text(encoding="utf-8")):
            if not named.endswith((".md", ".py", ".db", ".json")):
                assert named in keys, f"{path.name} names the setting {named}"


def test_environment_and_flags_named_in_the_documents_exist() -> None:
    keys = {f"TAILOR_{section}_{key}".upper() for section, value in Settings() for key in type(value).model_fields}
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for named in re.findall(r"TAILOR_[A-Z_]+[A-Z]", path.read_text(encoding="utf-8")):
            assert named in keys, f"{path.name} names {named}"


def test_the_repository_names_no_machine() -> None:
    """No absolute path of somebody's machine in what is kept."""
    files = subprocess.run(
        ["git", "-c", "core.quotePath=false", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in files.splitlines():
        path = ROOT / name
        if (
            not name.startswith("tests/")
            and path.suffix in {".py", ".md", ".toml", ".json", ".js", ".jsonl"}
            and path.exists()
        ):
            assert str(ROOT.parent) + "/" not in path.read_text(encoding="utf-8", errors="replace"), name


def test_every_protocol_type_is_documented() -> None:
    from server.api import protocol
    from server.chat import events

    manual = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    kinds = set(re.findall(r'type: Literal\["(\w+)"\]', Path(protocol.__file__).read_text()))
    kinds |= set(re.findall(r'type: Literal\["(\w+)"\]', Path(events.__file__).read_text()))
    documented = set(re.findall(r"^\| `(\w+)` \|", manual, re.MULTILINE))
    assert kinds <= documented

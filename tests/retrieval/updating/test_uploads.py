from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import InvalidInput, NotFound
from server.retrieval.updating.scanner import is_ignored
from server.retrieval.updating.uploads import folder_path, remove, safe_name, write


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("refunds.md", "refunds.md"),
        ("배송 안내.PDF", "배송 안내.pdf"),
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\me\\notes.txt", "notes.txt"),
        ("..\\..\\evil.html", "evil.html"),
        (".hidden.md", "hidden.md"),
        ("~$report.docx", "report.docx"),
        ("...md", "file.md"),
        (".md", "file.md"),
        ("con.txt", "file-con.txt"),
        ("LPT1.csv", "file-LPT1.csv"),
        ("a\x00b\nc\u202egnp.md", "abcgnp.md"),
        ('a<b>:"|?*#%.json', "a b.json"),
        ("trailing. .md", "trailing.md"),
        ("a.tar.md", "a.tar.md"),
    ],
)
def test_names_are_made_safe(sent: str, stored: str) -> None:
    assert safe_name(sent) == stored


def test_decomposed_names_are_composed() -> None:
    assert safe_name(unicodedata.normalize("NFD", "배송.md")) == "배송.md"


def test_long_names_are_cut_between_characters() -> None:
    name = safe_name("가" * 500 + ".md")
    assert len(name.encode()) <= 255
    assert set(name) == {"가", ".", "m", "d"}


@pytest.mark.parametrize("sent", ["tool.exe", "noending", "", "a.md/", "a.md.part", "x.svg", "a.md "])
def test_unknown_endings_are_refused_with_the_list(sent: str) -> None:
    if sent == "a.md ":  # a space after the ending is taken off
        assert safe_name(sent) == "a.md"
        return
    with pytest.raises(InvalidInput, match=r"supported are \.md .* \.pdf"):
        safe_name(sent)


@given(st.text(max_size=60), st.sampled_from([".md", ".PDF", ".txt"]))
@settings(deadline=None)
def test_any_name_becomes_one_visible_file(stem: str, ending: str) -> None:
    name = safe_name(stem + ending)
    assert os.path.basename(name) == name
    assert not is_ignored(name)
    assert name == name.strip()
    assert len(name.encode()) <= 255
    assert not any(unicodedata.category(char).startswith("C") for char in name)
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "folder", ["", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", " a", "x" * 65, "a\0", "a\n", "~$a", "a.part"]
)
def test_folder_names_cannot_lead_elsewhere(tmp_path: Path, folder: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name a folder"):
        write(tmp_path, folder, "a.md", b"text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["support", "고객-지원", "v1.2_final", "x" * 64])
def test_folder_names_of_any_script(tmp_path: Path, folder: str) -> None:
    assert write(tmp_path, folder, "a.md", b"text") == tmp_path / folder / "a.md"


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(InvalidInput, match="not a folder of its own"):
        folder_path(root, "link")


def test_writing_replaces_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write(tmp_path, "f", "a.md", b"old")
    path = write(tmp_path, "f", "a.md", b"new")
    assert path.read_bytes() == b"new"
    assert [one.name for one in path.parent.iterdir()] == ["a.md"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_link_in_the_place_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.md"
    outside.write_text("untouched")
    root = tmp_path / "root"
    (root / "f").mkdir(parents=True)
    (root / "f" / "a.md").symlink_to(outside)
    write(root, "f", "a.md", b"new")
    assert outside.read_text() == "untouched"
    assert (root / "f" / "a.md").read_text() == "new"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "f", "a.md", b"old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, "f", "a.md", b"new")
    assert [(one.name, one.read_bytes()) for one in (tmp_path / "f").iterdir()] == [("a.md", b"old")]


def test_empty_uploads_and_folders_in_the_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="0 bytes"):
        write(tmp_path, "f", "a.md", b"")
    (tmp_path / "f" / "b.md").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="is a folder"):
        write(tmp_path, "f", "b.md", b"text")


def test_files_are_deleted_also_in_subfolders(tmp_path: Path) -> None:
    write(tmp_path, "f", "a.md", b"text")
    (tmp_path / "f" / "sub").mkdir()
    (tmp_path / "f" / "sub" / "b.md").write_text("text")
    remove(tmp_path, "f", "a.md")
    remove(tmp_path, "f", "sub/b.md")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_decomposed_name_on_disk_is_found(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / unicodedata.normalize("NFD", "배송.md")).write_text("text")
    remove(tmp_path, "f", "배송.md")
    assert list((tmp_path / "f").iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("f", "missing.md"), ("g", "a.md"), ("f", "../secret.md"), ("f", "/etc/hostname"), ("..", "secret.md"),
        ("f", "sub"), ("f", ""), ("", "a.md"), ("f/sub", "b.md"), ("f", "a.md\0"), ("f", "out/secret.md"),
        ("f", ".hidden"), (".", "f/a.md"),
    ],
)  # fmt: skip
def test_nothing_else_can_be_deleted(tmp_path: Path, folder: str, file: str) -> None:
    root = tmp_path / "root"
    write(root, "f", "a.md", b"text")
    (root / "f" / "sub").mkdir()
    (root / "f" / "sub" / "b.md").write_text("text")
    (root / "f" / ".hidden").write_text("text")
    (tmp_path / "secret.md").write_text("text")
    (root / "f" / "out").symlink_to(tmp_path, target_is_directory=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(NotFound, match="no file"):
        remove(root, folder, file)
    assert sorted(tmp_path.rglob("*")) == before

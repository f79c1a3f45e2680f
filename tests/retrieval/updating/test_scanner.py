from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from server.retrieval.index.files import FileKey, FileState
from server.retrieval.updating import scanner
from server.retrieval.updating.scanner import ScannedFile, is_ignored, scan, scan_paths


def put(root: Path, name: str, data: bytes = b"text") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def found(root: Path, folder: str, file: str) -> ScannedFile:
    return scan(root)[0][FileKey(folder, file)]


def test_files_are_keyed_by_folder_and_path_inside(tmp_path: Path) -> None:
    put(tmp_path, "support/a.md")
    put(tmp_path, "support/deep/er/b.txt", b"12345")
    put(tmp_path, "한국어/배송.md")
    (tmp_path / "empty").mkdir()
    files, folders = scan(tmp_path)
    assert set(files) == {
        FileKey("support", "a.md"), FileKey("support", "deep/er/b.txt"), FileKey("한국어", "배송.md"),
    }  # fmt: skip
    assert folders == ("empty", "support", "한국어")
    assert files[FileKey("support", "deep/er/b.txt")].bytes == 5
    assert not any(file.problem for file in files.values())


@pytest.mark.parametrize(
    "name", [".hidden.md", "~$report.docx", "a.md.swp", "b.pdf.part", "c.txt~", "d.TMP", "e.crdownload", ".git"]
)
def test_temporary_and_hidden_names_do_not_exist(tmp_path: Path, name: str) -> None:
    assert is_ignored(name)
    put(tmp_path, f"support/{name}")
    put(tmp_path, f"support/{name}.d/inside.md") if name.startswith(".") else None
    assert scan(tmp_path)[0] == {}


@pytest.mark.parametrize("name", ["a.md", "draft~1.md", "template.html", "~notes.txt"])
def test_ordinary_names_are_kept(name: str) -> None:
    assert not is_ignored(name)


def test_each_problem_has_its_state_and_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner, "MAX_FILE_BYTES", 1024 * 1024)
    put(tmp_path, "f/tool.exe")
    put(tmp_path, "f/README")
    put(tmp_path, "f/zero.md", b"")
    put(tmp_path, "f/big.txt", b"x" * (1024 * 1024 + 1))
    put(tmp_path, "loose.md")
    expected = {
        ("f", "tool.exe"): (FileState.UNSUPPORTED, ".exe is not read; supported: .md"),
        ("f", "README"): (FileState.UNSUPPORTED, "no ending is not read"),
        ("f", "zero.md"): (FileState.EMPTY, "0 bytes"),
        ("f", "big.txt"): (FileState.FAILED, "the limit is 1 MB"),
        ("", "loose.md"): (FileState.UNSUPPORTED, "move it into a folder"),
    }
    for (folder, file), (state, reason) in expected.items():
        one = found(tmp_path, folder, file)
        assert (one.state, reason in one.problem) == (state, True), one


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "knowledge"
    outside = put(tmp_path, "secret.md")
    put(root, "f/real.md")
    (root / "f" / "out.md").symlink_to(outside)
    (root / "f" / "in.md").symlink_to(root / "f" / "real.md")
    (root / "f" / "dir").symlink_to(tmp_path, target_is_directory=True)
    (root / "f" / "loop").symlink_to(root, target_is_directory=True)
    (root / "f" / "gone.md").symlink_to(root / "f" / "nothing.md")
    (root / "linked").symlink_to(tmp_path, target_is_directory=True)
    files, folders = scan(root)
    assert "out of the knowledge folder" in files[FileKey("f", "out.md")].problem
    assert "out of the knowledge folder" in files[FileKey("f", "dir")].problem
    assert "linked folder" in files[FileKey("f", "loop")].problem
    assert "cannot be opened" in files[FileKey("f", "gone.md")].problem
    assert files[FileKey("", "linked")].problem
    assert files[FileKey("f", "in.md")].problem == ""
    assert folders == ("f",)


def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    os.mkfifo(tmp_path / "f" / "pipe.md")
    assert "not a regular file" in found(tmp_path, "f", "pipe.md").problem


def test_a_name_that_is_not_utf8_is_shown_and_refused(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with open(os.fsencode(tmp_path / "f") + b"/caf\xe9.md", "wb") as file:
        file.write(b"text")
    one = found(tmp_path, "f", "caf?.md")
    assert (one.state, "rename" in one.problem) == (FileState.FAILED, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_a_closed_folder_is_reported(tmp_path: Path) -> None:
    put(tmp_path, "f/inner/a.md")
    (tmp_path / "f" / "inner").chmod(0)
    try:
        assert "cannot be opened" in found(tmp_path, "f", "inner").problem
    finally:
        (tmp_path / "f" / "inner").chmod(0o755)


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        scan(tmp_path / "nowhere")


# ── single files ─────────────────────────────────────────────────────────────────────────────────


def test_single_paths_are_scanned_as_in_a_full_scan(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    for name in ("f/a.md", "f/deep/b.md", "g/c.exe"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    paths = [root / "f" / "a.md", root / "f" / "deep" / "b.md", root / "g" / "c.exe", root / "f" / "gone.md"]
    scanned = scan_paths(root, [*paths, root / "f" / ".a.md.swp", root.parent / "elsewhere.md"])
    assert scanned is not None
    assert scanned[0] == scan(root)[0]
    assert {key.file for key in scanned[1]} == {"a.md", "deep/b.md", "c.exe", "gone.md"}


@pytest.mark.parametrize("name", ["f", "f/deep", "loose.md", "f/was-a-folder", "nowhere/a.md", "f/linked/b.md"])
def test_what_may_change_more_than_one_file_needs_a_full_scan(tmp_path: Path, name: str) -> None:
    root = (tmp_path / "knowledge").resolve()
    (root / "f" / "deep").mkdir(parents=True)
    (root / "loose.md").write_text("text")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.md").write_text("secret")
    (root / "f" / "linked").symlink_to(outside)
    assert scan_paths(root, [root / name]) is None


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("README.md", "readme.md", "upper and lower case"),
        ("STRASSE.md", "straße.md", "upper and lower case"),
        (unicodedata.normalize("NFD", "가격.md"), unicodedata.normalize("NFC", "가격.md"), "Unicode form"),
        ("Deep/a.md", "deep/A.md", "upper and lower case"),
    ],
)
def test_of_names_that_other_systems_hold_for_one_the_second_is_refused(
    tmp_path: Path, first: str, second: str, what: str
) -> None:
    put(tmp_path, f"f/{second}")
    assert found(tmp_path, "f", second).problem == ""
    put(tmp_path, f"f/{first}")
    put(tmp_path, f"g/{second}")
    assert found(tmp_path, "f", first).problem == found(tmp_path, "g", second).problem == ""
    one = found(tmp_path, "f", second)
    expected = f"its name differs from '{first}' only in {what}: rename one of them"
    assert (one.state, one.problem) == (FileState.FAILED, expected)


def test_a_file_that_is_not_read_clashes_with_none(tmp_path: Path) -> None:
    put(tmp_path, "f/A.md", b"")
    put(tmp_path, "f/a.md")
    assert found(tmp_path, "f", "a.md").problem == ""


def test_a_scan_of_one_of_two_clashing_names_returns_both(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    first, second = put(root, "f/README.md"), put(root, "f/readme.md")
    for path in (first, second):
        scanned = scan_paths(root, [path])
        assert scanned == (scan(root)[0], set(scan(root)[0]))
    first.unlink()
    scanned = scan_paths(root, [first])
    assert scanned is not None
    assert {key.file: file.problem for key, file in scanned[0].items()} == {"readme.md": ""}
    assert scanned[1] == {FileKey("f", "README.md"), FileKey("f", "readme.md")}


def test_a_path_below_clashing_folders_needs_a_full_scan(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    path = put(root, "f/deep/a.md")
    assert scan_paths(root, [path]) is not None
    put(root, "f/Deep/a.md")
    assert scan_paths(root, [path]) is None


def test_a_name_that_is_not_utf8_hides_no_other(tmp_path: Path) -> None:
    put(tmp_path, "f/caf?.md")
    with open(os.fsencode(tmp_path / "f") + b"/caf\xe9.md", "wb") as file:
        file.write(b"text")
    assert found(tmp_path, "f", "caf?.md").problem == ""


def test_a_file_of_500_mb_is_rejected_without_reading_it(tmp_path: Path) -> None:
    with put(tmp_path, "f/big.txt").open("wb") as file:
        file.truncate(500 * 1024 * 1024)
    one = found(tmp_path, "f", "big.txt")
    assert (one.state, one.problem) == (FileState.FAILED, "too large: 500 MB, the limit is 64 MB; split the file")

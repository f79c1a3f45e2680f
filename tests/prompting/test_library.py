from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from server.errors import NotFound
from server.prompting import PromptLibrary
from server.prompting import library as library_module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    folder.mkdir()
    return folder


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.md"
    path.write_text(text, encoding="utf-8")
    return path


def names(library: PromptLibrary) -> list[str]:
    return [domain.name for domain in library.domains()]


def test_additions_edits_and_removals_show_at_the_next_call(folder: Path):
    library = PromptLibrary(folder, "general")
    assert names(library) == ["general"]
    path = write(folder, "faq", "One.")
    assert names(library) == ["faq", "general"]
    write(folder, "faq", "Two!!")
    assert library.get("faq").body == "Two!!"
    path.unlink()
    assert names(library) == ["general"]


def test_a_rename_is_a_removal_and_an_addition(folder: Path):
    library = PromptLibrary(folder, "general")
    write(folder, "faq", "One.").rename(folder / "help.md")
    assert names(library) == ["general", "help"]
    assert library.get("help").name == "help"


def test_an_atomic_replacement_of_the_same_size_and_time_is_seen(folder: Path):
    library = PromptLibrary(folder, "general")
    path = write(folder, "faq", "One.")
    assert library.get("faq").body == "One."
    state = path.stat()
    new = folder / ".faq.md.tmp"
    new.write_text("Two.", encoding="utf-8")
    os.utime(new, ns=(state.st_atime_ns, state.st_mtime_ns))
    new.replace(path)
    assert library.get("faq").body == "Two."


def test_a_broken_file_is_reported_while_its_last_good_version_serves(folder: Path):
    library = PromptLibrary(folder, "general")
    write(folder, "faq", "One.")
    write(folder, "other", "Fine.")
    assert library.problems() == ()
    path = write(folder, "faq", "---\ntitle: T\nadaptor: x\n---\nTwo.")
    (problem,) = library.problems()
    assert (problem.file, problem.line) == (str(path), 3)
    assert library.get("faq").body == "One."
    assert names(library) == ["faq", "general", "other"]
    write(folder, "faq", "Also broken {{ x }}")
    assert "undefined" in library.problems()[0].reason
    assert library.get("faq").body == "One."
    write(folder, "faq", "Three.")
    assert library.problems() == ()
    assert library.get("faq").body == "Three."


def test_a_removed_file_does_not_go_on_serving_even_if_it_was_broken(folder: Path):
    library = PromptLibrary(folder, "general")
    path = write(folder, "faq", "One.")
    library.domains()
    write(folder, "faq", "{{ broken")
    library.domains()
    path.unlink()
    assert names(library) == ["general"]
    assert library.problems() == ()


def test_not_found_names_what_there_is(folder: Path):
    write(folder, "faq", "One.")
    with pytest.raises(NotFound, match=r"no domain 'fax'; there are faq, general"):
        PromptLibrary(folder, "general").get("fax")


def test_a_file_that_never_worked_is_not_found_with_the_reason(folder: Path):
    write(folder, "faq", "One\n{{ colour }}")
    library = PromptLibrary(folder, "general")
    assert names(library) == ["general"]
    with pytest.raises(NotFound, match=r"faq.md, line 2: undefined variables 'colour'"):
        library.get("faq")


def test_the_default_is_built_in_until_a_file_takes_its_place(folder: Path):
    library = PromptLibrary(folder, "desk")
    assert names(library) == ["desk"]
    assert "helpful" in library.get("desk").body
    write(folder, "desk", "{{ broken")
    assert "helpful" in library.get("desk").body
    assert len(library.problems()) == 1
    write(folder, "desk", "Mine.")
    assert library.get("desk").body == "Mine."


@pytest.mark.parametrize("missing", [True, False])
def test_a_folder_that_is_none_is_an_empty_one(tmp_path: Path, missing: bool):
    path = tmp_path / "prompts"
    if not missing:
        path.write_text("a file")
    assert names(PromptLibrary(path, "general")) == ["general"]


def test_only_markdown_files_count(folder: Path):
    (folder / "notes.txt").write_text("x")
    (folder / ".faq.md").write_text("x")
    (folder / "faq.md~").write_text("x")
    (folder / "sub.md").mkdir()
    library = PromptLibrary(folder, "general")
    assert names(library) == ["general"]
    assert library.problems() == ()


def test_a_bad_name_and_bad_bytes_are_reported_and_the_rest_serves(folder: Path):
    write(folder, "README", "Notes.")
    (folder / "latin.md").write_bytes(b"caf\xe9")
    write(folder, "faq", "One.")
    library = PromptLibrary(folder, "general")
    assert names(library) == ["faq", "general"]
    assert [Path(problem.file).name for problem in library.problems()] == ["README.md", "latin.md"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_an_unreadable_file_is_reported(folder: Path):
    write(folder, "faq", "One.").chmod(0)
    assert "cannot be read" in PromptLibrary(folder, "general").problems()[0].reason


def test_a_dangling_link_is_no_domain(folder: Path):
    (folder / "faq.md").symlink_to(folder / "gone")
    library = PromptLibrary(folder, "general")
    assert names(library) == ["general"]


def test_an_unchanged_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    write(folder, "faq", "One.")
    write(folder, "other", "One.")
    library = PromptLibrary(folder, "general")
    read: list[str] = []
    parse = library_module.parse_domain

    def counted(file: Path | str, data: bytes):
        read.append(Path(file).name)
        return parse(file, data)

    monkeypatch.setattr(library_module, "parse_domain", counted)
    for _ in range(5):
        library.domains()
        library.get("faq")
    assert sorted(read) == ["faq.md", "other.md"]
    write(folder, "faq", "Two, longer.")
    library.domains()
    assert sorted(read) == ["faq.md", "faq.md", "other.md"]


def test_threads_always_see_a_whole_version(folder: Path):
    library = PromptLibrary(folder, "general")
    bodies = {f"{letter * 2000}" for letter in "ab"}
    path = write(folder, "faq", "a" * 2000)
    stop = threading.Event()
    wrong: list[str] = []

    def look() -> None:
        while not stop.is_set():
            body = library.get("faq").body
            if body not in bodies:
                wrong.append(body)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        new = folder / ".faq.tmp"
        new.write_text("ab"[turn % 2] * 2000)
        new.replace(path)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert library.get("faq").body == "b" * 2000

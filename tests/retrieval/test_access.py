"""Who may see which folder, by the file beside its files."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.retrieval import LOCAL_USER, Access
from server.types import UserId

ANN, BOB, GONE = UserId("1"), UserId("2"), UserId("3")
PRINCIPALS = {ANN: frozenset({"ann", "@sales"}), BOB: frozenset({"bob", "@sales", "@law"})}


class Workspace:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "knowledge"
        self.last_seen_file = folder / "index" / "access.json"
        self.folder("open")

    def folder(self, name: str, users: str | bytes | None = None) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        if users is not None:
            (path / ".users").write_bytes(users if isinstance(users, bytes) else users.encode())
        return path

    def access(self) -> Access:
        return Access(self.root, self.last_seen_file, lambda user: PRINCIPALS.get(user, frozenset()))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def age(folder: Path) -> None:
    """As if nobody had touched the folder for a minute."""
    then = time.time() - 60
    os.utime(folder, (then, then))


def who(access: Access, folder: str) -> set[str]:
    return {user for user in (ANN, BOB, GONE) if access.may_see(user, folder)}


@pytest.mark.parametrize(
    ("users", "may"),
    [
        (None, {ANN, BOB, GONE}),
        ("ann\n", {ANN}),
        ("# who\n\n ANN # the boss\r\nbob", {ANN, BOB}),
        ("\ufeffbob", {BOB}),
        ("ann bob\n", set()),
        ("@sales", {ANN, BOB}),
        ("ann\n@LAW # the lawyers\n", {ANN, BOB}),
        ("@law", {BOB}),
        ("@nobody\nsales\nlaw\n", set()),
        ("annbob\n*\nadmin\n", set()),
    ],
)
def test_names_stand_one_a_line(workspace: Workspace, users: str | None, may: set[str]) -> None:
    workspace.folder("secret", users)
    assert who(workspace.access(), "secret") == may
    assert workspace.access().access_list("secret").problem == ""
    assert workspace.access().may_see(LOCAL_USER, "secret")


@pytest.mark.parametrize(
    ("users", "says"),
    [
        ("", "names nobody"),
        ("# nobody yet\n\n", "names nobody"),
        (b"\xff\xfe\x00a", "is not UTF-8"),
        (b"ann\n" * 20_000, "at most 64 KB"),
    ],
)
def test_what_cannot_be_read_lets_nobody_in_and_says_why(workspace: Workspace, users: str | bytes, says: str) -> None:
    workspace.folder("secret", users)
    access = workspace.access()
    assert who(access, "secret") == set()
    assert access.may_see(LOCAL_USER, "secret")
    assert says in access.access_list("secret").problem


def test_a_link_or_a_folder_in_its_place_lets_nobody_in(workspace: Workspace) -> None:
    (workspace.folder("one") / ".users").symlink_to("nowhere")
    (workspace.folder("two") / ".users").mkdir()
    (workspace.root / "list").write_text("ann\n")
    (workspace.folder("three") / ".users").symlink_to(workspace.root / "list")
    for name in ("one", "two", "three"):
        assert who(workspace.access(), name) == set()
        assert "no plain file" in workspace.access().access_list(name).problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_lets_nobody_in(workspace: Workspace) -> None:
    (workspace.folder("secret", "ann\n") / ".users").chmod(0)
    assert who(workspace.access(), "secret") == set()
    assert "cannot be read" in workspace.access().access_list("secret").problem


def test_a_change_counts_at_once_and_a_removal_after_a_moment(workspace: Workspace) -> None:
    folder, access = workspace.folder("secret", "ann\n"), workspace.access()
    assert who(access, "secret") == {ANN}
    (folder / ".users").write_text("bob\n")
    assert who(access, "secret") == {BOB}
    (folder / ".users").unlink()
    assert who(access, "secret") == {BOB}  # perhaps an editor is saving it
    age(folder)
    assert who(access, "secret") == {ANN, BOB, GONE}


def test_a_folder_that_is_gone_stays_limited_as_it_was_after_a_restart_too(workspace: Workspace) -> None:
    secret, public = workspace.folder("secret", "ann\n"), workspace.folder("public")
    access = workspace.access()
    for name in ("secret", "public"):
        access.access_list(name)
    (secret / ".users").unlink()
    secret.rmdir()
    public.rmdir()
    for each in (access, workspace.access()):
        assert who(each, "secret") == {ANN}
        assert who(each, "public") == {ANN, BOB, GONE}
        assert not each.is_new("secret")
    workspace.last_seen_file.write_text("{damaged")
    assert who(workspace.access(), "secret") == set()
    assert who(workspace.access(), "public") == set()


def test_a_folder_of_which_nothing_is_known_is_nobodys_and_new(workspace: Workspace) -> None:
    access = workspace.access()
    assert who(access, "never") == set()
    assert access.is_new("never")
    assert not access.is_new("open")


@pytest.mark.parametrize("name", ["..", ".", "open/../secret", "secret/", "/secret", "open\\secret", "secret\0"])
def test_what_is_no_name_of_a_folder_is_nobodys(workspace: Workspace, name: str) -> None:
    workspace.folder("secret", "ann\n")
    assert who(workspace.access(), name) == set()


def test_a_limit_counts_under_each_form_of_the_name(workspace: Workspace) -> None:
    name = unicodedata.normalize("NFD", "급여")
    workspace.folder(name, "ann\n")
    access = workspace.access()
    for form in ("NFC", "NFD"):
        assert who(access, unicodedata.normalize(form, name)) == {ANN}


def test_a_root_that_is_away_opens_nothing(workspace: Workspace) -> None:
    workspace.folder("secret", "ann\n")
    access = workspace.access()
    assert who(access, "secret") == {ANN}
    workspace.root.rename(workspace.root.with_name("unmounted"))
    assert who(access, "secret") == {ANN}


@given(lines=st.lists(st.sampled_from(["ann", "bob", "#ann", "", "ann#", " ANN\t", "annn", "an n", "ann,bob"])))
def test_only_those_who_are_named_alone_on_a_line_may(tmp_path_factory: pytest.TempPathFactory, lines: list[str]):
    workspace = Workspace(tmp_path_factory.mktemp("access"))
    workspace.folder("secret", "\n".join(lines))
    may = {{"ann": ANN, "bob": BOB}[line.split("#")[0].strip().lower()] for line in lines
           if line.split("#")[0].strip().lower() in ("ann", "bob")}  # fmt: skip
    assert who(workspace.access(), "secret") == may

"""Who may see which folder, by the file beside its files."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.retrieval import LOCAL, Access
from server.types import UserId

ANN, BOB, GONE = UserId("1"), UserId("2"), UserId("3")
NAMES = {ANN: "ann", BOB: "bob"}


class Place:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "knowledge"
        self.seen = folder / "index" / "access.json"
        self.folder("open")

    def folder(self, name: str, users: str | bytes | None = None) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        if users is not None:
            (path / ".users").write_bytes(users if isinstance(users, bytes) else users.encode())
        return path

    def access(self) -> Access:
        return Access(self.root, self.seen, NAMES.get)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


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
        ("annbob\n*\nadmin\n", set()),
    ],
)
def test_names_stand_one_a_line(place: Place, users: str | None, may: set[str]) -> None:
    place.folder("secret", users)
    assert who(place.access(), "secret") == may
    assert place.access().limit("secret").problem == ""
    assert place.access().may_see(LOCAL, "secret")


@pytest.mark.parametrize(
    ("users", "says"),
    [
        ("", "names nobody"),
        ("# nobody yet\n\n", "names nobody"),
        (b"\xff\xfe\x00a", "is not UTF-8"),
        (b"ann\n" * 20_000, "at most 64 KB"),
    ],
)
def test_what_cannot_be_read_lets_nobody_in_and_says_why(place: Place, users: str | bytes, says: str) -> None:
    place.folder("secret", users)
    access = place.access()
    assert who(access, "secret") == set()
    assert access.may_see(LOCAL, "secret")
    assert says in access.limit("secret").problem


def test_a_link_or_a_folder_in_its_place_lets_nobody_in(place: Place) -> None:
    (place.folder("one") / ".users").symlink_to("nowhere")
    (place.folder("two") / ".users").mkdir()
    (place.root / "list").write_text("ann\n")
    (place.folder("three") / ".users").symlink_to(place.root / "list")
    for name in ("one", "two", "three"):
        assert who(place.access(), name) == set()
        assert "no plain file" in place.access().limit(name).problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_lets_nobody_in(place: Place) -> None:
    (place.folder("secret", "ann\n") / ".users").chmod(0)
    assert who(place.access(), "secret") == set()
    assert "cannot be read" in place.access().limit("secret").problem


def test_a_change_counts_at_once_and_a_removal_after_a_moment(place: Place) -> None:
    folder, access = place.folder("secret", "ann\n"), place.access()
    assert who(access, "secret") == {ANN}
    (folder / ".users").write_text("bob\n")
    assert who(access, "secret") == {BOB}
    (folder / ".users").unlink()
    assert who(access, "secret") == {BOB}  # perhaps an editor is saving it
    age(folder)
    assert who(access, "secret") == {ANN, BOB, GONE}


def test_a_folder_that_is_gone_stays_limited_as_it_was_after_a_restart_too(place: Place) -> None:
    secret, public = place.folder("secret", "ann\n"), place.folder("public")
    access = place.access()
    for name in ("secret", "public"):
        access.limit(name)
    (secret / ".users").unlink()
    secret.rmdir()
    public.rmdir()
    for each in (access, place.access()):
        assert who(each, "secret") == {ANN}
        assert who(each, "public") == {ANN, BOB, GONE}
        assert not each.is_new("secret")
    place.seen.write_text("{damaged")
    assert who(place.access(), "secret") == set()
    assert who(place.access(), "public") == set()


def test_a_folder_of_which_nothing_is_known_is_nobodys_and_new(place: Place) -> None:
    access = place.access()
    assert who(access, "never") == set()
    assert access.is_new("never")
    assert not access.is_new("open")


@pytest.mark.parametrize("name", ["..", ".", "open/../secret", "secret/", "/secret", "open\\secret", "secret\0"])
def test_what_is_no_name_of_a_folder_is_nobodys(place: Place, name: str) -> None:
    place.folder("secret", "ann\n")
    assert who(place.access(), name) == set()


def test_a_limit_counts_under_each_form_of_the_name(place: Place) -> None:
    name = unicodedata.normalize("NFD", "급여")
    place.folder(name, "ann\n")
    access = place.access()
    for form in ("NFC", "NFD"):
        assert who(access, unicodedata.normalize(form, name)) == {ANN}


def test_a_root_that_is_away_opens_nothing(place: Place) -> None:
    place.folder("secret", "ann\n")
    access = place.access()
    assert who(access, "secret") == {ANN}
    place.root.rename(place.root.with_name("unmounted"))
    assert who(access, "secret") == {ANN}


@given(lines=st.lists(st.sampled_from(["ann", "bob", "#ann", "", "ann#", " ANN\t", "annn", "an n", "ann,bob"])))
def test_only_those_who_are_named_alone_on_a_line_may(tmp_path_factory: pytest.TempPathFactory, lines: list[str]):
    place = Place(tmp_path_factory.mktemp("access"))
    place.folder("secret", "\n".join(lines))
    may = {{"ann": ANN, "bob": BOB}[line.split("#")[0].strip().lower()] for line in lines
           if line.split("#")[0].strip().lower() in ("ann", "bob")}  # fmt: skip
    assert who(place.access(), "secret") == may

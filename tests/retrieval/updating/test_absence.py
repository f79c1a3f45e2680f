"""A folder whose disk goes away keeps its index, and the status says so; a folder that is deleted does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.config import RetrievalSettings
from server.errors import Conflict
from server.retrieval import Access, KnowledgeBase, SharedKnowledge
from server.types import UserId
from tests.disks import mounted, unmount
from tests.fakes import WordEmbedder

SETTINGS = RetrievalSettings(debounce_ms=50)
TEXT = "# Returns\n\nLamps are accepted within 45 days.\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "knowledge"


@pytest.fixture
def share(root: Path) -> Iterator[Path]:
    """A mounted folder with a file, beside one that is not mounted."""
    write(root / "notes" / "tea.md", "Green tea steeps for three minutes.\n")
    with mounted(root / "shop", 4 << 20) as folder:
        write(folder / "returns.md", TEXT)
        yield folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def open_base(root: Path) -> KnowledgeBase:
    return KnowledgeBase(root, root.parent / "index", WordEmbedder(), SETTINGS)


def principals_of(user: UserId) -> frozenset[str]:
    return frozenset({{"m": "mina", "j": "jun"}[user]})


def found(base: KnowledgeBase) -> list[str]:
    return [one.text for one in base.search("lamps accepted within days", ["shop"]).passages]


def missing(base: KnowledgeBase) -> list[str]:
    return [one.folder for one in base.status().missing]


def test_an_unmounted_share_is_kept_and_said_until_it_is_back(root: Path, share: Path) -> None:
    base = open_base(root)
    base.sync()
    unmount(share)
    assert list(share.iterdir()) == []
    base.sync()
    assert found(base)
    (one,) = base.status().missing
    assert one.folder == "shop"
    assert "is its share mounted?" in one.reason
    with pytest.raises(Conflict, match="nothing can be stored in 'shop'"):
        base.save("shop", "new.md", b"text")
    again = open_base(root)  # a start before the share is there
    again.sync()
    assert found(again)
    assert missing(again) == ["shop"]
    with mounted(share, 4 << 20):
        write(share / "returns.md", "Lamps are accepted within 60 days now.\n")
        again.sync()
        assert missing(again) == []
        assert "60 days" in found(again)[0]


def test_a_rebuild_waits_for_what_is_away(root: Path, share: Path) -> None:
    base = open_base(root)
    base.sync()
    unmount(share)
    base.sync()
    base.rebuild()
    base.sync()
    assert base.status().building
    assert found(base)
    share.rmdir()  # it is gone for good
    base.sync()
    assert not base.status().building
    assert missing(base) == found(base) == []


def test_files_that_are_deleted_from_a_share_are_gone(root: Path, share: Path) -> None:
    base = open_base(root)
    base.sync()
    (share / "returns.md").unlink()
    base.sync()
    assert found(base) == []
    assert missing(base) == []


def test_a_folder_that_is_deleted_is_gone(root: Path) -> None:
    write(root / "shop" / "returns.md", TEXT)
    write(root / "notes" / "tea.md", "Green tea.\n")
    base = open_base(root)
    base.sync()
    shutil.rmtree(root / "shop")
    base.sync()
    assert found(base) == []
    assert missing(base) == []


@pytest.mark.parametrize("empty", [False, True])
def test_the_whole_knowledge_folder_may_go_away(root: Path, empty: bool) -> None:
    write(root / "shop" / "returns.md", TEXT)
    base = open_base(root)
    base.sync()
    root.rename(root.with_name("elsewhere"))
    if empty:
        root.mkdir()
    base.sync()
    assert found(base)
    assert missing(base) == (["shop"] if empty else [""])
    with pytest.raises(Conflict):
        base.save("shop", "new.md", b"text")
    shutil.rmtree(root, ignore_errors=True)
    root.with_name("elsewhere").rename(root)
    base.sync()
    assert found(base)
    assert missing(base) == []


def test_an_unmounted_folder_stays_as_limited_as_it_was(root: Path, share: Path) -> None:
    write(share / ".users", "mina\n")
    base = open_base(root)
    access = Access(root, root.parent / "index" / "access.json", principals_of)
    shared = SharedKnowledge(base, access)
    base.sync()
    unmount(share)
    base.sync()
    assert access.may_see(UserId("m"), "shop")
    assert not access.may_see(UserId("j"), "shop")
    assert [one.folder for one in shared.for_user(UserId("m")).status().missing] == ["shop"]
    assert shared.for_user(UserId("j")).status().missing == ()
    later = Access(root, root.parent / "index" / "access.json", principals_of)
    assert not later.may_see(UserId("j"), "shop")

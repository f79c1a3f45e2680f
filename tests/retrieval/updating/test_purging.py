"""A file that is deleted for good: in no generation, in no byte of the index, and nothing brings it back."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from server.config import RetrievalSettings
from server.database import Database
from server.errors import NotFound
from server.retrieval import KnowledgeBase
from server.retrieval.index.files import FileKey
from server.retrieval.updating import uploads
from tests.fakes import WordEmbedder
from tests.remains import remaining
from tests.test_database import divide_pages

SETTINGS = RetrievalSettings(debounce_ms=50)
KEY = FileKey("shop", "a.md")


@pytest.fixture
def base(tmp_path: Path) -> KnowledgeBase:
    """Three generations: the file, another one beside it, and the file with other words."""
    folder = tmp_path / "knowledge" / "shop"
    folder.mkdir(parents=True)
    base = opened(tmp_path)
    for name, word in (("a.md", "aardvarkish"), ("b.md", "bisonish"), ("a.md", "aardwolfish")):
        (folder / name).write_text(f"# Animals\n\nThe {word} fur is kept in the top drawer of the cupboard.\n")
        base.sync()
    return base


def opened(tmp_path: Path) -> KnowledgeBase:
    base = KnowledgeBase(tmp_path / "knowledge", tmp_path / "index", WordEmbedder(), SETTINGS)
    base.open()
    return base


def reopened(base: KnowledgeBase, tmp_path: Path) -> KnowledgeBase:
    base._updater.close()
    return opened(tmp_path)


def vectors_of(base: KnowledgeBase) -> int:
    """Rows in all segments, dead ones too."""
    return sum(len(segment) for _, segment in base._updater._require_open().store._segments.values())


def test_an_ordinary_deletion_says_which_generations_keep_it(base: KnowledgeBase, tmp_path: Path) -> None:
    receipt = base.delete("shop", "a.md")
    assert (receipt.file, receipt.purged, receipt.held_by) == ("a.md", (), (1, 2, 3))
    assert receipt.kept_generations == SETTINGS.generations
    base.sync()
    assert remaining(tmp_path / "index", {"aardvarkish", "aardwolfish"}) == {"aardvarkish", "aardwolfish"}


def test_a_file_that_is_purged_is_in_no_byte_and_the_others_are_there(base: KnowledgeBase, tmp_path: Path) -> None:
    receipt = base.delete("shop", "a.md", purge=True)
    assert (receipt.purged, receipt.held_by) == ((1, 2, 3), ())
    words = {"aardvarkish", "aardwolfish", "bisonish"}
    assert remaining(tmp_path / "index", words) == {"bisonish"}
    assert vectors_of(base) == 1
    base.check_integrity()
    with pytest.raises(NotFound):
        base.roll_back(3)
    base.sync()
    base.check_integrity()
    (found,) = base.search("bisonish fur", ["shop"]).passages
    assert found.file == "b.md"
    assert remaining(tmp_path / "index", words) == {"bisonish"}
    assert not base._updater._require_open().store.get_mark("purge")
    with pytest.raises(NotFound):
        base.delete("shop", "a.md", purge=True)
    assert not base._updater._require_open().store.get_mark("purge")


def test_a_process_that_ends_in_the_middle_goes_on_at_its_next_start(base: KnowledgeBase, tmp_path: Path) -> None:
    base._updater.purger._mark(KEY, wanted=True)
    (tmp_path / "knowledge" / "shop" / "a.md").unlink()
    again = reopened(base, tmp_path)
    again.sync()
    assert remaining(tmp_path / "index", {"aardvarkish", "aardwolfish"}) == set()
    assert vectors_of(again) == 1
    again.check_integrity()


def test_bytes_of_divided_pages_that_a_killed_process_left_go_at_the_next_start(
    base: KnowledgeBase, tmp_path: Path
) -> None:
    """The next process has no rows left to know their words by."""
    base._updater.purger._mark(KEY, wanted=True)
    base._updater.close()
    (path,) = (tmp_path / "index").rglob("catalog.db")
    catalogue = Database(path)
    divide_pages(catalogue)
    catalogue.close()
    assert remaining(tmp_path / "index", {"zanzibar"})
    again = opened(tmp_path)
    again.sync()
    assert remaining(tmp_path / "index", {"zanzibar"}) == set()
    assert not again._updater._require_open().store.get_mark("purge")


def test_while_somebody_reads_the_catalogue_the_file_stays_marked(base: KnowledgeBase, tmp_path: Path) -> None:
    (path,) = (tmp_path / "index").rglob("catalog.db")
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM chunks").fetchall()
        base.delete("shop", "a.md", purge=True)
        base.sync()
        assert base._updater._require_open().store.get_mark("purge")
    again = reopened(base, tmp_path)
    again.sync()
    assert remaining(tmp_path / "index", {"aardvarkish", "aardwolfish"}) == set()
    assert not again._updater._require_open().store.get_mark("purge")


def test_a_sync_that_ends_while_a_deletion_begins_does_not_forget_it(
    base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed when the file has gone from the disk and a sync ended just before."""
    syncs: list[threading.Thread] = []
    remove = uploads.remove

    def remove_beside_a_sync(*place: Any) -> None:
        syncs.append(threading.Thread(target=base.sync))
        syncs[0].start()
        syncs[0].join(1)
        remove(*place)
        raise KeyboardInterrupt

    monkeypatch.setattr(uploads, "remove", remove_beside_a_sync)
    with pytest.raises(KeyboardInterrupt):
        base.delete("shop", "a.md", purge=True)
    syncs[0].join()
    base.sync()
    assert remaining(tmp_path / "index", {"aardvarkish", "aardwolfish"}) == set()


def test_a_new_file_of_the_same_name_stays(base: KnowledgeBase, tmp_path: Path) -> None:
    base.delete("shop", "a.md", purge=True)
    base.save("shop", "a.md", b"# Animals\n\nThe antelopish fur is new.\n")
    base.sync()
    assert base.search("antelopish fur", ["shop"]).passages[0].file == "a.md"
    assert remaining(tmp_path / "index", {"aardwolfish", "antelopish"}) == {"antelopish"}

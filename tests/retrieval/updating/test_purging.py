"""A file that is deleted for good: in no generation, in no byte of the index, and nothing brings it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import RetrievalSettings
from server.errors import NotFound
from server.retrieval import KnowledgeBase
from server.retrieval.index.files import FileKey
from tests.fakes import WordEmbedder
from tests.remains import remaining

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
    base._updater.purger.mark(KEY, wanted=True)
    (tmp_path / "knowledge" / "shop" / "a.md").unlink()
    base._updater.close()
    again = opened(tmp_path)
    again.sync()
    assert remaining(tmp_path / "index", {"aardvarkish", "aardwolfish"}) == set()
    assert vectors_of(again) == 1
    again.check_integrity()


def test_a_new_file_of_the_same_name_stays(base: KnowledgeBase, tmp_path: Path) -> None:
    base.delete("shop", "a.md", purge=True)
    base.save("shop", "a.md", b"# Animals\n\nThe antelopish fur is new.\n")
    base.sync()
    assert base.search("antelopish fur", ["shop"]).passages[0].file == "a.md"
    assert remaining(tmp_path / "index", {"aardwolfish", "antelopish"}) == {"antelopish"}

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.errors import NotFound
from server.retrieval.index.chunker import ChunkText
from server.retrieval.index.files import FileKey, FileRecord, FileState, identify_chunks
from server.retrieval.index.generation import Generation
from server.retrieval.index.prepared import PreparedFile
from server.retrieval.index.segment import Segment
from server.retrieval.index.store import IndexStore
from tests.fakes import WordEmbedder
from tests.tiers import cases

EMBEDDER = WordEmbedder()


def prepared(folder: str, file: str, *texts: str, digest: str = "") -> PreparedFile:
    pieces = [ChunkText(text, ("Top", "Sub"), number, number + 1, None) for number, text in enumerate(texts, start=1)]
    key = FileKey(folder, file)
    record = FileRecord(FileState.INDEXED, "", 10, 123, 456, digest or "digest of " + " ".join(texts))
    chunks = identify_chunks(key, pieces)
    return PreparedFile(key, record, chunks, EMBEDDER.embed([chunk.embedded_text for chunk in chunks]))


def texts(generation: Generation) -> list[str]:
    return sorted(
        chunk.text for version in generation.versions.values() for position in range(version.chunks)
        if (chunk := generation.read(version.id, position)) is not None
    )  # fmt: skip


class OpenStore:
    """A store and its newest generation."""

    def __init__(self, folder: Path, kept_generations: int = 20) -> None:
        self.folder, self.kept_generations = folder, kept_generations
        self.reopen()

    def reopen(self) -> None:
        self.store = IndexStore(self.folder, kept_generations=self.kept_generations)
        self.generation = self.store.open()

    def publish(self, *files: PreparedFile, drop: tuple[FileKey, ...] = (), cause: str = "files") -> Generation:
        self.generation = self.store.publish(self.generation, self.store.stage(files), drop, cause)
        self.check()
        return self.generation

    def merge(self) -> bool:
        numbers = self.store.merge_candidates()
        if numbers:
            self.generation = self.store.commit_merge(self.store.merge(numbers))
            self.check()
        return bool(numbers)

    def check(self) -> None:
        self.generation.check_integrity()
        self.store.check_integrity()


@pytest.fixture
def store(tmp_path: Path) -> OpenStore:
    return OpenStore(tmp_path / "index")


def test_what_was_published_is_opened(store: OpenStore) -> None:
    record = FileRecord(FileState.FAILED, "not a PDF", 3, 4, 5, "d")
    failed = PreparedFile(FileKey("f", "bad.pdf"), record, (), np.zeros((0, EMBEDDER.dimension), np.float32))
    korean = prepared("f", "배송.md", "하나", "two\u2028lines\nand more")
    written = store.publish(korean, failed, prepared("g", "b.md", "three"))
    store.reopen()
    assert store.generation.number == written.number == 1
    assert store.generation.files == written.files
    assert texts(store.generation) == ["three", "two\u2028lines\nand more", "하나"]
    version = store.generation.files[korean.key]
    assert store.generation.read(version.id, 0) == korean.chunks[0]
    assert store.generation.files[failed.key].record == record
    view = store.generation.views["f"][version.segment or 0]
    assert np.array_equal(view.segment.vectors[slice(*view.segment.span(version.id))], korean.vectors)


def test_no_index_is_no_error(store: OpenStore) -> None:
    assert (store.generation.number, store.generation.files, store.store.history()) == (0, {}, [])
    store.check()


def test_a_generation_is_what_it_was(store: OpenStore) -> None:
    first = store.publish(prepared("f", "a.md", "one", "two"), prepared("f", "b.md", "three"))
    second = store.publish(prepared("f", "a.md", "one", "changed"), drop=(FileKey("f", "b.md"),))
    assert texts(first) == ["one", "three", "two"]
    assert texts(second) == ["changed", "one"]
    first.check_integrity()
    for number, expected in ((1, first), (2, second)):
        again = store.store.generation(number)
        assert (texts(again), again.files) == (texts(expected), expected.files)
    with pytest.raises(NotFound, match="generation 3 is not kept: kept are 1 to 2"):
        store.store.generation(3)


def test_the_history_lists_what_changed(store: OpenStore) -> None:
    store.publish(prepared("f", "a.md", "one"), prepared("f", "b.md", "two"))
    store.publish(prepared("f", "a.md", "changed"), prepared("g", "c.md", "new"), drop=(FileKey("f", "b.md"),))
    newest, first = store.store.history()
    assert (first.number, first.added, first.changed, first.removed, first.files, first.chunks) == (1, 2, 0, 0, 2, 2)
    assert (newest.number, newest.added, newest.changed, newest.removed) == (2, 1, 1, 1)
    assert set(newest.told) == {("removed", "f/b.md"), ("changed", "f/a.md"), ("added", "g/c.md")}


def test_an_earlier_generation_comes_back_without_new_rows(store: OpenStore) -> None:
    first = store.publish(prepared("f", "a.md", "one"), prepared("f", "b.md", "two"))
    store.publish(prepared("f", "a.md", "changed"), drop=(FileKey("f", "b.md"),))
    target = store.store.generation(1)
    new_versions = [version for version in target.versions.values() if version.id not in store.generation.versions]
    store.generation = store.store.publish(store.generation, new_versions, (), "rollback:1")
    store.check()
    assert (store.generation.number, texts(store.generation)) == (3, texts(first))
    store.reopen()
    assert texts(store.generation) == ["one", "two"]
    assert texts(store.store.generation(2)) == ["changed"]


def test_so_many_generations_are_kept_and_no_more(tmp_path: Path) -> None:
    store = OpenStore(tmp_path / "index", kept_generations=3)
    for number in range(1, 8):
        store.publish(prepared("f", "a.md", f"text {number}"))
    assert [made.number for made in store.store.history()] == [7, 6, 5]
    assert texts(store.store.generation(5)) == ["text 5"]
    with pytest.raises(NotFound):
        store.store.generation(4)
    while store.merge():
        pass
    assert sum(len(view.segment) for view in store.generation.views["f"].values()) <= 3
    assert texts(store.store.generation(5)) == ["text 5"]


def test_merging_changes_nothing_that_is_found(store: OpenStore) -> None:
    for number in range(30):
        store.publish(prepared("f", f"{number}.md", f"text {number}", "same"), prepared("g", f"{number}.md", "other"))
    before = texts(store.generation)
    assert len(store.generation.views["f"]) == 30
    while store.merge():
        pass
    assert len(store.generation.views["f"]) < 8
    assert (texts(store.generation), store.generation.number) == (before, 30)
    store.reopen()
    assert texts(store.generation) == before
    assert len(list(store.folder.glob("seg-*"))) == sum(len(views) for views in store.generation.views.values())


def test_what_was_stored_before_a_merge_is_published_after_it(store: OpenStore) -> None:
    staged = [version for number in range(8) for version in store.store.stage([prepared("f", f"{number}.md", "x")])]
    while numbers := store.store.merge_candidates():
        store.store.commit_merge(store.store.merge(numbers))
    store.generation = store.store.publish(store.generation, staged, (), "files")
    store.check()
    assert texts(store.generation) == ["x"] * 8


def test_vectors_and_versions_are_found_by_content(store: OpenStore) -> None:
    first = prepared("f", "a.md", "one", "two")
    store.publish(first)
    store.publish(drop=(first.key,))
    known = store.store.vectors([chunk.content_hash for chunk in first.chunks] + ["unknown"])
    assert set(known) == {chunk.content_hash for chunk in first.chunks}
    assert np.array_equal(known[first.chunks[1].content_hash], first.vectors[1])
    again = store.store.find_version(first.key, first.record.digest)
    assert again is not None
    assert again.chunks == 2
    assert store.store.find_version(first.key, "other") is None
    assert store.store.find_version(FileKey("f", "b.md"), first.record.digest) is None


def test_a_passage_is_found_by_its_id(store: OpenStore) -> None:
    first = prepared("f", "a.md", "one", "two")
    store.publish(first)
    store.publish(drop=(first.key,))
    passage = store.store.passage(first.chunks[1].id)
    assert passage is not None
    assert (passage.text, passage.file) == ("two", "a.md")
    assert store.store.passage("nowhere") is None


def test_the_id_of_a_deleted_version_is_not_used_again(store: OpenStore) -> None:
    (first,) = store.store.stage([prepared("f", "a.md", "never")])
    store.store.delete_unpublished()
    store.reopen()
    store.publish(prepared("f", "b.md", "one"))
    assert first.id not in store.generation.versions


def test_unpublished_versions_are_deleted(store: OpenStore) -> None:
    store.publish(prepared("f", "a.md", "one"))
    store.store.stage([prepared("f", "b.md", "two")])
    assert store.store.find_version(FileKey("f", "b.md"), "digest of two") is not None
    store.store.delete_unpublished()
    assert store.store.find_version(FileKey("f", "b.md"), "digest of two") is None
    while store.merge():
        pass
    store.check()


# ── damage ───────────────────────────────────────────────────────────────────────────────────────


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"short")]
)
def test_a_damaged_segment_is_dropped_and_the_rest_serves(store: OpenStore, damage: Callable[[Path], None]) -> None:
    store.publish(prepared("f", "a.md", "one"))
    store.publish(prepared("g", "b.md", "two"))
    damage(store.folder / "seg-1")
    store.reopen()
    store.check()
    assert texts(store.generation) == ["two"]
    store.publish(prepared("f", "a.md", "one"))
    assert texts(store.generation) == ["one", "two"]


def test_files_that_the_catalogue_does_not_name_are_removed(store: OpenStore) -> None:
    store.publish(prepared("f", "a.md", "one"))
    (store.folder / "seg-9").write_bytes(b"left behind by a kill")
    store.reopen()
    assert [path.name for path in store.folder.glob("seg-*")] == ["seg-1"]


def test_the_integrity_check_says_what_is_wrong(store: OpenStore) -> None:
    store.publish(prepared("f", "a.md", "one", "two"))
    with store.store._database.transaction() as db:
        db.conn.execute("DELETE FROM chunks WHERE place = 1")
    with pytest.raises(ValueError, match="do not have the chunks"):
        store.store.check_integrity()


class Killed(BaseException):
    """Stands for the end of the process: nothing but clean-up code may catch it."""


@pytest.mark.parametrize("at", ["write", "open", "publish", "commit_merge"])
@pytest.mark.parametrize("call", range(4))
def test_a_kill_at_any_point_leaves_a_whole_generation(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch, at: str, call: int
) -> None:
    for number in range(4):
        store.publish(prepared("f", f"{number}.md", f"text {number}"))
    before = texts(store.generation)
    calls = []
    owner: type = Segment if at in ("write", "open") else IndexStore
    real = getattr(owner, at)

    def stop(*given: object, **more: object) -> object:
        calls.append(at)
        if len(calls) > call // 2:
            if call % 2:
                real(*given, **more)  # killed after it, or before
            raise Killed
        return real(*given, **more)

    monkeypatch.setattr(owner, at, staticmethod(stop) if at == "open" else stop)

    def change_all() -> None:
        for number in range(24):
            store.publish(prepared("f", f"{number % 4}.md", f"new{number} {number % 4}"))
            store.merge()

    with pytest.raises(Killed):
        change_all()
    monkeypatch.undo()
    store.reopen()
    store.check()
    assert sorted(text.split()[1] for text in texts(store.generation)) == sorted(text.split()[1] for text in before)


# ── anything in any order ────────────────────────────────────────────────────────────────────────


class StoreMachine(RuleBasedStateMachine):
    """A store against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = OpenStore(Path(self.folder.name) / "index", kept_generations=4)
        self.expected: dict[FileKey, tuple[str, ...]] = {}
        self.published: dict[int, dict[FileKey, tuple[str, ...]]] = {0: {}}
        self.count = 0

    files = st.sampled_from([("f", "a"), ("f", "b"), ("f", "c"), ("g", "a")])

    @rule(files=st.lists(files, min_size=1, max_size=3, unique=True), rows=st.integers(0, 3), drop=st.none() | files)
    def change(self, files: list[tuple[str, str]], rows: int, drop: tuple[str, str] | None) -> None:
        self.count += 1
        removed = () if drop is None or drop in files else (FileKey(*drop),)
        new = [f"{self.count} {row}" for row in range(rows)]
        made = [prepared(*position, *new, digest=str(self.count)) for position in files]
        self.store.publish(*made, drop=removed)
        for one in made:
            self.expected[one.key] = tuple(chunk.text for chunk in one.chunks)
        for key in removed:
            self.expected.pop(key, None)
        self.published[self.store.generation.number] = dict(self.expected)

    @rule(position=files, rows=st.integers(1, 2))
    def store_and_forget(self, position: tuple[str, str], rows: int) -> None:
        self.count += 1
        self.store.store.stage([prepared(*position, *(f"never {row}" for row in range(rows)), digest=str(self.count))])
        self.store.store.delete_unpublished()

    @rule()
    def merge(self) -> None:
        self.store.merge()

    @rule()
    def reopen(self) -> None:
        self.store.store.close()
        self.store.reopen()

    @precondition(lambda self: self.store.store.history())
    @rule(pick=st.randoms(use_true_random=False))
    def roll_back(self, pick: random.Random) -> None:
        number = pick.choice([made.number for made in self.store.store.history()])
        target = self.store.store.generation(number)
        new_versions = [one for one in target.versions.values() if one.id not in self.store.generation.versions]
        removed = self.store.generation.files.keys() - target.files.keys()
        current, cause = self.store.generation, f"rollback:{number}"
        self.store.generation = self.store.store.publish(current, new_versions, removed, cause)
        self.expected = dict(self.published[number])
        self.published[self.store.generation.number] = dict(self.expected)

    @invariant()
    def holds_what_was_put(self) -> None:
        self.store.check()
        assert texts(self.store.generation) == sorted(text for rows in self.expected.values() for text in rows)
        assert self.store.generation.files.keys() == self.expected.keys()

    def teardown(self) -> None:
        self.store.store.close()
        self.folder.cleanup()


StoreMachine.TestCase.settings = settings(max_examples=cases(25, 1_000), stateful_step_count=25, deadline=None)
TestStoreMachine = StoreMachine.TestCase

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
from server.retrieval.index.chunker import Piece
from server.retrieval.index.files import FileKey, FileRecord, FileState, identified
from server.retrieval.index.generation import Generation
from server.retrieval.index.segment import Segment
from server.retrieval.index.store import IndexStore, Prepared
from tests.fakes import WordEmbedder

EMBEDDER = WordEmbedder()


def prepared(folder: str, file: str, *texts: str, digest: str = "") -> Prepared:
    pieces = [Piece(text, ("Top", "Sub"), number, number + 1, None) for number, text in enumerate(texts, start=1)]
    key = FileKey(folder, file)
    record = FileRecord(FileState.INDEXED, "", 10, 123, 456, digest or "digest of " + " ".join(texts))
    chunks = identified(key, pieces)
    return Prepared(key, record, chunks, EMBEDDER.embed([chunk.embedded_text for chunk in chunks]))


def texts(generation: Generation) -> list[str]:
    return sorted(
        chunk.text for version in generation.versions.values() for place in range(version.chunks)
        if (chunk := generation.read(version.id, place)) is not None
    )  # fmt: skip


class Store:
    """A store with its newest generation in hand."""

    def __init__(self, folder: Path, kept: int = 20) -> None:
        self.folder, self.kept = folder, kept
        self.reopen()

    def reopen(self) -> None:
        self.store = IndexStore(self.folder, kept=self.kept)
        self.now = self.store.open()

    def put(self, *files: Prepared, drop: tuple[FileKey, ...] = (), cause: str = "files") -> Generation:
        self.now = self.store.publish(self.now, self.store.stage(files), drop, cause)
        self.check()
        return self.now

    def merge(self) -> bool:
        numbers = self.store.crowded()
        if numbers:
            self.now = self.store.take_up(self.store.merged(numbers))
            self.check()
        return bool(numbers)

    def check(self) -> None:
        self.now.check_integrity()
        self.store.check_integrity()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "index")


def test_what_was_published_is_opened(store: Store) -> None:
    record = FileRecord(FileState.FAILED, "not a PDF", 3, 4, 5, "d")
    failed = Prepared(FileKey("f", "bad.pdf"), record, (), np.zeros((0, EMBEDDER.dimension), np.float32))
    korean = prepared("f", "배송.md", "하나", "two\u2028lines\nand more")
    written = store.put(korean, failed, prepared("g", "b.md", "three"))
    store.reopen()
    assert store.now.number == written.number == 1
    assert store.now.files == written.files
    assert texts(store.now) == ["three", "two\u2028lines\nand more", "하나"]
    version = store.now.files[korean.key]
    assert store.now.read(version.id, 0) == korean.chunks[0]
    assert store.now.files[failed.key].record == record
    view = store.now.views["f"][version.segment or 0]
    assert np.array_equal(view.segment.vectors[slice(*view.segment.span(version.id))], korean.vectors)


def test_no_index_is_no_error(store: Store) -> None:
    assert (store.now.number, store.now.files, store.store.history()) == (0, {}, [])
    store.check()


def test_a_generation_is_what_it_was(store: Store) -> None:
    first = store.put(prepared("f", "a.md", "one", "two"), prepared("f", "b.md", "three"))
    second = store.put(prepared("f", "a.md", "one", "changed"), drop=(FileKey("f", "b.md"),))
    assert texts(first) == ["one", "three", "two"]
    assert texts(second) == ["changed", "one"]
    first.check_integrity()
    for number, expected in ((1, first), (2, second)):
        again = store.store.generation(number)
        assert (texts(again), again.files) == (texts(expected), expected.files)
    with pytest.raises(NotFound, match="generation 3 is not kept: kept are 1 to 2"):
        store.store.generation(3)


def test_the_history_tells_what_changed(store: Store) -> None:
    store.put(prepared("f", "a.md", "one"), prepared("f", "b.md", "two"))
    store.put(prepared("f", "a.md", "changed"), prepared("g", "c.md", "new"), drop=(FileKey("f", "b.md"),))
    newest, first = store.store.history()
    assert (first.number, first.added, first.changed, first.removed, first.files, first.chunks) == (1, 2, 0, 0, 2, 2)
    assert (newest.number, newest.added, newest.changed, newest.removed) == (2, 1, 1, 1)
    assert set(newest.told) == {("removed", "f/b.md"), ("changed", "f/a.md"), ("added", "g/c.md")}


def test_an_earlier_generation_comes_back_without_new_rows(store: Store) -> None:
    first = store.put(prepared("f", "a.md", "one"), prepared("f", "b.md", "two"))
    store.put(prepared("f", "a.md", "changed"), drop=(FileKey("f", "b.md"),))
    target = store.store.generation(1)
    born = [version for version in target.versions.values() if version.id not in store.now.versions]
    store.now = store.store.publish(store.now, born, (), "rollback:1")
    store.check()
    assert (store.now.number, texts(store.now)) == (3, texts(first))
    store.reopen()
    assert texts(store.now) == ["one", "two"]
    assert texts(store.store.generation(2)) == ["changed"]


def test_so_many_generations_are_kept_and_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path / "index", kept=3)
    for number in range(1, 8):
        store.put(prepared("f", "a.md", f"text {number}"))
    assert [made.number for made in store.store.history()] == [7, 6, 5]
    assert texts(store.store.generation(5)) == ["text 5"]
    with pytest.raises(NotFound):
        store.store.generation(4)
    while store.merge():
        pass
    assert sum(len(view.segment) for view in store.now.views["f"].values()) <= 3
    assert texts(store.store.generation(5)) == ["text 5"]


def test_merging_changes_nothing_that_is_found(store: Store) -> None:
    for number in range(30):
        store.put(prepared("f", f"{number}.md", f"text {number}", "same"), prepared("g", f"{number}.md", "other"))
    before = texts(store.now)
    assert len(store.now.views["f"]) == 30
    while store.merge():
        pass
    assert len(store.now.views["f"]) < 8
    assert (texts(store.now), store.now.number) == (before, 30)
    store.reopen()
    assert texts(store.now) == before
    assert len(list(store.folder.glob("seg-*"))) == sum(len(views) for views in store.now.views.values())


def test_what_was_stored_before_a_merge_is_published_after_it(store: Store) -> None:
    staged = [version for number in range(8) for version in store.store.stage([prepared("f", f"{number}.md", "x")])]
    while numbers := store.store.crowded():
        store.store.take_up(store.store.merged(numbers))
    store.now = store.store.publish(store.now, staged, (), "files")
    store.check()
    assert texts(store.now) == ["x"] * 8


def test_contents_keep_their_vectors_and_files_are_known_again(store: Store) -> None:
    first = prepared("f", "a.md", "one", "two")
    store.put(first)
    store.put(drop=(first.key,))
    known = store.store.vectors([chunk.content for chunk in first.chunks] + ["unknown"])
    assert set(known) == {chunk.content for chunk in first.chunks}
    assert np.array_equal(known[first.chunks[1].content], first.vectors[1])
    again = store.store.known(first.key, first.record.digest)
    assert again is not None
    assert again.chunks == 2
    assert store.store.known(first.key, "other") is None
    assert store.store.known(FileKey("f", "b.md"), first.record.digest) is None


def test_a_passage_is_found_by_its_id(store: Store) -> None:
    first = prepared("f", "a.md", "one", "two")
    store.put(first)
    store.put(drop=(first.key,))
    passage = store.store.passage(first.chunks[1].id)
    assert passage is not None
    assert (passage.text, passage.file) == ("two", "a.md")
    assert store.store.passage("nowhere") is None


def test_no_version_has_the_number_of_one_that_was_forgotten(store: Store) -> None:
    (first,) = store.store.stage([prepared("f", "a.md", "never")])
    store.store.forget_unborn()
    store.reopen()
    store.put(prepared("f", "b.md", "one"))
    assert first.id not in store.now.versions


def test_what_no_generation_came_for_is_forgotten(store: Store) -> None:
    store.put(prepared("f", "a.md", "one"))
    store.store.stage([prepared("f", "b.md", "two")])
    assert store.store.known(FileKey("f", "b.md"), "digest of two") is not None
    store.store.forget_unborn()
    assert store.store.known(FileKey("f", "b.md"), "digest of two") is None
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
def test_a_damaged_segment_is_forgotten_and_the_rest_serves(store: Store, damage: Callable[[Path], None]) -> None:
    store.put(prepared("f", "a.md", "one"))
    store.put(prepared("g", "b.md", "two"))
    damage(store.folder / "seg-1")
    store.reopen()
    store.check()
    assert texts(store.now) == ["two"]
    store.put(prepared("f", "a.md", "one"))
    assert texts(store.now) == ["one", "two"]


def test_files_that_nothing_names_are_removed(store: Store) -> None:
    store.put(prepared("f", "a.md", "one"))
    (store.folder / "seg-9").write_bytes(b"left behind by a kill")
    store.reopen()
    assert [path.name for path in store.folder.glob("seg-*")] == ["seg-1"]


def test_integrity_tells_what_is_wrong(store: Store) -> None:
    store.put(prepared("f", "a.md", "one", "two"))
    with store.store._database.transaction() as db:
        db.conn.execute("DELETE FROM chunks WHERE place = 1")
    with pytest.raises(ValueError, match="do not have the chunks"):
        store.store.check_integrity()


class Killed(BaseException):
    """Stands for the end of the process: nothing but clean-up code may catch it."""


@pytest.mark.parametrize("at", ["write", "open", "publish", "take_up"])
@pytest.mark.parametrize("call", range(4))
def test_a_kill_at_any_point_leaves_a_whole_generation(
    store: Store, monkeypatch: pytest.MonkeyPatch, at: str, call: int
) -> None:
    for number in range(4):
        store.put(prepared("f", f"{number}.md", f"text {number}"))
    before = texts(store.now)
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
            store.put(prepared("f", f"{number % 4}.md", f"new{number} {number % 4}"))
            store.merge()

    with pytest.raises(Killed):
        change_all()
    monkeypatch.undo()
    store.reopen()
    store.check()
    assert sorted(text.split()[1] for text in texts(store.now)) == sorted(text.split()[1] for text in before)


# ── anything in any order ────────────────────────────────────────────────────────────────────────


class AnyOrder(RuleBasedStateMachine):
    """A store against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name) / "index", kept=4)
        self.model: dict[FileKey, tuple[str, ...]] = {}
        self.past: dict[int, dict[FileKey, tuple[str, ...]]] = {0: {}}
        self.count = 0

    files = st.sampled_from([("f", "a"), ("f", "b"), ("f", "c"), ("g", "a")])

    @rule(files=st.lists(files, min_size=1, max_size=3, unique=True), rows=st.integers(0, 3), drop=st.none() | files)
    def change(self, files: list[tuple[str, str]], rows: int, drop: tuple[str, str] | None) -> None:
        self.count += 1
        dropped = () if drop is None or drop in files else (FileKey(*drop),)
        new = [f"{self.count} {row}" for row in range(rows)]
        made = [prepared(*place, *new, digest=str(self.count)) for place in files]
        self.store.put(*made, drop=dropped)
        for one in made:
            self.model[one.key] = tuple(chunk.text for chunk in one.chunks)
        for key in dropped:
            self.model.pop(key, None)
        self.past[self.store.now.number] = dict(self.model)

    @rule(place=files, rows=st.integers(1, 2))
    def store_and_forget(self, place: tuple[str, str], rows: int) -> None:
        self.count += 1
        self.store.store.stage([prepared(*place, *(f"never {row}" for row in range(rows)), digest=str(self.count))])
        self.store.store.forget_unborn()

    @rule()
    def merge(self) -> None:
        self.store.merge()

    @rule()
    def reopen(self) -> None:
        self.store.store.close()
        self.store.reopen()

    @precondition(lambda self: self.store.store.history())
    @rule(pick=st.randoms(use_true_random=False))
    def go_back(self, pick: random.Random) -> None:
        number = pick.choice([made.number for made in self.store.store.history()])
        target = self.store.store.generation(number)
        born = [one for one in target.versions.values() if one.id not in self.store.now.versions]
        dropped = self.store.now.files.keys() - target.files.keys()
        self.store.now = self.store.store.publish(self.store.now, born, dropped, f"rollback:{number}")
        self.model = dict(self.past[number])
        self.past[self.store.now.number] = dict(self.model)

    @invariant()
    def holds_what_was_put(self) -> None:
        self.store.check()
        assert texts(self.store.now) == sorted(text for rows in self.model.values() for text in rows)
        assert self.store.now.files.keys() == self.model.keys()

    def teardown(self) -> None:
        self.store.store.close()
        self.folder.cleanup()


AnyOrder.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.retrieval import storage
from server.retrieval.chunker import Piece
from server.retrieval.generation import FileKey, FileRecord, FileState, Generation, Segment, identified
from server.retrieval.lexical import Matches
from server.retrieval.storage import IndexStore
from tests.fakes import WordEmbedder

EMBEDDER = WordEmbedder()
DIMENSION = EMBEDDER.dimension
MADE_BY = {"embedder": "words-1", "chunk_tokens": 160}


def segment(folder: str, file: str, *texts: str) -> Segment:
    pieces = [Piece(text, ("Top", "Sub"), number, number + 1, None) for number, text in enumerate(texts, start=1)]
    key = FileKey(folder, file)
    record = FileRecord(FileState.INDEXED, "", 10, 123, 456, "digest-of-" + file)
    return Segment.build(key, record, identified(key, pieces), EMBEDDER.embed(list(texts)))


def generation(number: int, *segments: Segment) -> Generation:
    return Generation.build(number, DIMENSION, segments or (segment("f", "a.md", f"text of {number}"),))


def texts(opened: Generation | None) -> list[str]:
    assert opened is not None
    return [chunk.text for _, chunk in opened.rows]


@pytest.fixture
def store(tmp_path: Path) -> IndexStore:
    return IndexStore(tmp_path / "index", MADE_BY)


# ── generations in memory ────────────────────────────────────────────────────────────────────────


def test_a_folder_is_one_range_of_rows() -> None:
    built = generation(
        1, segment("b", "x", "1", "2"), segment("a", "z", "3"), segment("b", "a", "4"), segment("c", "n")
    )
    assert [(key.folder, chunk.text) for key, chunk in built.rows] == [("a", "3"), ("b", "4"), ("b", "1"), ("b", "2")]
    assert (built.span("a"), built.span("b"), built.span("nowhere")) == ((0, 1), (1, 4), (0, 0))
    assert np.allclose(built.index.reconstruct(2), EMBEDDER.embed(["1"])[0])
    built.check_integrity()


def test_ids_are_stable_and_of_their_own() -> None:
    pieces = [Piece("same", (), 1, 1, None), Piece("same", (), 2, 2, None), Piece("other", (), 3, 3, None)]
    first = identified(FileKey("f", "a.md"), pieces)
    assert [chunk.id for chunk in first] == [chunk.id for chunk in identified(FileKey("f", "a.md"), pieces)]
    assert len({chunk.id for chunk in first}) == 3
    assert first[0].content == first[1].content
    assert first[0].id != identified(FileKey("f", "b.md"), pieces)[0].id
    moved = identified(FileKey("f", "a.md"), [pieces[2], pieces[0]])
    assert {chunk.id for chunk in moved} < {chunk.id for chunk in first}


def test_a_changed_file_costs_its_lexical_part_only() -> None:
    files = [segment("f", f"{number}.md", f"text {number}") for number in range(500)]
    before = generation(1, *files)
    files[7] = segment("f", "7.md", "melon")
    after = Generation.build(2, DIMENSION, files, before)
    old, new = before.lexical("f"), after.lexical("f")
    assert len(old) > 2
    assert sum(one is not other for one, other in zip(old, new, strict=True)) == 1
    assert sum(len(part.lengths) for part in new) == 500
    for row in (0, 7, 250, 499):
        assert _texts_with(after, str(row) if row != 7 else "melon") == ([f"text {row}"] if row != 7 else ["melon"])


def _texts_with(built: Generation, term: str) -> list[str]:
    rows = Matches(built.lexical("f"), [term]).rows(term)
    return [built.rows[row][1].text for row in rows]


def test_integrity_tells_missing_rows() -> None:
    broken = segment("f", "a.md", "one", "two")
    object.__setattr__(broken, "vectors", broken.vectors[:1])
    with pytest.raises(ValueError, match="chunks"):
        generation(1, broken).check_integrity()


# ── on disk ──────────────────────────────────────────────────────────────────────────────────────


def test_what_was_written_is_opened(store: IndexStore) -> None:
    record = FileRecord(FileState.FAILED, "not a PDF", 3, 4, 5, "d")
    failed = Segment.without_text(FileKey("f", "bad.pdf"), record, DIMENSION)
    korean = segment("f", "배송.md", "하나", "two\u2028lines\nand more")
    written = generation(7, korean, failed, segment("g", "b.md", "three"))
    store.write(written)
    opened = store.open(DIMENSION)
    assert opened is not None
    assert opened.number == 7
    assert opened.rows == written.rows
    assert {key: one.record for key, one in opened.segments.items()} == {
        key: one.record for key, one in written.segments.items()
    }
    assert opened.span("g") == written.span("g")
    assert np.array_equal(opened.index.reconstruct_n(0, 3), written.index.reconstruct_n(0, 3))


def test_an_empty_index_is_opened(store: IndexStore) -> None:
    store.write(Generation.build(1, DIMENSION, ()))
    assert texts(store.open(DIMENSION)) == []


def test_no_index_is_no_error(store: IndexStore) -> None:
    assert store.open(DIMENSION) is None
    assert store.next_number() == 1


def test_two_generations_are_kept(store: IndexStore, tmp_path: Path) -> None:
    for number in range(1, 6):
        assert store.next_number() == number
        store.write(generation(number))
    assert {path.name for path in (tmp_path / "index").iterdir()} == {"gen-4", "gen-5", "CURRENT"}


def damage_vectors(folder: Path) -> None:
    data = bytearray((folder / "faiss.index").read_bytes())
    data[-5] ^= 0xFF
    (folder / "faiss.index").write_bytes(data)


def cut_chunks(folder: Path) -> None:
    (folder / "chunks.jsonl").write_bytes((folder / "chunks.jsonl").read_bytes()[:-9])


def change_text(folder: Path) -> None:
    path = folder / "chunks.jsonl"
    path.write_text(path.read_text().replace("text of", "lies of"))


def empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("")


def wrong_shape(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2]")


def count_wrong(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["chunks"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))


def remove_file(folder: Path) -> None:
    (folder / "faiss.index").unlink()


@pytest.mark.parametrize(
    "damage",
    [damage_vectors, cut_chunks, change_text, empty_manifest, wrong_shape, count_wrong, remove_file, shutil.rmtree],
)
def test_a_damaged_generation_gives_way_to_the_one_before(
    store: IndexStore, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store.write(generation(1))
    store.write(generation(2))
    damage(tmp_path / "index" / "gen-2")
    assert texts(store.open(DIMENSION)) == ["text of 1"]


def test_all_damaged_is_none(store: IndexStore, tmp_path: Path) -> None:
    store.write(generation(1))
    damage_vectors(tmp_path / "index" / "gen-1")
    assert store.open(DIMENSION) is None


@pytest.mark.parametrize("current", [None, "", "gen-9", "../elsewhere", "\udcff"])
def test_a_lost_pointer_costs_nothing(store: IndexStore, tmp_path: Path, current: str | None) -> None:
    store.write(generation(1))
    store.write(generation(2))
    pointer = tmp_path / "index" / "CURRENT"
    if current is None:
        pointer.unlink()
    else:
        pointer.write_bytes(current.encode("utf-8", "surrogateescape"))
    assert texts(store.open(DIMENSION)) == ["text of 2"]


def test_the_pointer_decides_over_the_number(store: IndexStore, tmp_path: Path) -> None:
    store.write(generation(1))
    store.write(generation(2))
    (tmp_path / "index" / "CURRENT").write_text("gen-1")  # killed between the rename and the new pointer
    assert texts(store.open(DIMENSION)) == ["text of 1"]


def test_another_embedder_or_chunker_is_not_opened(store: IndexStore, tmp_path: Path) -> None:
    store.write(generation(1))
    for other in ({"embedder": "words-2"}, {"chunk_tokens": 80}):
        assert IndexStore(tmp_path / "index", {**MADE_BY, **other}).open(DIMENSION) is None
    assert store.open(DIMENSION + 1) is None


class Killed(BaseException):
    """Stands for the end of the process: nothing but clean-up code may catch it."""


@pytest.mark.parametrize("step", ["_sync_file", "_sync_folder", "_digest"])
@pytest.mark.parametrize("call", range(5))
def test_a_kill_at_any_point_leaves_a_whole_generation(
    store: IndexStore, monkeypatch: pytest.MonkeyPatch, step: str, call: int
) -> None:
    store.write(generation(1))
    real = getattr(storage, step)
    calls = []

    def stop(path: Path) -> object:
        calls.append(path)
        if len(calls) > call:
            raise Killed
        return real(path)

    monkeypatch.setattr(storage, step, stop)
    try:
        store.write(generation(2))
        finished = True
    except Killed:
        finished = False
    monkeypatch.undo()
    assert texts(store.open(DIMENSION)) in ([["text of 2"]] if finished else [["text of 1"], ["text of 2"]])
    store.write(generation(3))
    assert texts(store.open(DIMENSION)) == ["text of 3"]


def test_files_reach_the_disk_before_their_names(
    store: IndexStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that survives a power cut must not name a file whose bytes did not."""
    events: list[str] = []
    rename, replace = Path.rename, Path.replace
    monkeypatch.setattr(storage, "_sync_file", lambda path: events.append(f"sync {path.name}"))
    monkeypatch.setattr(storage, "_sync_folder", lambda path: events.append(f"sync {path.name[:8]}"))
    monkeypatch.setattr(Path, "rename", lambda self, to: (events.append("rename"), rename(self, to))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (events.append("point"), replace(self, to))[1])
    store.write(generation(1))
    assert events == [
        "sync faiss.index", "sync chunks.jsonl", "sync manifest.json", "sync building", "rename", "sync index",
        "sync CURRENT.new", "point", "sync index",
    ]  # fmt: skip


def test_what_a_kill_left_half_written_is_cleared(store: IndexStore, tmp_path: Path) -> None:
    half, running = tmp_path / "index" / "building-old", tmp_path / "index" / "building-now"
    for folder in (half, running):
        folder.mkdir(parents=True)
        (folder / "chunks.jsonl").write_text("[")
    os.utime(half, (0, 0))
    assert store.open(DIMENSION) is None
    store.write(generation(1))
    assert not half.exists()
    assert running.exists()  # perhaps another process's

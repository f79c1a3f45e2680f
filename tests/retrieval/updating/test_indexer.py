from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.relations import TextRole
from server.retrieval.index.files import FileKey, FileState
from server.retrieval.index.store import IndexStore
from server.retrieval.loaders.document import MAX_OMITTED, MAX_OMITTED_CHARS, DocumentBuilder
from server.retrieval.updating import indexer as module
from server.retrieval.updating.indexer import Indexer, IndexingResult, IndexingStopped, Plan
from server.retrieval.updating.reader import Reader
from server.retrieval.updating.scanner import ScannedFile, scan
from server.retrieval.updating.worker import pack_document, unpack_document
from tests.fakes import WordEmbedder


class IndexerHarness:
    """An indexer over a folder, one step at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root / "knowledge"
        self.root.mkdir()
        self.embedder = WordEmbedder()
        self.store = IndexStore(root / "index")
        self.indexer = Indexer(self.store, self.embedder, 40, Reader(60, 1024))
        self.generation = self.store.open()

    def put(self, name: str, text: str | bytes, *, age: float = 10) -> Path:
        """Writes a file that was last changed `age` seconds ago."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(path, (time.time() - age,) * 2)
        return path

    def plan(self) -> Plan:
        return self.indexer.plan(self.generation, scan(self.root)[0])

    def step(self, plan: Plan | None = None, *, should_stop: Callable[[], bool] = lambda: False) -> IndexingResult:
        """Indexes what has changed; publishes a generation if anything did."""
        plan = plan or self.plan()
        result, queue = IndexingResult(prepared=list(plan.rejected)), deque(plan.to_read)

        def pause() -> None:
            if should_stop():
                raise IndexingStopped

        self.indexer._pause = pause
        try:
            while queue:
                self.indexer.index_batch(self.generation, queue, result)
        except IndexingStopped:
            self.indexer._pause = lambda: None
            self.indexer.store(result)
            return result
        self.indexer.store(result)
        removed = plan.removed | (result.vanished & self.generation.files.keys())
        if result.new_versions or removed:
            self.generation = self.store.publish(self.generation, result.new_versions, removed, "files")
        self.generation = self.store.touch(self.generation, result.touched)
        self.generation.check_integrity()
        self.store.check_integrity()
        return result

    def state(self, folder: str, file: str) -> tuple[FileState, str]:
        record = self.generation.files[FileKey(folder, file)].record
        return record.state, record.reason

    def texts(self) -> list[str]:
        return [chunk.text for _, chunk in self.rows()]

    def rows(self):
        found = []
        for key, version in sorted(self.generation.files.items()):
            for position in range(version.chunks):
                chunk = self.generation.read(version.id, position)
                assert chunk is not None
                found.append((key, chunk))
        return found


@pytest.fixture
def harness(tmp_path: Path) -> IndexerHarness:
    return IndexerHarness(tmp_path)


def test_only_new_content_is_embedded(harness: IndexerHarness) -> None:
    harness.put("f/a.md", "# One\n\nfirst\n\n# Two\n\nsecond\n")
    harness.step()
    assert harness.embedder.embedded == 2
    harness.put("f/a.md", "# One\n\nfirst\n\n# Two\n\nchanged\n", age=5)
    harness.step()
    assert harness.embedder.embedded == 3
    assert harness.texts() == ["first", "changed"]


def test_moved_and_copied_files_are_not_embedded_again(harness: IndexerHarness) -> None:
    path = harness.put("f/a.md", "# One\n\nfirst\n")
    harness.step()
    path.rename(harness.root / "f" / "renamed.md")
    harness.put("g/copy.md", "# One\n\nfirst\n")
    harness.step()
    assert harness.embedder.embedded == 1
    assert [key.file for key, _ in harness.rows()] == ["renamed.md", "copy.md"]


def test_the_same_text_twice_in_one_step_is_embedded_once(harness: IndexerHarness) -> None:
    harness.put("f/a.txt", "same")
    harness.put("f/b.txt", "same")
    harness.step()
    assert harness.embedder.embedded == 1
    assert harness.texts() == ["same", "same"]


def test_lines_that_moved_get_new_numbers_without_embedding(harness: IndexerHarness) -> None:
    harness.put("f/a.md", "# One\n\nfirst\n")
    harness.step()
    harness.put("f/a.md", "\n\n\n# One\n\nfirst\n", age=5)
    harness.step()
    assert harness.rows()[0][1].line_start == 6
    assert harness.embedder.embedded == 1


def test_no_change_is_no_generation_and_no_reading(harness: IndexerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.put("f/a.txt", "text")
    harness.step()
    monkeypatch.setattr(module, "_read", lambda file: pytest.fail(f"read {file}"))
    harness.step()
    assert harness.generation.number == 1


def test_a_touched_file_is_read_but_makes_no_generation(harness: IndexerHarness) -> None:
    harness.put("f/a.txt", "text")
    harness.step()
    harness.put("f/a.txt", "text", age=5)
    harness.step()
    assert harness.generation.number == 1
    assert harness.plan().to_read == ()
    harness.generation = IndexStore(harness.root.parent / "index").open()
    assert harness.plan().to_read == ()  # the new time is kept, too


def test_a_change_within_the_clocks_tick_is_seen(harness: IndexerHarness) -> None:
    path = harness.put("f/a.txt", "text", age=0)
    harness.step()
    times = path.stat()
    path.write_text("TEXT")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time
    assert harness.plan().changed == frozenset()
    harness.step()
    assert harness.texts() == ["TEXT"]


def test_deleted_files_leave(harness: IndexerHarness) -> None:
    path = harness.put("f/a.txt", "one")
    harness.put("f/b.txt", "two")
    harness.step()
    path.unlink()
    harness.step()
    assert harness.texts() == ["two"]
    (harness.root / "f" / "b.txt").unlink()
    harness.step()
    assert harness.generation.number == 3
    assert harness.texts() == []


def test_bad_files_are_reported_and_the_rest_is_indexed(harness: IndexerHarness) -> None:
    harness.put("f/zero.md", "")
    harness.put("f/blank.md", " \n\n ")
    harness.put("f/fake.pdf", "not at all")
    harness.put("f/bad.json", "{")
    harness.put("f/noise.txt", bytes(range(256)) * 4)
    harness.put("f/tool.exe", "MZ")
    harness.put("f/good.md", "good")
    harness.step()
    assert harness.texts() == ["good"]
    assert harness.state("f", "good.md") == (FileState.INDEXED, "")
    expected = {
        "zero.md": (FileState.EMPTY, "0 bytes"),
        "blank.md": (FileState.EMPTY, "no text"),
        "fake.pdf": (FileState.FAILED, "not a PDF"),
        "bad.json": (FileState.FAILED, "not valid JSON"),
        "noise.txt": (FileState.FAILED, "save the file as UTF-8"),
        "tool.exe": (FileState.UNSUPPORTED, ".exe is not read"),
    }
    for file, (state, reason) in expected.items():
        assert harness.state("f", file)[0] is state
        assert reason in harness.state("f", file)[1]
    harness.step()
    assert harness.generation.number == 1  # known to be bad: not tried again
    harness.put("f/bad.json", '{"now": "good"}', age=5)
    harness.step()
    assert harness.state("f", "bad.json") == (FileState.INDEXED, "")


def test_a_file_that_vanishes_before_it_is_read_is_no_error(
    harness: IndexerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.put("f/a.txt", "one")
    harness.step()
    path = harness.put("f/a.txt", "changed", age=5)
    harness.put("f/b.txt", "two two two two")
    plan = harness.plan()
    path.unlink()
    assert harness.step(plan).retry == []
    assert harness.texts() == ["two two two two"]


def test_a_file_that_changes_while_read_keeps_its_old_text(
    harness: IndexerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = harness.put("f/a.txt", "old")
    harness.step()
    harness.put("f/a.txt", "half", age=5)
    plan = harness.plan()
    path.write_text("half and the other half")
    assert [file.key.file for file in harness.step(plan).retry] == ["a.txt"]
    assert (harness.texts(), harness.generation.number) == (["old"], 1)
    harness.step()
    assert harness.texts() == ["half and the other half"]


def test_an_unreadable_file_is_tried_again(harness: IndexerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.put("f/a.txt", "text")
    real = module._read

    def closed(file: ScannedFile) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_read", closed)
    harness.step()
    assert harness.state("f", "a.txt") == (FileState.FAILED, "cannot be read: Permission denied")
    harness.step()
    assert harness.generation.number == 1
    monkeypatch.setattr(module, "_read", real)
    harness.step()
    assert harness.texts() == ["text"]


def test_small_files_come_first(harness: IndexerHarness) -> None:
    for size in (3, 1, 2):
        harness.put(f"f/{size}.txt", "word " * size)
    assert [file.key.file for file in harness.plan().to_read] == ["1.txt", "2.txt", "3.txt"]


def test_what_was_read_before_a_stop_is_not_embedded_again(
    harness: IndexerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_TEXTS", 2)
    monkeypatch.setattr(module, "PAUSE_S", 0)
    for number in range(8):
        harness.put(f"f/{number}.txt", f"text {number}")
    harness.step(should_stop=lambda: harness.embedder.embedded >= 4)
    assert (harness.generation.number, harness.embedder.embedded) == (0, 4)
    harness.store.close()
    harness.store = IndexStore(harness.root.parent / "index")
    harness.indexer = Indexer(harness.store, harness.embedder, 40, Reader(60, 1024))
    harness.generation = harness.store.open()
    harness.step()
    assert harness.embedder.embedded == 8
    assert len(harness.texts()) == 8


def test_stopping_inside_a_large_file_keeps_its_old_text(
    harness: IndexerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_TEXTS", 2)
    monkeypatch.setattr(module, "PAUSE_S", 0)
    harness.put("f/a.csv", "n\nold\n")
    harness.step()
    harness.put("f/a.csv", "n\n" + "".join(f"row {number}\n" for number in range(20)), age=5)
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > 4

    harness.step(should_stop=should_stop)
    assert harness.texts() == ["n: old"]
    harness.step()
    assert len(harness.texts()) == 20


def test_a_stop_in_the_middle_of_a_large_file_loses_nothing_that_was_embedded(
    harness: IndexerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0)
    monkeypatch.setattr(module, "KEPT_TEXTS", 8)
    harness.put("f/a.csv", "n\n" + "".join(f"row {number}\n" for number in range(30)))
    harness.step(should_stop=lambda: harness.embedder.embedded >= 20)
    assert (harness.texts(), harness.embedder.embedded) == ([], 20)
    harness.store.close()
    harness.store = IndexStore(harness.root.parent / "index")
    harness.indexer = Indexer(harness.store, harness.embedder, 40, Reader(60, 1024))
    harness.generation = harness.store.open()
    harness.step()
    assert (len(harness.texts()), harness.embedder.embedded) == (30, 30)
    assert harness.store._query("SELECT count(*) FROM embedded") == [(0,)]


def test_a_file_that_changes_or_goes_while_it_is_embedded_is_given_up(
    harness: IndexerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0)
    harness.put("f/a.csv", "n\n" + "".join(f"row {number}\n" for number in range(400)))
    plan = harness.plan()
    result = IndexingResult()

    def change() -> None:
        if harness.embedder.embedded:
            result.discard({FileKey("f", "a.csv")})

    harness.indexer._pause = change
    harness.indexer.index_batch(harness.generation, deque(plan.to_read), result)
    assert harness.embedder.embedded == module.SLICE_TEXTS
    assert (result.prepared, result.in_hand, harness.indexer.unfinished_bytes) == ([], {}, 0)


def test_content_that_changed_under_the_same_size_and_time_is_seen(harness: IndexerHarness) -> None:
    path = harness.put("f/a.txt", "room 204")
    harness.step()
    before = path.stat()
    path.write_text("room 317")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    harness.step()
    assert harness.texts() == ["room 317"]


def test_a_file_that_comes_back_as_it_was_is_not_embedded_again(harness: IndexerHarness) -> None:
    path = harness.put("f/a.txt", "one")
    harness.step()
    path.unlink()
    harness.step()
    harness.put("f/a.txt", "one", age=5)
    harness.step()
    assert (harness.texts(), harness.embedder.embedded, harness.generation.number) == (["one"], 1, 3)
    assert harness.plan().to_read == ()


def test_chunks_of_a_foreign_language_keep_their_sense(harness: IndexerHarness) -> None:
    class Shredder(WordEmbedder):
        """Sees three tokens in each letter, as an English vocabulary does in Korean."""

        def count(self, text: str) -> int:
            return 3 * len(text)

        def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
            return super().embed(texts, role)

    harness.indexer = Indexer(harness.store, Shredder(), 40, Reader(60, 1024))
    text = "상품을 받은 날부터 사십오일 안에 반품을 신청하실 수 있습니다."
    harness.put("f/a.txt", text)
    harness.step()
    assert harness.texts() == [text]


def test_a_files_state_says_what_was_left_out(harness: IndexerHarness) -> None:
    mail = (
        b"From: a@b.c\nSubject: Plan\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
        b"--x\nContent-Type: text/plain\n\nThe plan is attached.\n"
        b"--x\nContent-Type: application/zip; name=plan.zip\nContent-Disposition: attachment; filename=plan.zip\n\nPK\n"
        b"--x--\n"
    )
    harness.put("f/a.eml", mail)
    harness.step()
    record = harness.generation.files[FileKey("f", "a.eml")].record
    assert record.state is FileState.INDEXED
    assert "plan.zip" in record.reason


def test_what_is_said_to_be_left_out_is_said_once_and_bounded() -> None:
    builder = DocumentBuilder()
    for number in range(50):
        builder.omit("a picture")
        builder.omit(f"thing {number} " + "x" * 1_000)
    omitted = builder.build().omitted
    assert omitted[0] == "a picture"
    assert len(omitted) == MAX_OMITTED
    assert max(map(len, omitted)) == MAX_OMITTED_CHARS
    document = unpack_document(json.loads(json.dumps(pack_document(builder.build()))))
    assert document.omitted == omitted

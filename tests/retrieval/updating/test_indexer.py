from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.retrieval.index.files import FileKey, FileState
from server.retrieval.index.store import IndexStore
from server.retrieval.updating import indexer as module
from server.retrieval.updating.indexer import Indexer, Plan, Stopped, Taken
from server.retrieval.updating.reader import Reader
from server.retrieval.updating.scanner import Found, scan
from tests.fakes import WordEmbedder


class Bench:
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

    def step(self, plan: Plan | None = None, *, stopping: Callable[[], bool] = lambda: False) -> Taken:
        """Takes in what has changed; a generation comes of it if anything did."""
        plan = plan or self.plan()
        taken, waiting = Taken(cut=list(plan.told)), deque(plan.to_read)
        try:
            while waiting:
                self.indexer.take(self.generation, waiting, taken, stopping)
        except Stopped:
            self.indexer.store(taken)
            return taken
        self.indexer.store(taken)
        dropped = plan.dropped | (taken.vanished & self.generation.files.keys())
        if taken.born or dropped:
            self.generation = self.store.publish(self.generation, taken.born, dropped, "files")
        self.generation = self.store.touch(self.generation, taken.touched)
        self.generation.check_integrity()
        self.store.check_integrity()
        return taken

    def state(self, folder: str, file: str) -> tuple[FileState, str]:
        record = self.generation.files[FileKey(folder, file)].record
        return record.state, record.reason

    def texts(self) -> list[str]:
        return [chunk.text for _, chunk in self.rows()]

    def rows(self):
        found = []
        for key, version in sorted(self.generation.files.items()):
            for place in range(version.chunks):
                chunk = self.generation.read(version.id, place)
                assert chunk is not None
                found.append((key, chunk))
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_only_new_content_is_embedded(bench: Bench) -> None:
    bench.put("f/a.md", "# One\n\nfirst\n\n# Two\n\nsecond\n")
    bench.step()
    assert bench.embedder.embedded == 2
    bench.put("f/a.md", "# One\n\nfirst\n\n# Two\n\nchanged\n", age=5)
    bench.step()
    assert bench.embedder.embedded == 3
    assert bench.texts() == ["first", "changed"]


def test_moved_and_copied_files_are_not_embedded_again(bench: Bench) -> None:
    path = bench.put("f/a.md", "# One\n\nfirst\n")
    bench.step()
    path.rename(bench.root / "f" / "renamed.md")
    bench.put("g/copy.md", "# One\n\nfirst\n")
    bench.step()
    assert bench.embedder.embedded == 1
    assert [key.file for key, _ in bench.rows()] == ["renamed.md", "copy.md"]


def test_the_same_text_twice_in_one_step_is_embedded_once(bench: Bench) -> None:
    bench.put("f/a.txt", "same")
    bench.put("f/b.txt", "same")
    bench.step()
    assert bench.embedder.embedded == 1
    assert bench.texts() == ["same", "same"]


def test_lines_that_moved_are_told_anew_without_embedding(bench: Bench) -> None:
    bench.put("f/a.md", "# One\n\nfirst\n")
    bench.step()
    bench.put("f/a.md", "\n\n\n# One\n\nfirst\n", age=5)
    bench.step()
    assert bench.rows()[0][1].line_start == 6
    assert bench.embedder.embedded == 1


def test_no_change_is_no_generation_and_no_reading(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("f/a.txt", "text")
    bench.step()
    monkeypatch.setattr(module, "_read", lambda file: pytest.fail(f"read {file}"))
    bench.step()
    assert bench.generation.number == 1


def test_a_touched_file_is_read_but_makes_no_generation(bench: Bench) -> None:
    bench.put("f/a.txt", "text")
    bench.step()
    bench.put("f/a.txt", "text", age=5)
    bench.step()
    assert bench.generation.number == 1
    assert bench.plan().to_read == ()
    bench.generation = IndexStore(bench.root.parent / "index").open()
    assert bench.plan().to_read == ()  # the new time is kept, too


def test_a_change_within_the_clocks_tick_is_seen(bench: Bench) -> None:
    path = bench.put("f/a.txt", "text", age=0)
    bench.step()
    times = path.stat()
    path.write_text("TEXT")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time
    assert bench.plan().news == frozenset()
    bench.step()
    assert bench.texts() == ["TEXT"]


def test_deleted_files_leave(bench: Bench) -> None:
    path = bench.put("f/a.txt", "one")
    bench.put("f/b.txt", "two")
    bench.step()
    path.unlink()
    bench.step()
    assert bench.texts() == ["two"]
    (bench.root / "f" / "b.txt").unlink()
    bench.step()
    assert bench.generation.number == 3
    assert bench.texts() == []


def test_bad_files_are_reported_and_the_rest_is_indexed(bench: Bench) -> None:
    bench.put("f/zero.md", "")
    bench.put("f/blank.md", " \n\n ")
    bench.put("f/fake.pdf", "not at all")
    bench.put("f/bad.json", "{")
    bench.put("f/noise.txt", bytes(range(256)) * 4)
    bench.put("f/tool.exe", "MZ")
    bench.put("f/good.md", "good")
    bench.step()
    assert bench.texts() == ["good"]
    assert bench.state("f", "good.md") == (FileState.INDEXED, "")
    expected = {
        "zero.md": (FileState.EMPTY, "0 bytes"),
        "blank.md": (FileState.EMPTY, "no text"),
        "fake.pdf": (FileState.FAILED, "not a PDF"),
        "bad.json": (FileState.FAILED, "not valid JSON"),
        "noise.txt": (FileState.FAILED, "save the file as UTF-8"),
        "tool.exe": (FileState.UNSUPPORTED, ".exe is not read"),
    }
    for file, (state, reason) in expected.items():
        assert bench.state("f", file)[0] is state
        assert reason in bench.state("f", file)[1]
    bench.step()
    assert bench.generation.number == 1  # known to be bad: not tried again
    bench.put("f/bad.json", '{"now": "good"}', age=5)
    bench.step()
    assert bench.state("f", "bad.json") == (FileState.INDEXED, "")


def test_a_file_that_vanishes_before_its_turn_is_no_trouble(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("f/a.txt", "one")
    bench.step()
    path = bench.put("f/a.txt", "changed", age=5)
    bench.put("f/b.txt", "two two two two")
    plan = bench.plan()
    path.unlink()
    assert bench.step(plan).retry == []
    assert bench.texts() == ["two two two two"]


def test_a_file_that_changes_while_read_keeps_its_old_text(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.put("f/a.txt", "old")
    bench.step()
    bench.put("f/a.txt", "half", age=5)
    plan = bench.plan()
    path.write_text("half and the other half")
    assert [file.key.file for file in bench.step(plan).retry] == ["a.txt"]
    assert (bench.texts(), bench.generation.number) == (["old"], 1)
    bench.step()
    assert bench.texts() == ["half and the other half"]


def test_an_unreadable_file_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("f/a.txt", "text")
    real = module._read

    def closed(file: Found) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_read", closed)
    bench.step()
    assert bench.state("f", "a.txt") == (FileState.FAILED, "cannot be read: Permission denied")
    bench.step()
    assert bench.generation.number == 1
    monkeypatch.setattr(module, "_read", real)
    bench.step()
    assert bench.texts() == ["text"]


def test_small_files_come_first(bench: Bench) -> None:
    for size in (3, 1, 2):
        bench.put(f"f/{size}.txt", "word " * size)
    assert [file.key.file for file in bench.plan().to_read] == ["1.txt", "2.txt", "3.txt"]


def test_what_was_read_before_a_stop_is_not_embedded_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 2)
    for number in range(8):
        bench.put(f"f/{number}.txt", f"text {number}")
    ends = iter([False, False])
    bench.step(stopping=lambda: next(ends, True))
    assert (bench.generation.number, bench.embedder.embedded) == (0, 4)
    bench.store.close()
    bench.store = IndexStore(bench.root.parent / "index")
    bench.indexer = Indexer(bench.store, bench.embedder, 40, Reader(60, 1024))
    bench.generation = bench.store.open()
    bench.step()
    assert bench.embedder.embedded == 8
    assert len(bench.texts()) == 8


def test_stopping_inside_a_large_file_keeps_its_old_text(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 2)
    bench.put("f/a.csv", "n\nold\n")
    bench.step()
    bench.put("f/a.csv", "n\n" + "".join(f"row {number}\n" for number in range(20)), age=5)
    asked: list[int] = []

    def stopping() -> bool:
        asked.append(1)
        return len(asked) > 4

    bench.step(stopping=stopping)
    assert bench.texts() == ["n: old"]
    bench.step()
    assert len(bench.texts()) == 20


def test_a_file_that_comes_back_as_it_was_is_not_embedded_again(bench: Bench) -> None:
    path = bench.put("f/a.txt", "one")
    bench.step()
    path.unlink()
    bench.step()
    bench.put("f/a.txt", "one", age=5)
    bench.step()
    assert (bench.texts(), bench.embedder.embedded, bench.generation.number) == (["one"], 1, 3)
    assert bench.plan().to_read == ()


def test_chunks_of_a_foreign_language_keep_their_sense(bench: Bench) -> None:
    class Shredder(WordEmbedder):
        """Sees three tokens in each letter, as an English vocabulary does in Korean."""

        def count(self, text: str) -> int:
            return 3 * len(text)

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return super().embed(texts)

    bench.indexer = Indexer(bench.store, Shredder(), 40, Reader(60, 1024))
    text = "상품을 받은 날부터 사십오일 안에 반품을 신청하실 수 있습니다."
    bench.put("f/a.txt", text)
    bench.step()
    assert bench.texts() == [text]

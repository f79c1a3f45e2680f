from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.retrieval import indexer as module
from server.retrieval.generation import FileKey, FileState, Generation
from server.retrieval.indexer import Indexer, Step
from server.retrieval.scanner import Found, scan
from tests.fakes import WordEmbedder


class Bench:
    """An indexer over a folder, one step at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.embedder = WordEmbedder()
        self.indexer = Indexer(self.embedder, 40)
        self.generation = Generation.build(0, self.embedder.dimension, ())

    def put(self, name: str, text: str | bytes, *, age: float = 10) -> Path:
        """Writes a file that was last changed `age` seconds ago."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(path, (time.time() - age,) * 2)
        return path

    def step(self, *, seconds: float = 60, stopping: Callable[[], bool] = lambda: False) -> Step:
        plan = self.indexer.plan(self.generation, scan(self.root)[0])
        step = self.indexer.advance(
            self.generation, plan, self.generation.number + 1, deadline=time.monotonic() + seconds, stopping=stopping
        )
        if step.generation is not None:
            step.generation.check_integrity()
            self.generation = step.generation
        else:
            self.generation = self.generation.with_records(step.records)
        return step

    def state(self, folder: str, file: str) -> tuple[FileState, str]:
        record = self.generation.segments[FileKey(folder, file)].record
        return record.state, record.reason

    def texts(self) -> list[str]:
        return [chunk.text for _, chunk in self.generation.rows]


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
    assert [key.file for key, _ in bench.generation.rows] == ["renamed.md", "copy.md"]


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
    assert bench.generation.rows[0][1].line_start == 6
    assert bench.embedder.embedded == 1


def test_no_change_is_no_generation_and_no_reading(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("f/a.txt", "text")
    bench.step()
    monkeypatch.setattr(module, "_read", lambda file: pytest.fail(f"read {file}"))
    step = bench.step()
    assert step.generation is None
    assert bench.generation.number == 1


def test_a_touched_file_is_read_but_makes_no_generation(bench: Bench) -> None:
    bench.put("f/a.txt", "text")
    bench.step()
    bench.put("f/a.txt", "text", age=5)
    assert bench.step().generation is None
    assert bench.indexer.plan(bench.generation, scan(bench.root)[0]).to_read == ()


def test_a_change_within_the_clocks_tick_is_seen(bench: Bench) -> None:
    path = bench.put("f/a.txt", "text", age=0)
    bench.step()
    times = path.stat()
    path.write_text("TEXT")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time
    plan = bench.indexer.plan(bench.generation, scan(bench.root)[0])
    assert plan.news == frozenset()
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
    assert bench.step().generation is not None
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
    assert bench.step().generation is None  # known to be bad: not tried again
    bench.put("f/bad.json", '{"now": "good"}', age=5)
    bench.step()
    assert bench.state("f", "bad.json") == (FileState.INDEXED, "")


def test_a_file_that_vanishes_before_its_turn_is_no_trouble(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("f/a.txt", "one")
    bench.step()
    path = bench.put("f/a.txt", "changed", age=5)
    bench.put("f/b.txt", "two two two two")
    plan = bench.indexer.plan(bench.generation, scan(bench.root)[0])
    path.unlink()
    step = bench.indexer.advance(bench.generation, plan, 2, deadline=time.monotonic() + 60, stopping=lambda: False)
    assert step.generation is not None
    assert [chunk.text for _, chunk in step.generation.rows] == ["two two two two"]
    assert step.retry == ()


def test_a_file_that_changes_while_read_keeps_its_old_text(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.put("f/a.txt", "old")
    bench.step()
    bench.put("f/a.txt", "half", age=5)
    plan = bench.indexer.plan(bench.generation, scan(bench.root)[0])
    path.write_text("half and the other half")
    step = bench.indexer.advance(bench.generation, plan, 2, deadline=time.monotonic() + 60, stopping=lambda: False)
    assert [file.key.file for file in step.retry] == ["a.txt"]
    assert step.generation is None
    bench.step()
    assert bench.texts() == ["half and the other half"]


def test_an_unreadable_file_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("f/a.txt", "text")
    real = module._read

    def closed(file: Found) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_read", closed)
    assert bench.step().generation is not None
    assert bench.state("f", "a.txt") == (FileState.FAILED, "cannot be read: Permission denied")
    assert bench.step().generation is None
    monkeypatch.setattr(module, "_read", real)
    bench.step()
    assert bench.texts() == ["text"]


def test_small_files_come_first_and_time_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 1)
    for size in (3, 1, 2):
        bench.put(f"f/{size}.txt", "word " * size)
    first = bench.step(seconds=-1)
    assert [file.key.file for file in first.left] == ["1.txt", "2.txt", "3.txt"]
    assert first.generation is None
    ends = iter([False, False, True])
    second = bench.step(stopping=lambda: next(ends, True))
    assert [key.file for key, _ in bench.generation.rows] == ["1.txt"]
    assert [file.key.file for file in second.left] == ["2.txt", "3.txt"]
    assert bench.step().left == ()
    assert len(bench.texts()) == 3


def test_stopping_inside_a_large_file_keeps_its_old_text(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 2)
    bench.put("f/a.csv", "n\nold\n")
    bench.step()
    bench.put("f/a.csv", "n\n" + "".join(f"row {number}\n" for number in range(20)), age=5)
    asked: list[int] = []

    def stopping() -> bool:
        asked.append(1)
        return len(asked) > 4

    step = bench.step(stopping=stopping)
    assert [file.key.file for file in step.left] == ["a.csv"]
    assert bench.texts() == ["n: old"]
    bench.step()
    assert len(bench.texts()) == 20


def test_chunks_of_a_foreign_language_keep_their_sense(bench: Bench) -> None:
    class Shredder(WordEmbedder):
        """Sees three tokens in each letter, as an English vocabulary does in Korean."""

        def count(self, text: str) -> int:
            return 3 * len(text)

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return super().embed(texts)

    bench.indexer = Indexer(Shredder(), 40)
    text = "상품을 받은 날부터 사십오일 안에 반품을 신청하실 수 있습니다."
    bench.put("f/a.txt", text)
    bench.step()
    assert bench.texts() == [text]

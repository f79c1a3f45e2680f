"""What is saved while a large file is being indexed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.config import RetrievalSettings
from server.relations import TextRole
from server.retrieval import FileState, KnowledgeBase
from server.retrieval.updating import indexer
from tests.fakes import WordEmbedder

ROWS = 3_000


class Slow(WordEmbedder):
    """Takes its time for each text, as a model does, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        if role is TextRole.PASSAGE and not self.let_go.is_set():
            time.sleep(0.02 * len(texts))
        return super().embed(texts, role)


def large() -> str:
    return "n\n" + "".join(f"plain row {number}\n" for number in range(ROWS))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    monkeypatch.setattr(indexer, "PAUSE_S", 0.02)
    return Slow()


@pytest.fixture
def base(tmp_path: Path, slow: Slow) -> Iterator[KnowledgeBase]:
    (tmp_path / "knowledge" / "shop").mkdir(parents=True)
    (tmp_path / "knowledge" / "shop" / "large.csv").write_text(large())
    made = KnowledgeBase(tmp_path / "knowledge", tmp_path / "index", slow, RetrievalSettings())
    made.open()
    yield made
    slow.let_go.set()


def wait(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def finds(base: KnowledgeBase, word: str) -> bool:
    return any(word in passage.text for passage in base.search(word, ["shop"]).passages)


def state(base: KnowledgeBase, name: str) -> FileState | None:
    files = [file for folder in base.status().folders for file in folder.files]
    return next((file.state for file in files if file.file == name), None)


def test_a_note_that_is_saved_meanwhile_is_found_before_the_large_file(base: KnowledgeBase, slow: Slow) -> None:
    importing = threading.Thread(target=base.sync)
    importing.start()
    wait(lambda: slow.embedded > 40, "the large file is not begun")
    for at in range(3):
        base.save("shop", f"note{at}.md", f"The quillfeather{at} is in drawer {at}.".encode())
        wait(lambda at=at: finds(base, f"quillfeather{at}"), "the note waits for the large file", 10)  # type: ignore[misc]
    assert slow.embedded < ROWS
    assert (state(base, "large.csv"), state(base, "note0.md")) == (FileState.INDEXING, FileState.INDEXED)
    slow.let_go.set()
    importing.join(120)
    assert state(base, "large.csv") is FileState.INDEXED
    assert slow.embedded - 3 - ROWS < 20, "nothing is embedded twice, questions aside"
    assert finds(base, "2999")
    base.check_integrity()


def test_a_large_file_that_is_replaced_or_deleted_meanwhile_is_not_what_is_found(
    base: KnowledgeBase, slow: Slow, tmp_path: Path
) -> None:
    importing = threading.Thread(target=base.sync)
    importing.start()
    wait(lambda: slow.embedded > 40, "the large file is not begun")
    base.save("shop", "large.csv", b"n\nthe new zanzibar row\n")
    wait(lambda: finds(base, "zanzibar"), "the new content waits for the old", 10)
    importing.join(120)
    assert slow.embedded < ROWS
    assert not finds(base, "2999")
    base.delete("shop", "large.csv")
    base.sync()
    assert (state(base, "large.csv"), finds(base, "zanzibar")) == (None, False)
    base.check_integrity()


def test_the_progress_of_one_large_file_is_shown(
    base: KnowledgeBase, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.retrieval.updating import pending, progress

    monkeypatch.setattr(pending, "LONG_IMPORT_BYTES", 10_000)
    monkeypatch.setattr(progress, "REPORT_INTERVAL_S", 0.05)
    importing = threading.Thread(target=base.sync)
    importing.start()
    seen: list[int] = []

    def moves() -> bool:
        shown = base.status().progress
        if shown is not None:
            assert (shown.files, shown.of_files) == (0, 1)
            seen.append(shown.bytes)
        return len(set(seen)) >= 3

    wait(moves, "no progress is shown")
    assert seen == sorted(seen)
    slow.let_go.set()
    importing.join(120)
    assert base.status().progress is None

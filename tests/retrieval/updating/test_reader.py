"""The process that reads files: what it gives, what it survives, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import KnowledgeError
from server.retrieval.loaders import load
from server.retrieval.updating import reader as module
from server.retrieval.updating.reader import READ_INLINE_BYTES, Reader, ReaderClosed, WorkerUnavailable
from tests.conftest import ROOT
from tests.retrieval.loaders import hostile
from tests.retrieval.loaders.hostile import GENEROUS_S, children, is_busy, wait_for


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def worker_of(reader: Reader) -> int:
    assert reader._worker is not None
    return reader._worker._process.pid


@pytest.fixture
def before() -> set[int]:
    return children(os.getpid())


@pytest.fixture
def reader(before: set[int]) -> Iterator[Reader]:
    reader = Reader(GENEROUS_S, 1024)
    yield reader
    reader.close()
    assert children(os.getpid()) <= before


# ── what it gives ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.py", b"class A:\n    def f(self):\n        pass\n"),
        ("가격.csv", "이름,가격\n램프,39\n".encode("cp949")),
        ("a.md", "# 반품\n\n45일 ".encode() + b"word " * READ_INLINE_BYTES),
        ("a.json", b'{"name": "\\ud83d half"}'),
        ("a.pdf", hostile.pdf("one", "two")),
        *((f"a{ending}", hostile.office(ending, "a lamp")) for ending in hostile.OFFICE),
    ],
)
def test_it_gives_what_the_loader_gives(reader: Reader, name: str, data: bytes) -> None:
    assert reader.read(name, data) == load(name, data)
    assert reader._worker is not None


def test_small_notes_need_no_process(reader: Reader) -> None:
    assert reader.read("a.md", b"# a\n\ntext") == load("a.md", b"# a\n\ntext")
    assert reader._worker is None


def test_the_process_is_up_before_the_file_where_such_files_are_expected(reader: Reader) -> None:
    reader.prestart(["a.md", "b/c.txt"])
    assert reader._worker is None
    reader.prestart(["a.md", "b/c.pdf"])
    worker = worker_of(reader)
    assert reader.read("a.py", b"x = 1") == load("a.py", b"x = 1")
    assert worker_of(reader) == worker
    reader.close()
    reader.prestart(["c.pdf"])
    assert reader._worker is None


def test_the_reason_of_a_bad_file_comes_through_and_the_worker_stays(reader: Reader) -> None:
    reader.read("a.py", b"x = 1")
    worker = worker_of(reader)
    for _ in range(3):
        with pytest.raises(KnowledgeError, match=r"^not valid JSON: .*, line 1, column 2$"):
            reader.read("a.json", b"{oops}")
    assert worker_of(reader) == worker


def test_the_worker_imports_no_more_than_reading_needs_and_gets_no_secrets(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILOR_SERVER_PASSWORD", "hush")
    reader.read("a.docx", hostile.office(".docx", "text"))
    about = Path(f"/proc/{worker_of(reader)}")
    mapped = (about / "maps").read_text()
    assert not [name for name in ("torch", "faiss", "numpy", "transformers") if f"/{name}" in mapped]
    assert b"hush" not in (about / "environ").read_bytes()
    assert (about / "oom_score_adj").read_text().strip() == "1000"


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_takes_too_long_ends_the_worker_and_the_next_is_read(before: set[int]) -> None:
    reader = Reader(3.0, 1024)
    assert reader.read("a.py", b"x = 1").blocks
    worker, began = worker_of(reader), time.monotonic()
    with pytest.raises(KnowledgeError, match=r"took longer than 3 s to read: split the file, or raise .*parse_seconds"):
        reader.read("stall.html", hostile.STALL)
    assert time.monotonic() - began < GENEROUS_S / 2
    assert has_ended(worker)
    assert reader.read("a.py", b"x = 1").blocks
    assert worker_of(reader) != worker
    reader.close()
    assert children(os.getpid()) <= before


def test_a_file_that_takes_too_much_memory_ends_the_worker_and_the_next_is_read(before: set[int]) -> None:
    reader = Reader(GENEROUS_S, 128)
    assert reader.read("a.py", b"x = 1").blocks
    worker = worker_of(reader)
    with pytest.raises(KnowledgeError, match=r"needs more than 128 MB of memory to be read: .* raise .*parse_mb"):
        reader.read("a.docx", hostile.many_paragraphs(64))
    assert has_ended(worker)
    assert reader.read("a.docx", hostile.office(".docx", "fine")).blocks
    with pytest.raises(KnowledgeError, match="128 MB of memory"):  # already on its way in
        reader.read("a.html", b"x" * 200 * 1024 * 1024)
    assert reader.read("a.py", b"x = 1").blocks
    reader.close()
    assert children(os.getpid()) <= before


def test_a_worker_that_has_grown_is_replaced(before: set[int]) -> None:
    reader = Reader(GENEROUS_S, 192)
    reader.read("a.py", b"x = 1")
    worker = worker_of(reader)
    assert len(reader.read("a.txt", b"some words\n\n" * 200_000).blocks) == 200_000
    assert worker_of(reader) != worker
    assert has_ended(worker)
    reader.close()
    assert children(os.getpid()) <= before


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_was_killed_between_files_is_replaced_unseen(reader: Reader) -> None:
    reader.read("a.py", b"x = 1")
    worker = worker_of(reader)
    os.kill(worker, signal.SIGKILL)
    assert reader.read("a.py", b"x = 1").blocks
    assert worker_of(reader) != worker


def test_a_file_on_which_the_worker_crashes_every_time_is_refused(reader: Reader) -> None:
    """As a fault in a library would do it."""
    reader.read("a.py", b"x = 1")
    killed: set[int] = set()
    done = threading.Event()

    def kill_those_at_work() -> None:
        while not done.is_set():
            for pid in children(os.getpid()) - killed:
                if b"server.retrieval.updating.worker" in Path(f"/proc/{pid}/cmdline").read_bytes() and is_busy(pid):
                    os.kill(pid, signal.SIGSEGV)
                    killed.add(pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_those_at_work)
    killer.start()
    try:
        with pytest.raises(KnowledgeError, match=r"crashed 2 times \(signal 11\): the file is damaged or hostile"):
            reader.read("stall.html", hostile.STALL)
    finally:
        done.set()
        killer.join()
    assert len(killed) == 2
    assert reader.read("a.py", b"x = 1").blocks


def test_closing_ends_a_file_that_is_being_read(reader: Reader) -> None:
    reader.read("a.py", b"x = 1")
    worker = worker_of(reader)
    raised: list[BaseException] = []

    def read() -> None:
        try:
            reader.read("stall.html", hostile.STALL)
        except ReaderClosed as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    wait_for(lambda: reader._worker is not None and reader._worker._lock.locked())
    reader.close()
    thread.join(GENEROUS_S)
    assert (len(raised), has_ended(worker)) == (1, True)
    with pytest.raises(ReaderClosed):
        reader.read("a.py", b"x = 1")
    reader.open()
    assert reader.read("a.py", b"x = 1").blocks


def test_a_reader_that_is_garbage_collected_leaves_no_process(before: set[int]) -> None:
    reader = Reader(GENEROUS_S, 1024)
    reader.read("a.py", b"x = 1")
    worker = worker_of(reader)
    del reader
    wait_for(lambda: has_ended(worker))


@pytest.mark.parametrize("name", ["a.py", "stall.html"])
def test_a_server_that_is_killed_leaves_no_worker(name: str) -> None:
    """Between two files, and in the middle of one."""
    source = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from server.retrieval.updating.reader import Reader
reader = Reader(600, 1024)
reader.read("a.py", b"x = 1")
print(reader._worker._process.pid, flush=True)
reader.read({name!r}, b"<a " * 200_000)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        worker = int(server.stdout.readline())
        wait_for(lambda: name == "a.py" or is_busy(worker))
        assert not has_ended(worker)
        server.kill()
    wait_for(lambda: has_ended(worker))


def test_a_worker_that_cannot_start_says_so(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOT_SCRIPT", "import sys; sys.exit(3)")
    with pytest.raises(WorkerUnavailable, match=r"does not start: exit code 3"):
        reader.read("a.py", b"x = 1")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerUnavailable, match=r"does not start: .*No such file"):
        reader.read("a.py", b"x = 1")

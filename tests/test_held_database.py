"""A database that another process holds: writes are refused in words after a while, and reads and health go on."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from server import database as database_module
from server.database import Database
from server.errors import StorageBusy, StorageError
from tests.live import LiveServer, chat_session, make_app, make_workspace, serving

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
"""
WRITERS = 16  # more than there are threads for them


@contextmanager
def held(path: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.communicate("\n", timeout=60)


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    monkeypatch.setattr(database_module, "BUSY_MS", 2_000)
    with serving(make_app(make_workspace(tmp_path))) as live:
        yield live


async def test_writers_are_refused_after_a_while_and_everything_else_goes_on(live: LiveServer, tmp_path: Path) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client, chat_session(live) as chat:

        async def timed(path: str) -> tuple[int, float]:
            started = time.monotonic()
            return (await client.get(path)).status_code, time.monotonic() - started

        with held(tmp_path / "data" / "tailor.db"):
            started = time.monotonic()
            writes = [
                asyncio.create_task(client.post("/api/memories", json={"text": f"Has {number} cats."}))
                for number in range(WRITERS)
            ]
            await chat.frame(type="send", request_id="r", text="Hello")
            await asyncio.sleep(0.5)
            healths = [await timed(path) for path in ("/health", "/health/live") * 5]
            reads = [await timed("/api/conversations") for _ in range(5)]
            ready = await client.get("/health/ready")
            answers = await asyncio.gather(*writes)
            took = time.monotonic() - started
            frame = await chat.next()
        after = await client.post("/api/memories", json={"text": "Has a dog."})
    assert {status for status, _ in healths + reads} == {200}
    assert max(seconds for _, seconds in healths) < 0.25
    assert max(seconds for _, seconds in reads) < 1.5
    assert ready.status_code == 503
    assert "another process holds tailor.db" in ready.json()["reasons"][0]
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.headers["retry-after"] for answer in answers} == {"5"}
    assert {answer.json()["error"]["code"] for answer in answers} == {"storage_busy"}
    assert took < 30
    assert (frame["type"], frame["code"], frame["request_id"]) == ("error", "storage_busy", "r")
    assert after.status_code == 201


def test_a_lock_that_is_let_go_in_time_is_waited_for(tmp_path: Path) -> None:
    database = Database(tmp_path / "tailor.db")
    database.migrate("a", ["CREATE TABLE notes (text TEXT);"])
    other = sqlite3.connect(tmp_path / "tailor.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.6, lambda: other.execute("COMMIT"))
    timer.start()
    with database.transaction() as db:
        db.execute("INSERT INTO notes VALUES ('kept')")
    timer.join()
    other.close()
    assert database.connection().execute("SELECT text FROM notes").fetchall() == [("kept",)]


def test_an_own_writer_is_no_reason_to_be_unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_MS", 300)
    database = Database(tmp_path / "tailor.db")
    database.migrate("a", ["CREATE TABLE notes (text TEXT);"])
    with database.transaction():
        database.check_writable()
    database.check_writable()
    with held(tmp_path / "tailor.db"):
        with pytest.raises(StorageBusy):
            database.check_writable()
        with pytest.raises(StorageBusy), database.transaction():
            pass
    database.check_writable()


@pytest.mark.parametrize("content", [b"this is no database at all, but long enough to be read as one" * 20])
def test_a_file_that_is_no_database_is_said_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tailor.db").write_bytes(content)
    with pytest.raises(StorageError, match=r"tailor\.db cannot be used .*it is no database: run 'tailor doctor'"):
        Database(tmp_path / "tailor.db").migrate("a", ["CREATE TABLE notes (text TEXT);"])

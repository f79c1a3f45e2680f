"""SIGTERM and SIGHUP drain a real process; a second signal and Ctrl-C end it quickly."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import ROOT
from tests.live import make_app, make_workspace, serving

# `tailor serve` itself, with an engine that answers slowly; a word takes as long as the first argument says.
SERVER = """
import sys
import server.app
from server.cli.commands import main
from tests.fakes import ScriptedEngine, WordEmbedder

pause = float(sys.argv.pop(1))
engine = ScriptedEngine(lambda request, prompt: "word " * 100, adapters=["helper"], pause=pause)
server.app.build_engine = lambda settings, report=None: engine
server.app.build_embedder = lambda settings, report=None: WordEmbedder()
main()
"""


@dataclass
class Process:
    process: subprocess.Popen[str]
    url: str
    log: Path
    folder: Path

    def signal(self, number: int) -> float:
        self.process.send_signal(number)
        return time.monotonic()

    def exit_status(self) -> int:
        return self.process.wait(60)

    def statuses(self) -> list[str]:
        with closing(sqlite3.connect(self.folder / "data" / "tailor.db")) as database:
            rows = database.execute("SELECT status FROM messages WHERE role = 'assistant' ORDER BY created_at")
            return [status for (status,) in rows]

    def text(self) -> str:
        with closing(sqlite3.connect(self.folder / "data" / "tailor.db")) as database:
            return str(database.execute("SELECT text FROM messages WHERE role = 'assistant'").fetchone()[0])

    def ready(self) -> httpx.Response:
        return self.get("/health/ready")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30)

    def complete(self) -> httpx.Response:
        body = {"model": "base", "messages": [{"role": "user", "content": "More?"}]}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=30)

    def until_draining(self) -> httpx.Response:
        while (ready := self.ready()).status_code == 200:
            time.sleep(0.05)
        return ready


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def process(folder: Path, *options: str, pause: float = 0.05) -> Iterator[Process]:
    port, log = free_port(), folder / "log"
    make_workspace(folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TAILOR_")}
    command = [sys.executable, "-c", SERVER, str(pause), "serve", "--workspace", str(folder), "--port", str(port)]
    with log.open("w") as errors:
        started = subprocess.Popen(
            [*command, *options], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=errors, text=True
        )
    found = Process(started, f"http://127.0.0.1:{port}", log, folder)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.TransportError):
                if found.ready().status_code == 200:
                    break
            time.sleep(0.1)
        yield found
    finally:
        started.kill()
        started.wait()


async def begin(socket: ClientConnection) -> None:
    await socket.recv()  # hello
    await socket.send(json.dumps({"type": "send", "request_id": "first", "text": "Tell me.", "domain": "general"}))
    await until(socket, "token")


async def until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 60))
        if event["type"] == kind:
            return event


def websocket(server: Process) -> connect:
    return connect(server.url.replace("http", "ws") + "/ws")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_running_answers_end_and_new_ones_are_refused(tmp_path: Path, number: int) -> None:
    with process(tmp_path) as server:
        async with websocket(server) as socket:
            await begin(socket)
            server.signal(number)
            ready = server.until_draining()
            await socket.send(json.dumps({"type": "send", "request_id": "late", "text": "More?"}))
            refused = await until(socket, "error")
            program, live = server.complete(), server.get("/health/live")
            await until(socket, "done")
        assert server.exit_status() == 0
        assert ready.json()["reasons"] == ["the server is about to stop"]
        assert live.status_code == 200
        assert (refused["code"], refused["request_id"]) == ("draining", "late")
        assert program.status_code == 503
        assert "about to stop" in program.json()["error"]["message"]
        assert program.headers["retry-after"]
        assert server.statuses() == ["complete"]


@pytest.mark.slow
async def test_an_answer_that_takes_too_long_is_stored_as_far_as_it_is(tmp_path: Path) -> None:
    with process(tmp_path, "--set", "server.drain_seconds=1", pause=0.3) as server:
        async with websocket(server) as socket:
            await begin(socket)
            sent = server.signal(signal.SIGTERM)
            assert server.exit_status() == 0
        assert time.monotonic() - sent < 20
        assert server.statuses() == ["interrupted"]
        assert server.text().startswith("word")


@pytest.mark.slow
async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with process(tmp_path, "--set", "server.drain_seconds=300", pause=0.3) as server:
        async with websocket(server) as socket:
            await begin(socket)
            server.signal(signal.SIGTERM)
            server.until_draining()
            sent = server.signal(signal.SIGTERM)
            assert server.exit_status() == 0
        assert time.monotonic() - sent < 20
        assert server.statuses() == ["interrupted"]


@pytest.mark.slow
async def test_control_c_does_not_wait_for_answers(tmp_path: Path) -> None:
    with process(tmp_path, "--set", "server.drain_seconds=300", pause=0.3) as server:
        async with websocket(server) as socket:
            await begin(socket)
            sent = server.signal(signal.SIGINT)
            server.exit_status()
        assert time.monotonic() - sent < 25
        assert server.statuses() == ["interrupted"]


@pytest.mark.slow
def test_a_server_with_nothing_to_do_drains_at_once(tmp_path: Path) -> None:
    with process(tmp_path, "--set", "server.drain_seconds=300") as server:
        sent = server.signal(signal.SIGTERM)
        assert server.exit_status() == 0
        assert time.monotonic() - sent < 20
        assert "drained; 0 answers are cut off" in server.log.read_text()


def test_full_collections_do_not_walk_what_the_server_was_started_with(tmp_path: Path) -> None:
    """A walk through torch and the model takes 0.4 s, in which nobody is answered."""
    frozen = gc.get_freeze_count()
    with serving(make_app(make_workspace(tmp_path))):
        assert gc.get_freeze_count() > frozen + 100_000
    assert gc.get_freeze_count() == 0

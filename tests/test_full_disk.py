"""A full disk: what writes is refused in words, deleting works, running answers end clearly, and the server goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.accounts import Accounts
from server.database import Database
from server.reserve import Reserve
from tests.disks import fill, mounted
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving

DISK = 12 << 20
RESERVE = 1 << 20
PASSWORD = "a long password"


@dataclass
class SmallServer:
    live: LiveServer
    client: httpx.Client
    folder: Path
    key: str

    async def ask(self, text: str, **fields: Any) -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.key}"}
        async with chat_session(self.live, additional_headers=headers) as chat:
            await chat.frame(type="send", request_id="r", text=text, **fields)
            events: list[dict[str, Any]] = []
            while not events or events[-1]["type"] != "closed":
                events.append(await chat.next())
                if events[-1]["type"] == "error" and "message_id" not in events[-1]:
                    break  # the frame was refused
            return events

    def code(self, method: str, path: str, **options: Any) -> int:
        """The status; what is refused for the disk says so."""
        response = self.client.request(method, path, **options)
        if response.status_code == 507:
            assert "full" in response.json()["error"]["message"]
            assert response.json()["error"]["code"] == "storage_full"
        return response.status_code


@contextmanager
def small_server(folder: Path, engine: ScriptedEngine) -> Iterator[SmallServer]:
    with mounted(folder, DISK):
        database = make_workspace(folder) / "data" / "tailor.db"
        accounts = Accounts(Database(database))
        accounts.add("mina", PASSWORD, admin=True)
        key = accounts.new_api_key("mina")
        with serving(make_app(folder, engine, flags={"storage.reserve_bytes": RESERVE})) as live:
            headers = {"Authorization": f"Bearer {key}"}
            with httpx.Client(base_url=live.url, headers=headers, timeout=60) as client:
                yield SmallServer(live, client, folder, key)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda request, prompt: "word " * 200, adapters=["helper"])


@pytest.fixture
def small(tmp_path: Path, engine: ScriptedEngine) -> Iterator[SmallServer]:
    with small_server(tmp_path / "disk", engine) as server:
        until(lambda: not server.client.get("/api/knowledge").json()["busy"])
        yield server


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def chats(server: SmallServer) -> list[str]:
    return [one["id"] for one in server.client.get("/api/conversations").json()["conversations"]]


def test_what_writes_is_refused_in_words_and_what_deletes_works(small: SmallServer) -> None:
    for number in range(4):
        asyncio.run(small.ask(f"I like tea number {number}.", domain="general"))
    assert small.code("POST", "/api/memories", json={"text": "Is allergic to peanuts."}) == 201
    memory = small.client.get("/api/memories").json()["memories"][0]["id"]
    chat = chats(small)[0]
    filler = fill(small.folder)

    event = only(asyncio.run(small.ask("Is there room?")), "error")
    assert event["code"] == "storage_full"
    assert event["request_id"] == "r"
    assert small.code("POST", "/api/memories", json={"text": "Has a cat."}) == 507
    assert small.code("PATCH", f"/api/memories/{memory}", json={"text": "Likes coffee."}) == 507
    assert small.code("PUT", "/api/memories/paused", json={"paused": True}) == 507
    assert small.code("PUT", "/api/memories/domains/general", json={"used": False}) == 507
    assert small.code("POST", "/api/conversations", json={}) == 507
    assert small.code("PATCH", f"/api/conversations/{chat}", json={"title": "New"}) == 507
    upload = {"files": ("more.md", b"# More\n\n" + b"words " * 2_000, "text/markdown")}
    assert small.code("POST", "/api/knowledge/support", files=upload) == 507
    assert small.code("POST", "/api/knowledge/rebuild") == 507

    ready = small.client.get("/health/ready")
    assert ready.status_code == 503
    assert "full" in ready.json()["reasons"][0]
    assert small.client.get("/health").status_code == small.client.get("/health/live").status_code == 200
    assert len(chats(small)) == 4
    assert small.code("POST", "/v1/chat/completions", json={
        "model": "base", "messages": [{"role": "user", "content": "Hello"}]}) == 200  # fmt: skip

    login = httpx.post(f"{small.live.url}/api/login", json={"name": "mina", "password": PASSWORD})
    assert login.status_code == 200
    assert httpx.post(f"{small.live.url}/api/logout", cookies=login.cookies).status_code == 204
    assert small.code("DELETE", f"/api/memories/{memory}") == 200
    assert small.code("DELETE", f"/api/conversations/{chat}?memories=forget") == 200
    assert small.code("DELETE", "/api/memories?confirm=true") == 200
    assert small.code("DELETE", "/api/knowledge/support/refunds.md") == 200
    assert len(chats(small)) == 3

    filler.unlink()
    assert small.code("POST", "/api/memories", json={"text": "Has a cat."}) == 201
    assert (small.folder / "data" / "reserve").stat().st_size == RESERVE
    assert small.client.get("/health/ready").status_code == 200


def test_a_running_answer_ends_clearly_and_is_stored_when_there_is_room(
    small: SmallServer, engine: ScriptedEngine
) -> None:
    engine.pause = 0.02

    async def fill_meanwhile() -> tuple[Path, list[dict[str, Any]]]:
        turn = asyncio.create_task(small.ask("Tell me something long."))
        await asyncio.to_thread(until, lambda: engine.running)
        await asyncio.sleep(0.5)
        filler = await asyncio.to_thread(fill, small.folder)
        return filler, await turn

    filler, events = asyncio.run(fill_meanwhile())
    assert [event["type"] for event in events][-2:] == ["error", "closed"]
    assert events[-2]["code"] == "storage_full"

    (chat,) = chats(small)
    answer = small.client.get(f"/api/conversations/{chat}").json()["messages"][-1]
    assert answer["status"] == "failed"
    assert answer["text"].startswith("word word")
    assert "full" in answer["error"]["message"]

    filler.unlink()
    stored = Database(small.folder / "data" / "tailor.db")
    until(lambda: stored.connection().execute("SELECT 1 FROM messages WHERE status = 'failed'").fetchone())
    engine.pause = 0.0
    assert asyncio.run(small.ask("And now?", conversation_id=chat))[-2]["type"] == "done"


# ── the reserve ──────────────────────────────────────────────────────────────────────────────────


def test_the_reserve_takes_real_room_and_gives_it_to_deletions_alone(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 4 << 20) as disk:
        reserve = Reserve(disk / "reserve", 1 << 20)
        reserve.take()
        filler = fill(disk)
        assert not reserve.is_closed_to_caller()
        with reserve.open_to_caller():
            reserve.give_up_if_short()
            assert Context().run(reserve.is_closed_to_caller)  # somebody else meanwhile
            assert not reserve.is_closed_to_caller()
            (disk / "written").write_bytes(b"x" * 500_000)
        assert reserve.is_closed_to_caller()
        assert not reserve.restore(at_once=True)
        assert not (disk / "reserve").exists()
        filler.unlink()
        assert reserve.restore(at_once=True)
        assert (disk / "reserve").stat().st_blocks * 512 >= 1 << 20
        assert not reserve.is_closed_to_caller()


def test_a_disk_without_room_for_the_reserve_starts_all_the_same(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 1 << 20) as disk:
        reserve = Reserve(disk / "reserve", 8 << 20)
        reserve.take()
        assert not (disk / "reserve").exists()
        assert not reserve.is_closed_to_caller()


def test_no_reserve_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "reserve").write_bytes(b"of a former start")
    reserve = Reserve(tmp_path / "reserve", 0)
    reserve.take()
    assert not (tmp_path / "reserve").exists()
    reserve.give_up_if_short()
    assert not reserve.is_closed_to_caller()

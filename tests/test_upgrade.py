"""A database of an earlier version opens, is migrated, and nothing in it is lost (tests/fixtures/README.md)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.conftest import ROOT
from tests.fakes import ScriptedEngine
from tests.fixtures.make_database import ANSWER, ENDLESS, PASSWORD, QUEUED, load
from tests.live import make_app, make_workspace

FIXTURES = ROOT / "tests" / "fixtures"
OLD = sorted(FIXTURES.glob("*.sql.gz"))
KEPT_ROWS = ("accounts", "api_keys", "sessions", "memories", "memory_queue", "memory_domains_off", "traces", "episodes")


class Upgraded:
    """The server on an old database."""

    def __init__(self, client: TestClient, database: Path, keys: dict[str, str]) -> None:
        self.client = client
        self.database = database
        self._keys = keys

    def get(self, user: str, path: str) -> Any:
        response = self.client.get(path, headers={"Authorization": f"Bearer {self._keys[user]}"})
        assert response.status_code == 200, response.text
        return response.json()

    def ask(self, user: str, text: str, **fields: Any) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        headers = {"Authorization": f"Bearer {self._keys[user]}"}
        with self.client.websocket_connect("/ws", headers=headers) as socket:
            socket.send_text(json.dumps({"type": "send", "request_id": "r", "text": text, **fields}))
            while not events or events[-1]["type"] not in ("closed", "error"):
                events.append(json.loads(socket.receive_text()))
        return events

    def chats(self, user: str) -> dict[str, list[dict[str, Any]]]:
        """Title → messages."""
        found = self.get(user, "/api/conversations")["conversations"]
        return {one["title"]: self.get(user, f"/api/conversations/{one['id']}")["messages"] for one in found}


def rows(database: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(params=OLD, ids=lambda path: path.name.removesuffix(".sql.gz"))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    database = make_workspace(tmp_path) / "data" / "tailor.db"
    load(request.param, database)
    return database


@pytest.fixture
def upgraded(old: Path, request: pytest.FixtureRequest) -> Iterator[Upgraded]:
    name = request.node.callspec.params["old"].name.replace(".sql.gz", ".json")
    engine = ScriptedEngine(adapters=["helper"])
    app = make_app(old.parents[1], engine, flags={"memory.model_pass": False})
    with TestClient(app, client=("127.0.0.1", 50000), base_url="http://127.0.0.1:8321") as client:
        yield Upgraded(client, old, json.loads((FIXTURES / name).read_text("utf-8"))["keys"])


def test_every_row_is_still_there(old: Path) -> None:
    before = {table: rows(old, f"SELECT count(*) FROM {table}") for table in KEPT_ROWS}
    messages = rows(old, "SELECT id, text FROM messages ORDER BY id")
    make_app(old.parents[1])  # builds every part, which migrates its tables
    assert {table: rows(old, f"SELECT count(*) FROM {table}") for table in KEPT_ROWS} == before
    assert rows(old, "SELECT id, text FROM messages ORDER BY id") == messages
    assert rows(old, "PRAGMA quick_check") == [("ok",)]
    assert rows(old, "PRAGMA foreign_key_check") == []


def test_people_log_in_with_their_passwords_and_keys(upgraded: Upgraded) -> None:
    for name in ("mina", "jun"):
        login = upgraded.client.post("/api/login", json={"name": name, "password": PASSWORD.format(name=name)})
        assert login.json()["user"]["name"] == name
        assert login.json()["user"]["admin"] == (name == "mina")
        upgraded.client.post("/api/logout")
        assert upgraded.get(name, "/api/session")["user"]["name"] == name


def test_chats_have_their_messages_prompts_and_traces(upgraded: Upgraded) -> None:
    chats = upgraded.chats("mina")
    messages = next(found for title, found in chats.items() if title.startswith("My name is Mina"))
    assert [one["role"] for one in messages].count("assistant") == 3
    answers = [one for one in messages if one["role"] == "assistant"]
    assert {one["text"] for one in answers} == {ANSWER}
    assert {one["status"] for one in answers} == {"complete"}
    prompts = [upgraded.get("mina", f"/api/messages/{one['id']}/prompt") for one in answers]
    assert all(len(prompt["messages"]) >= 2 and prompt["tokens"] > 100 for prompt in prompts)
    traces = [upgraded.get("mina", f"/api/messages/{one['id']}/trace") for one in answers]
    assert all(trace["candidates"] for trace in traces)


def test_an_old_chat_goes_on(upgraded: Upgraded) -> None:
    chat = next(
        one for one in upgraded.get("mina", "/api/conversations")["conversations"] if one["title"] == "I live in Busan."
    )
    events = upgraded.ask("mina", "And now?", conversation_id=chat["id"])
    assert events[-2]["type"] == "done"
    assert len(upgraded.get("mina", f"/api/conversations/{chat['id']}")["messages"]) == 4


def test_what_was_temporary_is_gone_and_what_was_being_written_is_marked(upgraded: Upgraded) -> None:
    assert not [title for title in upgraded.chats("mina") if "secrets" in title]
    question, answer = upgraded.chats("jun")[ENDLESS]
    assert question["text"] == ENDLESS
    assert answer["status"] == "interrupted"
    assert answer["text"].startswith("once upon a time")


def test_memories_have_their_history_and_settings(upgraded: Upgraded) -> None:
    mina = upgraded.get("mina", "/api/memories?past=true")
    now = {one["text"]: one for one in upgraded.get("mina", "/api/memories")["memories"]}
    assert {"Name is Mina.", "Likes tea.", "Is allergic to peanuts."} <= now.keys()
    assert "Lives in Busan." not in now
    assert "Lives in Busan." in {one["text"] for one in mina["memories"]}
    home = now["Lives in Seoul."]["id"]
    history = upgraded.get("mina", f"/api/memories/{home}/history")["memories"]
    assert [one["text"] for one in history] == ["Lives in Busan.", "Lives in Seoul."]
    assert mina["domains_off"] == ["general"]
    assert not mina["paused"]
    jun = upgraded.get("jun", "/api/memories")
    assert jun["paused"]
    assert {one["text"] for one in jun["memories"]} == {"Name is Jun.", "Works as a teacher."}


def test_past_chats_and_what_waits_for_the_model_are_found(upgraded: Upgraded) -> None:
    found = upgraded.get("mina", "/api/conversations/search?query=tea")["found"]
    assert any("I like tea" in one["text"] for one in found)
    (letter,) = upgraded.get("mina", "/api/memories/dead")["dead"]
    assert letter["text"] == QUEUED[0]
    assert rows(upgraded.database, "SELECT text FROM memory_queue WHERE NOT dead") == [(QUEUED[1],)]

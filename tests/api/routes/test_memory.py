"""The memory's routes over a real server: read, change, forget with a receipt, export, pause, past chats."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api.services import Services
from server.retrieval import LOCAL_USER
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving, text_of


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    with serving(make_app(make_workspace(tmp_path), ScriptedEngine(), flags={"memory.model_pass": True})) as server:
        yield server


@pytest.fixture
def client(live: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=60) as http_client:
        yield http_client


def ask(live: LiveServer, text: str, **fields: Any) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        async with chat_session(live) as chat:
            return await chat.ask(text, **{"domain": "general", **fields})

    return asyncio.run(run())


def add(client: httpx.Client, text: str, **fields: Any) -> dict[str, Any]:
    made = client.post("/api/memories", json={"text": text, **fields})
    assert made.status_code == 201, made.text
    return dict(made.json())


def texts(client: httpx.Client, **params: Any) -> list[str]:
    return [memory["text"] for memory in client.get("/api/memories", params=params).json()["memories"]]


def test_memories_are_listed_narrowed_and_counted(client: httpx.Client) -> None:
    for text, kind in (("Name is Mina.", "identity"), ("Likes tea.", "preference"), ("The boat is blue.", "fact")):
        add(client, text, kind=kind)
    body = client.get("/api/memories").json()
    assert (len(body["memories"]), body["paused"], body["total"]) == (3, False, 3)
    assert texts(client, kind="identity") == ["Name is Mina."]
    narrowed = client.get("/api/memories", params={"query": "boat"}).json()
    assert ([m["text"] for m in narrowed["memories"]], narrowed["total"]) == (["The boat is blue."], 3)
    assert client.get("/api/memories", params={"kind": "rumour"}).status_code == 400


def test_a_replaced_memory_is_seen_in_the_past_and_in_the_history(client: httpx.Client) -> None:
    first, second = add(client, "Name is Mina."), add(client, "Name is Minji.")
    assert texts(client) == ["Name is Minji."]
    assert set(texts(client, past=True)) == {"Name is Mina.", "Name is Minji."}
    for memory in (first, second):
        history = client.get(f"/api/memories/{memory['id']}/history").json()["memories"]
        assert [each["text"] for each in history] == ["Name is Mina.", "Name is Minji."]
    assert client.get("/api/memories/9999/history").status_code == 404


def test_two_devices_that_edit_one_memory_do_not_overwrite_each_other(client: httpx.Client) -> None:
    memory = add(client, "Likes tea.")
    path, seen = f"/api/memories/{memory['id']}", memory["updated_at"]
    first = client.patch(path, json={"text": "Likes green tea.", "expected": seen})
    assert first.status_code == 200
    second = client.patch(path, json={"text": "Likes black tea.", "expected": seen})
    assert (second.status_code, second.json()["error"]["code"]) == (409, "conflict")
    assert texts(client) == ["Likes green tea."]
    again = client.patch(path, json={"text": "Likes black tea.", "expected": first.json()["updated_at"]})
    assert again.json()["text"] == "Likes black tea."


def test_deleting_gives_a_receipt(live: LiveServer, client: httpx.Client) -> None:
    memory = add(client, "Name is Mina.")
    events = ask(live, "Hello")
    assert only(events, "memories")["memories"][0]["why"] == "profile"
    answer = only(events, "done")["message_id"]
    assert "Name is Mina." in client.get(f"/api/messages/{answer}/prompt").text
    receipt = client.delete(f"/api/memories/{memory['id']}")
    assert receipt.status_code == 200
    assert receipt.json()["deleted"]["text"] == "Name is Mina."
    assert receipt.json()["cleaned"] == {"answers": 1, "prompts": 1, "messages": 0, "titles": 0}
    assert "Mina" not in client.get(f"/api/messages/{answer}/prompt").text
    conversation = events[0]["conversation_id"]
    assert "Mina" not in client.get(f"/api/conversations/{conversation}").text
    assert client.delete(f"/api/memories/{memory['id']}").status_code == 404


def test_all_is_erased_only_when_it_is_confirmed(client: httpx.Client) -> None:
    add(client, "Likes tea.")
    refused = client.delete("/api/memories")
    assert refused.status_code == 400
    assert "confirm=true" in refused.json()["error"]["message"]
    assert texts(client) == ["Likes tea."]
    assert client.delete("/api/memories", params={"confirm": True}).json()["deleted"] == 1
    assert texts(client) == []


def test_memory_can_be_paused(live: LiveServer, client: httpx.Client) -> None:
    add(client, "Name is Mina.")
    assert client.put("/api/memories/paused", json={"paused": True}).json() == {"paused": True}
    assert client.get("/api/memories").json()["paused"] is True
    kinds = {event["type"] for event in ask(live, "I like tea. Hello")}
    assert not {"memories", "memory_saved"} & kinds
    client.put("/api/memories/paused", json={"paused": False})
    assert "memory_saved" in {event["type"] for event in ask(live, "I like tea. Hello")}
    assert client.put("/api/memories/paused", json={}).status_code == 400


def test_memory_can_be_switched_off_in_a_domain(live: LiveServer, client: httpx.Client) -> None:
    add(client, "Name is Mina.")
    assert client.get("/api/memories").json()["domains_off"] == []
    assert client.put("/api/memories/domains/general", json={"used": False}).json() == {"domains_off": ["general"]}
    assert client.get("/api/memories").json()["domains_off"] == ["general"]
    kinds = {event["type"] for event in ask(live, "I like tea. Hello")}
    assert not {"memories", "memory_saved"} & kinds
    assert client.put("/api/memories/domains/general", json={"used": True}).json() == {"domains_off": []}
    assert "memory_saved" in {event["type"] for event in ask(live, "I like tea. Hello")}
    assert client.put("/api/memories/domains/nowhere", json={"used": False}).status_code == 404
    assert client.put("/api/memories/domains/general", json={}).status_code == 400


def test_the_export_is_a_file_with_every_row(client: httpx.Client) -> None:
    for text in ("Name is Mina.", "Name is Minji.", "Likes tea."):
        add(client, text)
    export = client.get("/api/memories/export")
    assert export.headers["content-disposition"].startswith('attachment; filename="memories-')
    assert {row["text"] for row in export.json()["memories"]} == {"Name is Mina.", "Name is Minji.", "Likes tea."}


def test_what_came_from_a_chat_is_offered_and_forgotten_with_it(live: LiveServer, client: httpx.Client) -> None:
    events = ask(live, "My name is Mina.")
    conversation = events[0]["conversation_id"]
    offered = client.get(f"/api/conversations/{conversation}/memories").json()["memories"]
    assert [each["text"] for each in offered] == ["Name is Mina."]
    assert offered[0]["message_id"] == events[0]["user_message_id"]
    assert client.get("/api/conversations/nowhere/memories").status_code == 404
    assert client.delete(f"/api/conversations/{conversation}?memories=everything").status_code == 400
    gone = client.delete(f"/api/conversations/{conversation}?memories=forget")
    assert [each["text"] for each in gone.json()["memories"]] == ["Name is Mina."]
    assert texts(client) == []
    kept = ask(live, "My name is Mina.")[0]["conversation_id"]
    assert client.delete(f"/api/conversations/{kept}").status_code == 204
    assert texts(client) == ["Name is Mina."]


def test_past_chats_are_searched(live: LiveServer, client: httpx.Client) -> None:
    events = ask(live, "We decided to paint the lighthouse door green.")
    deadline, found = time.monotonic() + 120, []
    while not found:
        assert time.monotonic() < deadline
        found = client.get("/api/conversations/search", params={"query": "lighthouse door"}).json()["found"]
        time.sleep(0.02)
    assert set(found[0]) == {"conversation_id", "message_id", "title", "role", "text", "at", "score"}
    assert found[0]["conversation_id"] == events[0]["conversation_id"]
    assert found[0]["message_id"] == events[0]["user_message_id"]
    assert client.get("/api/conversations/search", params={"query": " "}).status_code == 400
    assert client.get("/api/conversations/search", params={"query": "x" * 1001}).status_code == 400


def test_a_temporary_chat_is_marked_and_has_no_memory(live: LiveServer, client: httpx.Client) -> None:
    add(client, "Name is Mina.")
    made = client.post("/api/conversations", json={"temporary": True})
    assert (made.status_code, made.json()["temporary"], made.json()["title"]) == (201, True, "")
    events = ask(live, "I like tea.", conversation_id=made.json()["id"])
    assert not {"memories", "memory_saved"} & {event["type"] for event in events}
    assert only(events, "started")["title"] == "I like tea."
    (listed,) = client.get("/api/conversations").json()["conversations"]
    assert listed["temporary"] is True
    assert "temporary chat" in text_of(ask(live, "What do you know about me?", conversation_id=made.json()["id"]))
    assert texts(client) == ["Name is Mina."]
    assert client.post("/api/conversations", json={"temporary": True, "domain": "nowhere"}).status_code == 404
    assert client.post("/api/conversations", json={"user_id": "jun"}).status_code == 400


def test_a_command_is_answered_without_the_model(live: LiveServer, client: httpx.Client) -> None:
    add(client, "Likes tea.")
    told = ask(live, "What do you know about me?")
    assert "- Likes tea." in text_of(told)
    assert [memory["text"] for memory in only(told, "memories")["memories"]] == ["Likes tea."]
    assert only(told, "done")["usage"]["prompt_tokens"] == 0
    stored = client.get(f"/api/conversations/{told[0]['conversation_id']}").json()["messages"][-1]
    assert (stored["command"], [m["text"] for m in stored["memories_used"]]) == ("tell", ["Likes tea."])
    gone = ask(live, "Forget that I like tea")
    assert [memory["text"] for memory in only(gone, "memory_forgotten")["memories"]] == ["Likes tea."]
    assert texts(client) == []


def test_dead_letters_are_listed_tried_again_and_dismissed(live: LiveServer, client: httpx.Client) -> None:
    """The scripted model answers no JSON, so each reading fails until the letter is dead."""
    services: Services = live.app.state.services
    assert client.get("/api/memories/dead").json() == {"dead": []}
    queue = services.writer._queue
    queue.add(LOCAL_USER, "c", "m", "I have worked with owls for nine years.")
    (waiting,) = queue._database.connection().query("SELECT id FROM memory_queue")
    queue._database.connection().execute("UPDATE memory_queue SET dead = 1, reason = 'no JSON'")
    (letter,) = client.get("/api/memories/dead").json()["dead"]
    assert (letter["id"], letter["reason"], letter["conversation_id"]) == (waiting["id"], "no JSON", "c")
    assert client.post(f"/api/memories/dead/{letter['id']}/retry").status_code == 202
    assert client.post("/api/memories/dead/999/retry").status_code == 404
    assert client.delete("/api/memories/dead/999").status_code == 404
    queue._database.connection().execute("UPDATE memory_queue SET dead = 1")
    assert client.delete(f"/api/memories/dead/{letter['id']}").status_code == 204
    assert client.get("/api/memories/dead").json() == {"dead": []}


def test_open_pages_are_told_of_changes(live: LiveServer, client: httpx.Client) -> None:
    async def run() -> list[dict[str, Any]]:
        async with chat_session(live) as chat:
            await asyncio.to_thread(add, client, "Likes tea.")
            await chat.frame(type="stop", message_id="nothing")
            await chat.next()
            return chat.changes

    assert {"type": "changed", "what": "memories"} in asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "status"),
    [("", 400), (" \u200b\n ", 400), ("x" * 1_000_000, 413), ("My card is 4111 1111 1111 1111.", 400)],
)
def test_bad_texts_are_refused_and_nothing_is_kept(client: httpx.Client, text: str, status: int) -> None:
    refused = client.post("/api/memories", json={"text": text})
    assert refused.status_code == status
    assert refused.json()["error"]["message"]
    assert texts(client) == []


def test_what_was_held_back_is_kept_when_the_user_says_so(live: LiveServer, client: httpx.Client) -> None:
    (item,) = only(ask(live, "Remember that my password is hunter2secret."), "memory_held_back")["items"]
    assert (texts(client), item["reason"]) == ([], "secret")
    assert client.post("/api/memories", json={"text": item["text"]}).status_code == 400
    add(client, item["text"], confirmed=True)
    assert texts(client) == [item["text"]]


def test_emoji_and_control_characters_make_one_clean_line(client: httpx.Client) -> None:
    memory = add(client, "Likes\x07 tea\u202e 🍵\r\nand cake.")
    assert memory["text"] == "Likes tea 🍵 and cake."

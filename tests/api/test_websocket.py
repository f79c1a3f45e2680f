"""The protocol over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving, text_of


def slow_on_demand(request: object, prompt: str) -> str:
    return "word " * 20_000 if "slowly" in prompt else "All right."


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = make_workspace(tmp_path_factory.mktemp("ws"))
    with serving(make_app(folder, ScriptedEngine(slow_on_demand, adapters=["helper"], pause=0.005))) as served:
        yield served


async def test_send_and_answer(live: LiveServer) -> None:
    async with chat_session(live) as client:
        events = await client.ask("Hello")
        assert text_of(events) == "All right."
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        started = only(events, "started")
        more = await client.ask("Again", conversation_id=started["conversation_id"])
        assert only(more, "started")["parent_id"] == started["message_id"]
        assert client.changes  # the list of conversations changed


async def test_a_lost_connection_resumes_without_a_gap(live: LiveServer) -> None:
    async with chat_session(live) as client:
        await client.frame(type="send", request_id="r", text="Talk slowly")
        before = await client.until("token")
    async with chat_session(live) as client:
        await client.frame(type="resume", message_id=before[0]["message_id"], after_seq=before[-1]["seq"])
        after = [await client.next()]
        assert after[0]["seq"] == before[-1]["seq"] + 1
        await client.frame(type="stop", message_id=before[0]["message_id"])
        after += await client.until("closed")
    assert [event["seq"] for event in before + after] == list(range(1, len(before) + len(after) + 1))
    assert only(after, "done")["finish_reason"] == "cancelled"


async def test_two_chats_stream_at_once_over_one_socket(live: LiveServer) -> None:
    async with chat_session(live) as client:
        await client.frame(type="send", request_id="a", text="Talk slowly")
        await client.frame(type="send", request_id="b", text="Hello")
        closed: list[str] = []
        running = ""
        while not closed:
            event = await client.next()
            if event["type"] == "started" and event["request_id"] == "a":
                running = event["message_id"]
            if event["type"] == "closed":
                closed.append(event["message_id"])
        assert closed[0] != running  # the quick one overtakes
        await client.frame(type="stop", message_id=running)
        await client.until("closed")


@pytest.mark.parametrize(
    ("frame", "code", "says"),
    [
        ("", "invalid_input", "JSON"),
        ("not json", "invalid_input", "JSON"),
        (b"\xff\xfe\x00", "invalid_input", "UTF-8"),
        ('{"type": "sing"}', "invalid_input", "send"),
        ('{"type": "send", "request_id": "r"}', "invalid_input", "text"),
        ('{"type": "send", "request_id": "r", "text": "hi", "user_id": "mina"}', "invalid_input", "user_id"),
        ('{"type": "send", "request_id": "r", "text": "   "}', "invalid_input", "empty"),
        ('{"type": "send", "request_id": "r", "text": "\\ud800"}', "invalid_input", ""),
        (json.dumps({"type": "send", "request_id": "r", "text": "x" * 1_000_000}), "too_large", "262,144"),
        ('{"type": "send", "request_id": "r", "text": "hi", "domain": "nowhere"}', "not_found", "nowhere"),
        ('{"type": "send", "request_id": "r", "text": "hi", "conversation_id": "x"}', "not_found", "conversation"),
        ('{"type": "stop", "message_id": "x"}', "not_found", "message"),
        ('{"type": "resume", "message_id": "x", "after_seq": -1}', "invalid_input", "after_seq"),
        ('{"type": "resume", "message_id": "x"}', "not_found", "answer"),
        ('{"type": "regenerate", "request_id": "r", "message_id": "x"}', "not_found", "message"),
    ],
)
async def test_a_bad_frame_is_answered_and_the_connection_lives(
    live: LiveServer, frame: str | bytes, code: str, says: str
) -> None:
    async with chat_session(live) as client:
        await client.socket.send(frame)
        error = await client.next()
        assert (error["type"], error["code"]) == ("error", code)
        assert says in error["message"]
        assert text_of(await client.ask("Still there?")) == "All right."


async def test_text_that_is_no_utf_8_is_answered_too(live: LiveServer) -> None:
    async with chat_session(live) as client:
        await client.socket.send(b'{"type": "send", "text": "\xff"}', text=True)
        error = await client.next()
        assert (error["type"], error["code"]) == ("error", "invalid_input")
        assert "UTF-8" in error["message"]
        assert text_of(await client.ask("Still there?")) == "All right."


async def test_errors_give_the_request_back(live: LiveServer) -> None:
    async with chat_session(live) as client:
        await client.frame(type="send", request_id="mine", text=" ")
        assert (await client.next())["request_id"] == "mine"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost.evil"])
async def test_pages_of_other_sites_are_turned_away(live: LiveServer, origin: str) -> None:
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        async with connect(live.ws, additional_headers={"Origin": origin}) as socket:
            await socket.recv()


async def test_the_servers_own_page_may_connect(live: LiveServer) -> None:
    async with chat_session(live, additional_headers={"Origin": live.url}) as client:
        assert text_of(await client.ask("Hello")) == "All right."


async def test_a_gone_client_costs_nothing(live: LiveServer, tmp_path: Path) -> None:
    async with chat_session(live) as client:
        await client.frame(type="send", request_id="r", text="Hello")
        started = (await client.until("started"))[-1]
    async with chat_session(live) as client:
        await client.frame(type="resume", message_id=started["message_id"])
        assert text_of(await client.until("closed")) == "All right."

"""Frames that are nearly right, and stops that come at once: each is answered, none is a fault of the server, the
connection and its turns live on, and nothing is left running."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from server.types import GenerationRequest
from tests.fakes import ScriptedEngine
from tests.live import ChatClient, LiveServer, chat_session, make_app, make_workspace, only, serving, text_of
from tests.raw_http import errors_logged
from tests.tiers import cases

FRAMES = cases(1_000, 20_000)
PAIRS = cases(100, 1_000)
CONNECTIONS = 4
PATIENCE = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def script(request: GenerationRequest, prompt: str) -> str:
    return "word " * 400 if "slowly" in prompt else "All right."


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    engine = ScriptedEngine(script, adapters=["helper"], pause=0.001)
    with serving(make_app(make_workspace(tmp_path_factory.mktemp("frames")), engine)) as served:
        yield served


@pytest.fixture(autouse=True)
def nothing_is_logged_or_left(live: LiveServer) -> Iterator[None]:
    with errors_logged() as errors:
        yield
    assert errors == []
    services = live.app.state.services
    deadline = time.monotonic() + PATIENCE
    while services.engine.running or services.engine.expected or services.hub.connections_of("local"):
        assert time.monotonic() < deadline, "a turn or a connection is left"
        time.sleep(0.05)


VALUES: tuple[Any, ...] = (
    None, "", "x", "\x00", "\u202e", "newest", "general", "nowhere", "x" * 65, "x" * 5000, 0, 1, -1, 2**63, -(2**70),
    1.5, 1e308, True, False, [], {}, [[]], {"type": "send"}, ["x"] * 100, "한국어", "🙂", "forget that I like tea",
    "what do you know about me?", "My name is Mina.", "How do I return a lamp?",
)  # fmt: skip
SCRAPS = (
    '"',
    "{",
    "}",
    "[",
    ",",
    ":",
    "\\",
    "\\u0000",
    "\\ud800",
    "NaN",
    "-",
    "9" * 25,
    "null",
    "\n",
    "\x00",
    "\ufffe",
    "}{",
)


class Frames:
    """Random frames, near to right ones; the same from the same seed. Ids that the server gave come back in them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.conversations = ["unknown"]
        self.messages = ["unknown"]

    def next(self, request_id: str) -> str | bytes:
        choice = self._random.random()
        frame = self._valid(request_id)
        if choice < 0.15:
            return json.dumps(frame)
        if choice < 0.65:
            return json.dumps(self._changed(frame))
        text = self._torn(json.dumps(frame))
        return self._torn_bytes(text.encode(errors="surrogatepass")) if choice > 0.9 else text

    def _valid(self, request_id: str) -> dict[str, Any]:
        message, conversation = self._random.choice(self.messages), self._random.choice(self.conversations)
        send = {"type": "send", "request_id": request_id, "text": "Hello"}
        return self._random.choice(
            [
                send,
                send | {"conversation_id": conversation, "domain": "general"},
                send | {"conversation_id": conversation, "parent_id": message},
                send | {"temporary": True, "domain": None},
                {"type": "regenerate", "request_id": request_id, "message_id": message},
                {"type": "stop", "message_id": message},
                {"type": "resume", "message_id": message, "after_seq": 2},
            ]
        )

    def _changed(self, frame: dict[str, Any]) -> dict[str, Any]:
        for _ in range(self._random.randint(1, 2)):
            key = self._random.choice([*frame, "domain", "parent_id", "user_id"])
            if key != "request_id":
                if self._random.random() < 0.3:
                    frame.pop(key, None)
                else:
                    frame[key] = self._random.choice(VALUES)
        return frame

    def _torn(self, text: str) -> str:
        for _ in range(self._random.randint(1, 3)):
            start = self._random.randrange(len(text) + 1)
            end = min(len(text), start + self._random.randint(0, 8))
            middle = self._random.choice([*SCRAPS, "", text[start:end] * 2, "[" * 300])
            text = text[:start] + middle + text[end:]
        return text

    def _torn_bytes(self, data: bytes) -> bytes:
        torn = bytearray(data or b"{")
        for _ in range(3):
            torn[self._random.randrange(len(torn))] = self._random.randrange(256)
        return bytes(torn)


async def answered(
    client: ChatClient, frame: str | bytes, barrier: str
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Sends a frame, and one behind it that is refused: what the frame itself was refused with, and all that came."""
    await client.socket.send(frame)
    await client.frame(type="send", request_id=barrier)
    refused, events = None, []
    while True:
        event = await client.next(PATIENCE)
        if event["type"] == "error" and event.get("request_id") == barrier:
            return refused, events
        if event["type"] == "error" and "message_id" not in event:
            assert refused is None, f"{frame!r} was answered twice: {refused}, {event}"
            refused = event
        events.append(event)


async def send_many(live: LiveServer, seed: int, number: int) -> None:
    frames = Frames(seed)
    async with chat_session(live) as client:
        for turn in range(number):
            request_id = f"{seed}-{turn}"
            frame = frames.next(request_id)
            refused, events = await answered(client, frame, f"barrier-{request_id}")
            if refused is not None:
                assert refused["code"] != "internal", frame
                continue
            accepted = json.loads(frame)  # what is no JSON has to be refused
            if accepted["type"] in ("send", "regenerate"):
                mine = [event for event in events if event.get("request_id") == accepted["request_id"]]
                started = mine[0] if mine else (await client.until_request(accepted["request_id"], PATIENCE))[-1]
                frames.messages = [*frames.messages[-20:], started["message_id"], started["user_message_id"]]
                frames.conversations = [*frames.conversations[-20:], started["conversation_id"]]
        assert text_of(await ask_alone(client)) == "All right."


async def ask_alone(client: ChatClient) -> list[dict[str, Any]]:
    """A turn's events on a connection where others may still be running."""
    await client.frame(type="send", request_id="last", text="Hello", domain="general")
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != "closed":
        event = await client.next(PATIENCE)
        if event.get("request_id") == "last" or (events and event.get("message_id") == events[0]["message_id"]):
            events.append(event)
    return events


async def test_frames_that_are_nearly_right(live: LiveServer) -> None:
    await asyncio.gather(*(send_many(live, seed, FRAMES // CONNECTIONS) for seed in range(CONNECTIONS)))


async def stop_at_once(live: LiveServer, seed: int, number: int) -> None:
    chance = random.Random(seed)
    async with chat_session(live) as client:
        for turn in range(number):
            await client.frame(type="send", request_id=f"{seed}-{turn}", text="Talk slowly", domain="general")
            message_id = (await client.until("started", PATIENCE))[-1]["message_id"]
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.02)))
            stops = chance.choice((1, 1, 3))
            for _ in range(stops):
                await client.frame(type="stop", message_id=message_id)
            events = await client.until("closed", PATIENCE)
            await client.frame(type="send", request_id="barrier")
            events += await client.until_request("barrier", PATIENCE)
            assert only(events, "done")["finish_reason"] == "cancelled"
            late = [event["code"] for event in events if event["type"] == "error"][:-1]  # the last is the barrier's
            assert late == ["conflict"] * len(late)
            assert len(late) < stops


async def test_stops_right_after_sends(live: LiveServer) -> None:
    await asyncio.gather(*(stop_at_once(live, seed, PAIRS // CONNECTIONS) for seed in range(CONNECTIONS)))


async def test_connections_that_go_in_the_middle_leave_nothing(live: LiveServer) -> None:
    """Half of them without a goodbye."""
    for turn, _ in zip(itertools.count(), range(cases(20, 200)), strict=False):
        async with chat_session(live) as client:
            await client.frame(type="send", request_id="r", text="Talk slowly")
            await client.frame(type="resume", message_id="unknown")
            if turn % 2:
                client.socket.transport.abort()

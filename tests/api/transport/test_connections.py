"""Connections have a cap, and time limits: for a head, for a body, for a reader who takes nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.api.transport.connections import ConnectionLimits, ServerConfig, allow_open_files
from server.config import ServerSettings
from server.types import GenerationRequest
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, running, serving, text_of

PATIENCE = 60.0  # seconds; what is waited for comes in one or two
SHORT = {"server.header_seconds": 0.5, "server.body_seconds": 0.5, "server.write_seconds": 0.5}


@contextmanager
def server(folder: Path, flags: dict[str, Any], engine: ScriptedEngine | None = None) -> Iterator[LiveServer]:
    with serving(make_app(make_workspace(folder), engine, flags=flags)) as served:
        yield served


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def dial(live: LiveServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE)


def answer_on(connection: socket.socket) -> bytes:
    """One whole answer in JSON."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(65536) or b"}"
    return answer


def drip(connection: socket.socket, data: bytes, pause: float = 0.1) -> bytes:
    """Sends a byte at a time until the server has had enough; gives what it said."""
    connection.settimeout(pause)
    deadline = time.monotonic() + PATIENCE
    for byte in data:
        assert time.monotonic() < deadline, "the server takes a drip for ever"
        try:
            connection.sendall(bytes([byte]))
            return connection.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return b""
    raise AssertionError("the server took it all")


HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with server(tmp_path_factory.mktemp("strict"), SHORT) as served:
        yield served


def test_a_head_that_drips_is_cut_off(strict: LiveServer) -> None:
    with closing(dial(strict)) as connection:
        answer = drip(connection, HEAD + b"X-Slow: " + b"a" * 10_000)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_says_nothing_is_closed(strict: LiveServer) -> None:
    with closing(dial(strict)) as connection:
        assert answer_on(connection).startswith(b"HTTP/1.1 408 ")


def test_a_second_head_that_drips_is_cut_off(strict: LiveServer) -> None:
    with closing(dial(strict)) as connection:
        for _ in range(3):
            connection.sendall(HEAD + b"\r\n")
            assert answer_on(connection).startswith(b"HTTP/1.1 200 ")
        answer = drip(connection, HEAD + b"X-Slow: " + b"a" * 10_000)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_drips_is_cut_off(strict: LiveServer) -> None:
    with closing(dial(strict)) as connection:
        connection.sendall(b"POST /api/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000\r\n\r\n")
        assert drip(connection, b" " * 10_000).startswith(b"HTTP/1.1 408 ")


def test_a_slow_body_that_keeps_the_pace_is_taken(strict: LiveServer) -> None:
    body = json.dumps({"text": "Likes tea."}).encode() + b" " * 6000
    with closing(dial(strict)) as connection:
        head = "POST /api/memories HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), 2000):  # 2,000 bytes are granted two seconds
            connection.sendall(body[start : start + 2000])
            time.sleep(0.4)
        assert answer_on(connection).startswith(b"HTTP/1.1 201 ")


def test_a_refused_body_is_not_read_for_ever(tmp_path: Path) -> None:
    with (
        server(tmp_path, {**SHORT, "server.password": "correct horse battery"}) as live,
        closing(dial(live)) as connection,
    ):
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 8000000\r\n\r\n")
        assert answer_on(connection).startswith(b"HTTP/1.1 401 ")
        assert drip(connection, b" " * 100_000) == b""


# ── readers ──────────────────────────────────────────────────────────────────────────────────────


def endless(request: GenerationRequest, prompt: str) -> str:
    return ("x" * 40_000 + " ") * 512 if "flood" in prompt else "All right."  # 20 MB: more than sockets buffer


def test_a_reader_of_a_stream_who_takes_nothing_is_dropped(tmp_path: Path) -> None:
    engine = ScriptedEngine(endless)
    body = json.dumps(
        {"model": "base", "stream": True, "max_tokens": 4000, "messages": [{"role": "user", "content": "flood"}]}
    ).encode()
    with server(tmp_path, SHORT, engine) as live, closing(dial(live)) as connection:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: engine.running == 1)
        until(lambda: engine.running == 0)
        assert (engine.cancelled, engine.finished) == (1, 0)


async def test_the_time_of_a_request_is_not_the_time_of_a_socket(strict: LiveServer) -> None:
    async with chat_session(strict) as client:
        await asyncio.sleep(1.5)
        assert text_of(await client.ask("Hello")) == "All right."


async def test_a_slow_reader_of_the_socket_loses_nothing(tmp_path: Path) -> None:
    """It is dropped; the answer goes on, and another connection reads it from the first event."""
    with server(tmp_path, SHORT, ScriptedEngine(endless)) as live:
        async with connect(live.ws, max_queue=1, max_size=None, close_timeout=1) as socket:
            await socket.send(json.dumps({"type": "send", "request_id": "r", "text": "flood"}))
            message_id = ""
            while not message_id:
                event = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
                message_id = event.get("message_id", "")
            limits = live.app.state.services.hub
            deadline = time.monotonic() + PATIENCE
            while limits.connections_of("local"):  # not a frame is read here
                assert time.monotonic() < deadline, "a reader who takes nothing is kept"
                await asyncio.sleep(0.05)
        async with chat_session(live) as client:
            await client.frame(type="resume", message_id=message_id)
            events = await client.until("closed")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert text_of(events).count("x") == 40_000 * 512


# ── how many ─────────────────────────────────────────────────────────────────────────────────────


def test_the_connection_over_the_cap_is_told_so_and_room_comes_back(tmp_path: Path) -> None:
    with server(tmp_path, {"server.max_connections": 3}) as live, ExitStack() as stack:
        opened = [stack.enter_context(closing(dial(live))) for _ in range(3)]
        with closing(dial(live)) as over:
            answer = answer_on(over)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after" in answer
        opened[0].close()

        def served() -> bool:
            with closing(dial(live)) as again:
                again.sendall(HEAD + b"\r\n")
                return answer_on(again).startswith(b"HTTP/1.1 200 ")

        until(served)


def get_health(connection: socket.socket) -> bytes:
    connection.sendall(HEAD + b"\r\n")
    return answer_on(connection)


def test_those_that_wait_between_two_requests_make_room_for_others(tmp_path: Path) -> None:
    with server(tmp_path, {"server.max_connections": 2}) as live, ExitStack() as stack:
        kept = [stack.enter_context(closing(dial(live))) for _ in range(2)]
        for connection in (*kept, kept[0]):  # the second has waited longest in the end
            assert get_health(connection).startswith(b"HTTP/1.1 200 ")
        third = stack.enter_context(closing(dial(live)))
        assert get_health(third).startswith(b"HTTP/1.1 200 ")
        assert kept[1].recv(1) == b""
        assert get_health(kept[0]).startswith(b"HTTP/1.1 200 ")


def test_a_connection_is_kept_for_longer_than_clients_and_proxies_keep_it(strict: LiveServer) -> None:
    """httpx, and so the openai client, uses one again within 5 seconds, nginx within 60."""
    config = ServerConfig(strict.app, ServerSettings())
    assert config.timeout_keep_alive > 60
    with closing(dial(strict)) as connection:
        assert get_health(connection).startswith(b"HTTP/1.1 200 ")
        time.sleep(5.5)
        assert get_health(connection).startswith(b"HTTP/1.1 200 ")


class Peer(asyncio.Transport):
    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 50_000)})


def test_an_address_has_a_share_unless_it_speaks_for_many() -> None:
    settings = ServerSettings(max_connections=20, max_connections_per_address=3, trusted_proxies=("10.1.0.0/16",))
    limits = ConnectionLimits(settings)
    peers = {
        address: [Peer(address) for _ in range(5)]
        for address in ("203.0.113.7", "2001:db8::1", "127.0.0.1", "10.1.2.3")
    }
    entered = {address: [limits.enter(peer) for peer in many] for address, many in peers.items()}
    assert entered["203.0.113.7"] == entered["2001:db8::1"] == [True, True, True, False, False]
    assert entered["127.0.0.1"] == entered["10.1.2.3"] == [True] * 5
    limits.leave(peers["203.0.113.7"][0])
    limits.leave(peers["203.0.113.7"][0])  # a second time changes nothing
    assert limits.enter(peers["203.0.113.7"][3])
    assert not limits.enter(peers["203.0.113.7"][4])
    for many in peers.values():
        for peer in many:
            limits.leave(peer)
    assert len(limits) == 0


def test_an_address_beyond_its_share_closes_no_connection_of_others() -> None:
    limits = ConnectionLimits(ServerSettings(max_connections=20, max_connections_per_address=1))
    other, first, second = Peer("203.0.113.8"), Peer("203.0.113.7"), Peer("203.0.113.7")
    assert limits.enter(other)
    assert limits.enter(first)
    limits.mark(other, idle=True)
    assert not limits.enter(second)
    assert len(limits) == 2


async def test_five_hundred_idle_sockets_are_held_and_let_go(tmp_path: Path) -> None:
    allow_open_files(ServerSettings())
    with server(tmp_path, {}) as live:
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await asyncio.gather(
                    *(stack.enter_async_context(connect(live.ws, open_timeout=PATIENCE)) for _ in range(25))
                )
            async with chat_session(live) as client:
                assert text_of(await client.ask("Hello")) == "All right."
            assert live.app.state.services.hub.connections_of("local") >= 500
        deadline = time.monotonic() + PATIENCE
        while live.app.state.services.hub.connections_of("local"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_a_user_has_so_many_sockets(tmp_path: Path) -> None:
    with server(tmp_path, {"server.max_sockets_per_user": 2}) as live:
        async with chat_session(live), chat_session(live) as second:
            with pytest.raises(InvalidStatus) as refused:
                async with connect(live.ws):
                    pass
            assert refused.value.response.status_code == 409
            assert "server.max_sockets_per_user" in json.loads(refused.value.response.body)["error"]["message"]
            assert text_of(await second.ask("Hello")) == "All right."


async def test_resume_storms_keep_one_follower(tmp_path: Path) -> None:
    with server(tmp_path, {}, ScriptedEngine(lambda request, prompt: "word " * 300)) as live:
        async with chat_session(live) as client:
            events = await client.ask("Hello")
            message_id = events[-1]["message_id"]
            for _ in range(200):
                await client.frame(type="resume", message_id=message_id)
            await client.frame(type="stop", message_id="the last frame")
            before = await client.until("error")
            assert len(before) < 200 * len(events)
            assert text_of(await client.ask("Still there?"))


# ── whose address ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("proxies", "seen"), [(("127.0.0.1",), "203.0.113.9"), (("10.0.0.0/8",), "127.0.0.1"), ((), "127.0.0.1")]
)
def test_a_forwarded_address_is_believed_from_trusted_proxies_alone(proxies: tuple[str, ...], seen: str) -> None:
    async def who(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({"client": scope["client"][0]})(scope, receive, send)

    settings = ServerSettings(trusted_proxies=proxies)
    with ExitStack() as stack:
        port = stack.enter_context(running(ServerConfig(who, settings, port=0, log_level="error", lifespan="off")))
        connection = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)))
        connection.sendall(HEAD + b"X-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"client": seen}


async def test_a_frame_far_too_large_ends_only_its_connection(tmp_path: Path) -> None:
    with server(tmp_path, {}) as live:
        async with chat_session(live) as client:
            with suppress(ConnectionClosed):  # while it is being sent, or after it
                await client.socket.send("x" * 3_000_000)
            with pytest.raises(ConnectionClosed):
                await client.next()
        async with chat_session(live) as client:
            assert text_of(await client.ask("Hello")) == "All right."

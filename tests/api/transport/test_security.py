"""Who gets in, from where, and with how much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.api.transport.security import content_security_policy
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(make_app(make_workspace(tmp_path_factory.mktemp("open")))) as served:
        yield served


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = make_workspace(tmp_path_factory.mktemp("locked"))
    app = make_app(folder, flags={"server.password": PASSWORD, "server.allowed_origins": ["https://chat.example.org"]})
    app.state.services.accounts.add("mina", "minas password")
    app.state.services.accounts.add("jun", "juns password")
    with serving(app) as served:
        yield served


Login = Callable[[str, str], httpx.Client]


@pytest.fixture
def log_in(locked: LiveServer) -> Iterator[Login]:
    """Logs in and gives the client; all are closed after the test."""
    with ExitStack() as stack:

        def opened(name: str, password: str) -> httpx.Client:
            client = stack.enter_context(httpx.Client(base_url=locked.url, timeout=60))
            response = client.post("/api/login", json={"name": name, "password": password})
            assert response.status_code == 200, response.text
            return client

        yield opened


def test_without_a_login_only_this_machines_names_are_served(open_server: LiveServer) -> None:
    assert httpx.get(f"{open_server.url}/api/session", timeout=60).status_code == 200
    rebound = httpx.get(f"{open_server.url}/api/session", headers={"Host": "evil.example"}, timeout=60)
    assert (rebound.status_code, rebound.json()["error"]["code"]) == (403, "forbidden")


def status_for(live: LiveServer, host: str) -> int:
    return httpx.get(f"{live.url}/api/session", headers={"Host": host}, timeout=60).status_code


def test_allowed_hosts_are_served_and_no_other(tmp_path: Path) -> None:
    flags = {"server.allowed_hosts": ["Tailor", "chat.lan", "fd00::5"]}
    with serving(make_app(make_workspace(tmp_path), flags=flags)) as live:
        for host in ("tailor", "TAILOR:8321", "chat.lan:80", "[fd00::5]:8321", "localhost", "[::1]"):
            assert status_for(live, host) == 200, host
        for host in ("evil.example", "chat.lan.evil.example", "tailor.evil", "127.0.0.1.evil.example", ""):
            assert status_for(live, host) == 403, host
        refused = httpx.get(f"{live.url}/api/session", headers={"Host": "evil.example"}, timeout=60).json()
        assert "server.allowed_hosts" in refused["error"]["message"]


def test_with_a_login_every_host_is_served_until_some_are_named(locked: LiveServer, tmp_path: Path) -> None:
    assert status_for(locked, "anything.example") == 200
    flags = {"server.password": PASSWORD, "server.allowed_hosts": ["chat.lan"]}
    with serving(make_app(make_workspace(tmp_path), flags=flags)) as live:
        assert (status_for(live, "chat.lan"), status_for(live, "anything.example")) == (200, 403)


async def test_a_foreign_host_gets_no_socket(open_server: LiveServer) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect("ws://evil.example/ws", host="127.0.0.1", port=open_server.port):
            pass
    assert refused.value.response.status_code == 403


def test_the_description_of_the_api_needs_a_login(open_server: LiveServer, locked: LiveServer) -> None:
    assert httpx.get(f"{locked.url}/openapi.json", timeout=60).status_code == 401
    described = httpx.get(f"{open_server.url}/openapi.json", timeout=60).json()
    assert "/api/memories" in described["paths"]


def test_a_refusal_binds_the_browser_too(open_server: LiveServer) -> None:
    refused = httpx.get(f"{open_server.url}/", headers={"Host": "evil.example"}, timeout=60)
    assert "default-src 'self'" in refused.headers["content-security-policy"]


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_other_sites_cannot_write(open_server: LiveServer, method: str) -> None:
    foreign = {"Origin": "https://evil.example"}
    response = httpx.request(method, f"{open_server.url}/api/memories", headers=foreign, timeout=60)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")


def test_nothing_is_told_before_the_login(locked: LiveServer) -> None:
    session = httpx.get(f"{locked.url}/api/session", timeout=60).json()
    assert (session["user"], session["login_needed"], session["model"]) == (None, True, None)
    for path in (
        "/api/conversations",
        "/api/domains",
        "/api/knowledge",
        "/api/memories",
        "/api/adapters",
        "/v1/models",
    ):
        assert httpx.get(locked.url + path, timeout=60).status_code == 401, path
    assert httpx.post(f"{locked.url}/v1/embeddings", json={"input": "x"}, timeout=60).status_code == 401
    wrong = httpx.post(f"{locked.url}/api/login", json={"name": "admin", "password": "guess"}, timeout=60)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "unauthorized")


async def test_the_socket_needs_a_session(locked: LiveServer) -> None:
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        async with connect(locked.ws) as socket:
            await socket.recv()


async def test_users_have_their_own_chats_and_memories(locked: LiveServer, log_in: Login) -> None:
    mina = await asyncio.to_thread(log_in, "mina", "minas password")
    jun = await asyncio.to_thread(log_in, "jun", "juns password")
    cookie = f"tailor_session={mina.cookies['tailor_session']}"
    async with chat_session(locked, additional_headers={"Cookie": cookie}) as chat:
        events = await chat.ask("My name is Mina.", domain="general")
    conversation_id = only(events, "started")["conversation_id"]
    message_id = only(events, "started")["message_id"]
    (memory,) = only(events, "memory_saved")["memories"]
    assert jun.get("/api/conversations").json()["conversations"] == []
    assert jun.get("/api/memories").json()["memories"] == []
    assert jun.get(f"/api/conversations/{conversation_id}").status_code == 404
    assert jun.get(f"/api/messages/{message_id}/prompt").status_code == 404
    assert jun.delete(f"/api/conversations/{conversation_id}").status_code == 404
    assert jun.patch(f"/api/memories/{memory['id']}", json={"text": "Mine"}).status_code == 404
    assert jun.delete(f"/api/memories/{memory['id']}").status_code == 404
    async with chat_session(
        locked, additional_headers={"Cookie": f"tailor_session={jun.cookies['tailor_session']}"}
    ) as chat:
        for frame in (
            {"type": "resume", "message_id": message_id},
            {"type": "stop", "message_id": message_id},
            {"type": "regenerate", "message_id": message_id, "request_id": "r"},
            {"type": "send", "conversation_id": conversation_id, "text": "hi", "request_id": "r"},
        ):
            await chat.frame(**frame)
            assert (await chat.next())["code"] == "not_found"
    assert [m["text"] for m in mina.get("/api/memories").json()["memories"]] == [memory["text"]]


def test_only_admins_change_what_all_share(log_in: Login) -> None:
    mina = log_in("mina", "minas password")
    upload = mina.post("/api/knowledge/support", files=[("files", ("a.md", b"# A\n\ntext\n"))])
    assert upload.status_code == 403
    assert mina.delete("/api/knowledge/support/refunds.md").status_code == 403
    assert mina.post("/v1/load_lora_adapter", json={"lora_name": "helper"}).status_code == 403
    admin = log_in("admin", PASSWORD)
    assert admin.post("/v1/load_lora_adapter", json={"lora_name": "helper"}).status_code == 200


def test_a_logged_out_session_is_dead_and_the_cookie_is_strict(locked: LiveServer) -> None:
    with httpx.Client(base_url=locked.url, timeout=60) as client:
        response = client.post("/api/login", json={"name": "mina", "password": "minas password"})
        cookie = response.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        token = client.cookies["tailor_session"]
        assert client.post("/api/logout").status_code == 204
    assert httpx.get(f"{locked.url}/api/memories", cookies={"tailor_session": token}, timeout=60).status_code == 401


def test_api_keys_open_the_api(locked: LiveServer) -> None:
    key = locked.app.state.services.accounts.new_api_key("mina")
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{locked.url}/v1/models", headers=headers, timeout=60).status_code == 200
    wrong = {"Authorization": "Bearer tlr-no"}
    assert httpx.get(f"{locked.url}/v1/models", headers=wrong, timeout=60).status_code == 401


def test_an_allowed_origin_may_write(log_in: Login) -> None:
    mina = log_in("mina", "minas password")
    fine = mina.post("/api/memories", json={"text": "Likes tea."}, headers={"Origin": "https://chat.example.org"})
    assert fine.status_code == 201
    assert mina.delete(f"/api/memories/{fine.json()['id']}").status_code == 200
    near = mina.post("/api/memories", json={"text": "x"}, headers={"Origin": "https://chat.example.org.evil"})
    assert near.status_code == 403


def test_bodies_are_bounded_by_header_and_by_count(open_server: LiveServer) -> None:
    limit = 8 * 1024 * 1024

    def endless() -> Iterator[bytes]:
        for _ in range(limit // 65536 + 2):
            yield b"x" * 65536

    for content in (b"x" * (limit + 1), endless()):
        try:
            response = httpx.post(f"{open_server.url}/api/memories", content=content, timeout=60)
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            continue  # the server hung up while it was being flooded, which is as good
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
    assert httpx.get(f"{open_server.url}/health", timeout=60).status_code == 200


def test_the_policy_names_the_import_map_by_its_hash() -> None:
    page = '<script type="importmap">{"imports": {}}</script><script type="module" src="a.js"></script>'
    policy = content_security_policy(page)
    assert policy.count("'sha256-") == 1
    assert policy != content_security_policy(page.replace("{}", '{"a": "b"}'))
    assert "unsafe-inline" not in policy

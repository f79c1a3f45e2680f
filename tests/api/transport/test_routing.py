"""Who asks is known before a body is read, and each route's body has a bound of its own."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from fastapi.routing import APIRoute

from server.api.transport.routing import Route, declared_limit, guards_of
from tests.live import LiveServer, api_routes, make_app, make_workspace, serving

PASSWORD = "correct horse battery"
UPLOAD_BYTES = 30_000_000
PUBLIC = {"/api/login"}  # bodies of strangers


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = make_workspace(tmp_path_factory.mktemp("routing"))
    app = make_app(folder, flags={"server.password": PASSWORD, "server.max_upload_bytes": UPLOAD_BYTES})
    app.state.services.accounts.add("mina", "minas password")
    with serving(app) as served:
        yield served


@pytest.fixture(scope="module")
def keys(locked: LiveServer) -> dict[str, str]:
    accounts = locked.app.state.services.accounts
    return {name: f"Authorization: Bearer {accounts.new_api_key(name)}\r\n" for name in ("mina", "admin")}


@pytest.fixture(scope="module")
def routes(locked: LiveServer) -> list[APIRoute]:
    """Those with a body."""
    found = [route for route in api_routes(locked.app.routes) if route.body_field is not None]
    assert len(found) >= 14
    return found


def head_only(live: LiveServer, route: APIRoute, length: int, extra: str = "") -> tuple[int, str]:
    """The answer to a head that promises a body which never comes."""
    path = re.sub(r"{[^}]*}", "1", route.path)
    kind = "multipart/form-data; boundary=x" if is_upload(route) else "application/json"
    with closing(socket.create_connection(("127.0.0.1", live.port), timeout=60)) as connection:
        head = f"{next(iter(route.methods))} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        connection.sendall(f"{head}Content-Length: {length}\r\n{extra}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            chunk = connection.recv(65536)
            assert chunk, f"{path}: hung up after {answer!r}"
            answer += chunk
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return int(answer.split()[1]), str(error["message"])


def is_upload(route: APIRoute) -> bool:
    return route.path == "/api/knowledge/{folder}"


def test_every_body_has_its_bound_and_a_guard(routes: list[APIRoute]) -> None:
    for route in routes:
        limit = declared_limit(route.endpoint)
        assert isinstance(route, Route), f"{route.path}: its router needs route_class=Route"
        assert limit is not None, f"{route.path}: declare @takes_body(bytes) beside the route"
        guarded = any(guards_of(route.dependant))
        assert guarded != (route.path in PUBLIC), f"{route.path}: a guard that is marked @before_body, or PUBLIC here"
        if route.path in PUBLIC:
            assert limit.bytes <= 16 * 1024
            assert not limit.setting


def test_a_stranger_gets_401_before_the_body(locked: LiveServer, routes: list[APIRoute]) -> None:
    for route in routes:
        if route.path not in PUBLIC:
            assert head_only(locked, route, UPLOAD_BYTES)[0] == 401, route.path


def test_another_site_gets_403_before_the_body(
    locked: LiveServer, routes: list[APIRoute], keys: dict[str, str]
) -> None:
    for route in routes:
        status, message = head_only(locked, route, 1000, "Origin: https://evil.example\r\n" + keys["admin"])
        assert (status, "server.allowed_origins" in message) == (403, True), route.path


def test_a_user_gets_403_before_the_body_of_an_administrators_route(
    locked: LiveServer, routes: list[APIRoute], keys: dict[str, str]
) -> None:
    refused = {route.path for route in routes if head_only(locked, route, 10**15, keys["mina"])[0] == 403}
    assert "/api/knowledge/{folder}" in refused
    assert "/v1/load_lora_adapter" in refused
    assert "/api/memories" not in refused


def test_too_large_a_body_is_refused_by_its_length_with_the_bound(
    locked: LiveServer, routes: list[APIRoute], keys: dict[str, str]
) -> None:
    settings = locked.app.state.services.settings.server
    for route in routes:
        limit = declared_limit(route.endpoint)
        assert limit is not None
        most = limit.total(settings)
        status, message = head_only(locked, route, most + 1, keys["admin"])
        assert (status, f"{most:,}" in message) == (413, True), f"{route.path}: {message}"
        assert (f"server.{limit.setting}" in message) == bool(limit.setting)


def test_too_large_a_body_is_refused_by_count_where_no_length_is_told(
    locked: LiveServer, routes: list[APIRoute], keys: dict[str, str]
) -> None:
    for route in routes:
        limit = declared_limit(route.endpoint)
        if limit is None or limit.total(locked.app.state.services.settings.server) > 1_000_000:
            continue
        path = re.sub(r"{[^}]*}", "1", route.path)
        with closing(socket.create_connection(("127.0.0.1", locked.port), timeout=60)) as connection:
            head = (
                f"{next(iter(route.methods))} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            )
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n{keys['admin']}\r\n".encode())
            chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
            for _ in range(limit.bytes // 4096 + 1):
                connection.sendall(chunk)
            assert connection.recv(65536).split()[1] == b"413", path


def test_a_body_within_its_bound_is_taken(locked: LiveServer, keys: dict[str, str]) -> None:
    import httpx

    name, _, value = keys["admin"].strip().partition(": ")
    data = b"x" * (UPLOAD_BYTES - 100)
    files = [("files", ("large.bin", data))]
    answer = httpx.post(f"{locked.url}/api/knowledge/support", files=files, headers={name: value}, timeout=300)
    assert answer.status_code == 200
    stranger = httpx.post(f"{locked.url}/api/knowledge/support", files=files, timeout=300)
    assert stranger.status_code == 401  # it is read to its end or for a moment, so that the client sees the answer

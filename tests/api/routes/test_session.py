"""Logging in over HTTP: what a stranger may send, and what too much of it is answered with."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from server.accounts.throttle import ADDRESS_BUDGET, FREE_FAILURES
from tests.live import LiveServer, make_app, make_workspace, serving

PASSWORD = "correct horse battery"


@pytest.fixture
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(make_app(make_workspace(tmp_path_factory.mktemp("ws")), flags={"server.password": PASSWORD})) as live:
        yield live


def log_in(live: LiveServer, name: str, password: str, **cookies: str) -> httpx.Response:
    headers = {"Cookie": "; ".join(f"{key}={value}" for key, value in cookies.items())} if cookies else {}
    return httpx.post(f"{live.url}/api/login", json={"name": name, "password": password}, headers=headers, timeout=60)


@pytest.mark.parametrize(("name", "password", "field"), [("x" * 65, "y", "name"), ("admin", "y" * 1_025, "password")])
def test_what_is_too_long_is_named(locked: LiveServer, name: str, password: str, field: str) -> None:
    answer = log_in(locked, name, password)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")
    assert answer.json()["error"]["message"].startswith(f"{field}: ")


def test_too_many_failures_are_told_when_to_come_back(locked: LiveServer) -> None:
    token = log_in(locked, "admin", PASSWORD).cookies["tailor_session"]
    for _ in range(FREE_FAILURES):
        assert log_in(locked, "admin", "wrong password").status_code == 401
    refused = log_in(locked, "admin", PASSWORD)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    assert log_in(locked, "admin", PASSWORD, tailor_session=token).status_code == 200
    for n in range(ADDRESS_BUDGET):
        log_in(locked, f"name-{n}", "wrong password")
    assert log_in(locked, "fresh", "wrong password").status_code == 429
    assert log_in(locked, "admin", PASSWORD, tailor_session=token).status_code == 200
    assert httpx.get(f"{locked.url}/health", timeout=60).status_code == 200


def test_the_session_says_what_its_user_may(locked: LiveServer) -> None:
    user = log_in(locked, "admin", PASSWORD).json()["user"]
    assert (user["name"], user["admin"]) == ("admin", True)
    assert set(user["roles"]) == {"user", "admin"}
    assert "users:manage" in user["permissions"]

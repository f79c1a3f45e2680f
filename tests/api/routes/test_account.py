"""One's own account over HTTP: password, sessions, keys, export, erasing."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from tests.live import LiveServer, make_app, make_workspace, serving

PASSWORD = "minas password"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    app = make_app(make_workspace(tmp_path_factory.mktemp("ws")), flags={"server.password": "correct horse battery"})
    with serving(app) as served:
        yield served


@pytest.fixture
def mina(live: LiveServer) -> Iterator[httpx.Client]:
    accounts = live.app.state.services.accounts
    accounts.add("mina", PASSWORD)
    with log_in(live) as client:
        yield client
    if any(account.name == "mina" for account in accounts.list()):
        accounts.remove("mina")


def opened(live: LiveServer, password: str = PASSWORD, name: str = "mina", agent: str = "here") -> httpx.Client:
    client = httpx.Client(base_url=live.url, timeout=60, headers={"user-agent": agent})
    answer = client.post("/api/login", json={"name": name, "password": password})
    assert answer.status_code == 200, answer.text
    return client


def log_in(live: LiveServer, password: str = PASSWORD, name: str = "mina") -> closing[httpx.Client]:
    return closing(opened(live, password, name))


def test_a_new_password_needs_the_old_one_and_keeps_this_session(live: LiveServer, mina: httpx.Client) -> None:
    other = opened(live, agent="elsewhere")
    secret = mina.post("/api/account/keys", json={"name": "backup"}).json()["secret"]
    wrong = mina.put("/api/account/password", json={"old": "a guess", "new": "a new password"})
    assert (wrong.status_code, wrong.json()["error"]["message"]) == (401, "the password is wrong")
    short = mina.put("/api/account/password", json={"old": PASSWORD, "new": "short"})
    assert (short.status_code, short.json()["error"]["code"]) == (400, "invalid_input")
    assert other.get("/api/account").status_code == 200
    assert mina.put("/api/account/password", json={"old": PASSWORD, "new": "a new password"}).status_code == 204
    assert mina.get("/api/account").status_code == 200
    assert other.get("/api/account").status_code == 401
    assert (
        httpx.get(f"{live.url}/api/account", headers={"Authorization": f"Bearer {secret}"}, timeout=60).status_code
        == 401
    )
    opened(live, "a new password").close()
    other.close()


def test_sessions_are_listed_and_ended(live: LiveServer, mina: httpx.Client) -> None:
    others = [opened(live, agent=f"browser {n}") for n in range(3)]
    listed = mina.get("/api/account").json()["sessions"]
    assert {one["agent"] for one in listed} == {"here", "browser 0", "browser 1", "browser 2"}
    assert [one["agent"] for one in listed if one["current"]] == ["here"]
    assert {one["address"] for one in listed} == {"127.0.0.1"}
    assert all(one["last_seen"] >= one["created_at"] for one in listed)
    first = next(one["id"] for one in listed if one["agent"] == "browser 0")
    assert mina.delete(f"/api/account/sessions/{first}").status_code == 204
    assert [other.get("/api/account").status_code for other in others] == [401, 200, 200]
    assert mina.delete(f"/api/account/sessions/{first}").status_code == 404
    assert mina.delete("/api/account/sessions").json() == {"ended": 2}
    assert [other.get("/api/account").status_code for other in others] == [401, 401, 401]
    assert mina.get("/api/account").status_code == 200
    for other in others:
        other.close()


def test_keys_are_made_listed_and_revoked_and_make_no_keys(live: LiveServer, mina: httpx.Client) -> None:
    made = mina.post("/api/account/keys", json={"name": "backup"}).json()
    listed = mina.get("/api/account").json()["keys"]
    assert listed == [made["key"]]
    assert made["secret"].startswith(made["key"]["prefix"])
    assert made["secret"] not in json.dumps(listed)
    with httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {made['secret']}"}, timeout=60) as program:
        assert program.get("/api/account").json()["keys"][0]["last_used"] is not None
        for method, path, body in (
            ("POST", "/api/account/keys", {"name": "more"}),
            ("PUT", "/api/account/password", {"old": PASSWORD, "new": "a new password"}),
            ("POST", "/api/account/erase", {"password": PASSWORD}),
            ("DELETE", "/api/account/sessions", None),
        ):
            refused = program.request(method, path, json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), path
        assert mina.delete(f"/api/account/keys/{made['key']['id']}").status_code == 204
        assert program.get("/api/account").status_code == 401


def test_everything_of_mine_is_a_file_and_nothing_of_others(live: LiveServer, mina: httpx.Client) -> None:
    mina.post("/api/memories", json={"text": "Keeps a zebrafish."})
    secret = mina.post("/api/account/keys", json={"name": "backup"}).json()["secret"]
    with log_in(live, "correct horse battery", "admin") as admin:
        admin.post("/api/memories", json={"text": "Keeps a walrus."})
    answer = mina.get("/api/account/export")
    assert answer.headers["content-type"] == "application/zip"
    assert "tailor-mina-" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        text = "\n".join(archive.read(name).decode() for name in archive.namelist())
        account = json.loads(archive.read("account.json"))
    assert "zebrafish" in text
    assert "walrus" not in text
    assert secret not in text
    assert account["user"]["name"] == "mina"
    assert [key["name"] for key in account["keys"]] == ["backup"]


def test_erase_me_leaves_nothing(live: LiveServer, mina: httpx.Client) -> None:
    mina.post("/api/memories", json={"text": "Keeps a zebrafish."})
    user = mina.get("/api/account").json()["user"]["id"]
    assert mina.post("/api/account/erase", json={"password": "a guess"}).status_code == 401
    assert mina.get("/api/memories").json()["total"] == 1
    answer = mina.post("/api/account/erase", json={"password": PASSWORD})
    assert answer.json()["erased"]["memories"] == 1
    assert mina.get("/api/account").status_code == 401
    services = live.app.state.services
    db = services.accounts._database.connection()
    assert db["memories"].count_where("user_id = ?", [user]) == 0
    services.accounts.add("mina", PASSWORD)
    with log_in(live) as again:
        assert again.get("/api/memories").json()["total"] == 0


def test_the_only_administrator_cannot_erase_themself(live: LiveServer) -> None:
    with log_in(live, "correct horse battery", "admin") as admin:
        refused = admin.post("/api/account/erase", json={"password": "correct horse battery"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        assert admin.get("/api/account").status_code == 200


def test_without_accounts_there_is_none_to_change(tmp_path_factory: pytest.TempPathFactory) -> None:
    app = make_app(make_workspace(tmp_path_factory.mktemp("open")))
    with serving(app) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        assert client.get("/api/account").json()["user"]["name"] == "local"
        assert client.get("/api/account/export").status_code == 200
        for path, body in (("account/keys", {}), ("users", {"password": "y"}), ("groups", {})):
            refused = client.post(f"/api/{path}", json={"name": "x", **body})
            assert refused.status_code == 409
            assert "tailor users add" in refused.json()["error"]["message"]

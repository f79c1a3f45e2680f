"""A folder that is limited to named users, asked for by every way in: nobody else learns that it exists."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.test_rest import wait_for
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving
from tests.tiers import cases

PASSWORD = "long enough for all"
USERS = ("ann", "bob", "eve")  # eve is no administrator
GROUPS = {"night": ["bob", "eve"], "day": ["ann"], "none": []}
FOLDERS = ("alpha", "beta", "gamma")
QUESTION = "What is the code of the vault?"
DOMAIN = """---
title: Vault
description: Knows codes.
knowledge: [alpha, beta, gamma]
---
You answer.
"""


def secret(folder: str) -> str:
    return f"zebra{folder}zebra"


@dataclass
class Deployment:
    """A server with three users and three folders, each with a file that holds its own word."""

    live: LiveServer
    engine: ScriptedEngine
    root: Path
    clients: dict[str, httpx.Client] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def limit(self, folder: str, users: str | bytes | None) -> None:
        path = self.root / folder / ".users"
        if users is None:
            path.unlink(missing_ok=True)
            then = time.time() - 60
            os.utime(path.parent, (then, then))
        else:
            path.write_bytes(users if isinstance(users, bytes) else users.encode())

    def ask(self, user: str, **fields: Any) -> list[dict[str, Any]]:
        async def run() -> list[dict[str, Any]]:
            headers = {"Authorization": f"Bearer {self.keys[user]}"}
            async with chat_session(self.live, additional_headers=headers) as chat:
                return await chat.ask(QUESTION, domain="vault", **fields)

        return asyncio.run(run())

    def follow(self, user: str, message_id: str) -> list[dict[str, Any]]:
        async def run() -> list[dict[str, Any]]:
            headers = {"Authorization": f"Bearer {self.keys[user]}"}
            async with chat_session(self.live, additional_headers=headers) as chat:
                await chat.frame(type="resume", message_id=message_id)
                return await chat.until("closed")

        return asyncio.run(run())


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = make_workspace(tmp_path_factory.mktemp("access"))
    (folder / "prompts" / "vault.md").write_text(DOMAIN)
    for name in FOLDERS:
        path = folder / "knowledge" / name / "codes.md"
        path.parent.mkdir()
        path.write_text(f"# The vault\n\nThe code of the vault is {secret(name)}.\n")
    engine = ScriptedEngine(adapters=["helper"], context_length=65_536)
    app = make_app(folder, engine, flags={"server.password": PASSWORD, "retrieval.debounce_ms": 20})
    with ExitStack() as stack:
        live = stack.enter_context(serving(app))
        made = Deployment(live, engine, folder / "knowledge")
        for name in USERS:
            app.state.services.accounts.add(name, PASSWORD, admin=name != "eve")
            made.keys[name] = app.state.services.accounts.new_api_key(name)
            headers = {"Authorization": f"Bearer {made.keys[name]}"}
            made.clients[name] = stack.enter_context(httpx.Client(base_url=live.url, headers=headers, timeout=60))
        for group, members in GROUPS.items():
            app.state.services.groups.add(group, members)
        for name in FOLDERS:
            wait_for(made.clients["ann"], name, "codes.md", "indexed")
        yield made


@pytest.fixture(autouse=True)
def open_again(deployment: Deployment) -> Iterator[None]:
    yield
    for folder in FOLDERS:
        deployment.limit(folder, None)


RULES = st.sampled_from(
    [
        None,
        "",
        "# nobody\n",
        b"\xff\xfe",
        "ann\n",
        "bob\n",
        "eve\n",
        "ann\nbob\n",
        "Ann # x\nEVE\n",
        "@night\n",
        "@Day # x\nbob",
        "@none\nnight\n",
    ]
)


def allowed(rule: str | bytes | None, user: str) -> bool:
    """Said again, in other words than the product's."""
    if rule is None:
        return True
    text = rule.decode("latin-1") if isinstance(rule, bytes) else rule
    named = [line.split("#")[0].strip().lower() for line in text.split("\n")]
    return user in named or any(user in members for group, members in GROUPS.items() if f"@{group}" in named)


def check(body: object, hidden: list[str], route: str) -> None:
    """Neither the folder's name nor what is in it."""
    for folder in hidden:
        assert secret(folder) not in str(body), (route, folder)
        assert f"'{folder}'" not in str(body), (route, folder)


@settings(max_examples=cases(12, 1_000))
@given(rules=st.tuples(RULES, RULES, RULES))
def test_every_way_in_obeys_the_same_rule(deployment: Deployment, rules: tuple[str | bytes | None, ...]) -> None:
    for folder, rule in zip(FOLDERS, rules, strict=True):
        deployment.limit(folder, rule)
    ids = {folder: _passage_id(deployment, folder) for folder in FOLDERS}
    for user in USERS:
        may = [folder for folder, rule in zip(FOLDERS, rules, strict=True) if allowed(rule, user)]
        hidden = [folder for folder in FOLDERS if folder not in may]
        client = deployment.clients[user]
        _status(client, may, hidden, admin=user != "eve")
        _passages(client, ids, may)
        if user != "eve":
            _admin_routes(client, may, hidden)
        _chat(deployment, user, may, hidden)
        _openai(deployment, client, may, hidden)
    assert all((deployment.root / folder / "codes.md").exists() for folder in FOLDERS)


def _passage_id(deployment: Deployment, folder: str) -> str:
    base = deployment.live.app.state.services.knowledge.base
    return str(base.search(QUESTION, [folder]).passages[0].id)


def _status(client: httpx.Client, may: list[str], hidden: list[str], *, admin: bool) -> None:
    status = client.get("/api/knowledge").json()
    assert [folder["name"] for folder in status["folders"] if folder["name"] in FOLDERS] == may
    told = {limit["folder"] for limit in status["limited"] if not admin or not limit["problem"]}
    assert told <= set(may)
    domain = next(one for one in client.get("/api/domains").json()["domains"] if one["name"] == "vault")
    assert domain["knowledge"] == may
    if not admin:
        check(status, hidden, "status")


def _passages(client: httpx.Client, ids: dict[str, str], may: list[str]) -> None:
    for folder, passage in ids.items():
        response = client.get(f"/api/passages/{passage}")
        assert response.status_code == (200 if folder in may else 404)
        if folder not in may:
            unknown = client.get("/api/passages/0123456789abcdef").json()["error"]["message"]
            assert response.json()["error"]["message"].replace(passage, "0123456789abcdef") == unknown


def _admin_routes(client: httpx.Client, may: list[str], hidden: list[str]) -> None:
    for fields in ({}, {"folders": list(FOLDERS)}):
        found = client.post("/api/knowledge/search", json={"question": QUESTION, **fields}).json()
        assert {one["folder"] for one in found["trace"]["candidates"]} - {"support"} == set(may)
        check(found, hidden, "search")
    check(client.get("/api/knowledge/generations").json(), hidden, "history")
    assert not [told for made in client.get("/api/knowledge/generations").json()["generations"]
                for told in made["told"] if told["file"].split("/")[0] in hidden]  # fmt: skip
    for folder in hidden:
        sent = client.post(f"/api/knowledge/{folder}", files=[("files", ("evil.md", b"# E\n\nevil\n"))])
        assert sent.status_code == 404
        gone = client.delete(f"/api/knowledge/{folder}/codes.md")
        never = client.delete("/api/knowledge/nowhere/codes.md")
        assert (gone.status_code, never.status_code) == (404, 404)
        assert gone.json()["error"]["message"].replace(folder, "nowhere") == never.json()["error"]["message"]


def _chat(deployment: Deployment, user: str, may: list[str], hidden: list[str]) -> None:
    client = deployment.clients[user]
    deployment.engine.requests.clear()
    events = deployment.ask(user)
    check(events, hidden, "events")
    if may:
        evidence = only(events, "evidence")
        assert {one["passage"]["folder"] for one in evidence["passages"]} == set(may) == set(evidence["folders"])
    started = only(events, "started")
    check(client.get(f"/api/conversations/{started['conversation_id']}").json(), hidden, "conversation")
    check(client.get(f"/api/messages/{started['message_id']}/prompt").json(), hidden, "prompt")
    check(client.get(f"/api/messages/{started['message_id']}/trace").json(), hidden, "trace")
    (request,) = deployment.engine.requests
    seen = deployment.engine.tokenizer.decode(request.prompt)
    assert [folder for folder in FOLDERS if secret(folder) in seen] == may


def _openai(deployment: Deployment, client: httpx.Client, may: list[str], hidden: list[str]) -> None:
    deployment.engine.requests.clear()
    body = {"model": "vault", "messages": [{"role": "user", "content": QUESTION}]}
    answer = client.post("/v1/chat/completions", json=body).json()
    check(answer, hidden, "completion")
    assert {one["passage"]["folder"] for one in answer["tailor"]["passages"]} == set(may)
    (request,) = deployment.engine.requests
    seen = deployment.engine.tokenizer.decode(request.prompt)
    assert [folder for folder in FOLDERS if secret(folder) in seen] == may
    check(client.get("/v1/models").text, hidden, "models")


# ── single stories ───────────────────────────────────────────────────────────────────────────────


def test_a_chat_that_quotes_a_folder_loses_it_with_the_right_to_see_it(deployment: Deployment) -> None:
    """In the stored answer, its prompt, its trace, its stream and in what the model is told next."""
    deployment.limit("alpha", "ann\nbob\n")
    events = deployment.ask("bob")
    started = only(events, "started")
    client, message = deployment.clients["bob"], started["message_id"]
    answer = client.get(f"/api/conversations/{started['conversation_id']}").json()["messages"][1]
    numbers = {one["passage"]["folder"]: one["n"] for one in answer["passages"]}
    assert secret("alpha") in str(events)
    assert secret("alpha") in client.get(f"/api/messages/{message}/prompt").text

    deployment.limit("alpha", "ann\n")
    stored = client.get(f"/api/conversations/{started['conversation_id']}").json()
    check(stored, ["alpha"], "conversation")
    left = {one["passage"]["folder"]: one["n"] for one in stored["messages"][1]["passages"]}
    assert left == {folder: n for folder, n in numbers.items() if folder != "alpha"}  # the numbers stay
    assert client.get(f"/api/messages/{message}/prompt").status_code == 404
    check(client.get(f"/api/messages/{message}/trace").json(), ["alpha"], "trace")
    check(deployment.follow("bob", message), ["alpha"], "stream")
    deployment.engine.requests.clear()
    deployment.ask("bob", conversation_id=started["conversation_id"])
    (request,) = deployment.engine.requests
    assert secret("alpha") not in deployment.engine.tokenizer.decode(request.prompt)
    assert secret("beta") in deployment.engine.tokenizer.decode(request.prompt)

    deployment.limit("alpha", "bob\n")
    assert secret("alpha") in client.get(f"/api/messages/{message}/prompt").text


def test_an_administrator_hears_of_a_rule_that_lets_nobody_in(deployment: Deployment) -> None:
    deployment.limit("beta", "")
    (told,) = deployment.clients["ann"].get("/api/knowledge").json()["limited"]
    assert (told["folder"], told["users"]) == ("beta", [])
    assert "names nobody" in told["problem"]
    assert deployment.clients["eve"].get("/api/knowledge").json()["limited"] == []
    deployment.limit("beta", "eve\n")
    assert deployment.clients["eve"].get("/api/knowledge").json()["limited"] == [{"folder": "beta"}]


def test_what_is_told_of_the_whole_is_left_out_where_something_is_hidden(deployment: Deployment) -> None:
    history = deployment.clients["ann"].get("/api/knowledge/generations").json()["generations"]
    assert min(one["files"] for one in history) >= 0
    deployment.limit("gamma", "bob\n")
    history = deployment.clients["ann"].get("/api/knowledge/generations").json()["generations"]
    assert {one["files"] for one in history} | {one["chunks"] for one in history} <= {-1}
    everything = deployment.clients["bob"].get("/api/knowledge/generations").json()["generations"]
    assert min(one["files"] for one in everything) >= 0


def test_only_administrators_manage_the_index(deployment: Deployment) -> None:
    eve = deployment.clients["eve"]
    for method, path in (("GET", "generations"), ("POST", "rollback"), ("POST", "follow"), ("POST", "rebuild"),
                         ("POST", "search")):  # fmt: skip
        refused = eve.request(method, f"/api/knowledge/{path}", json={} if method == "POST" else None)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), path


def test_a_trace_is_its_owners_alone(deployment: Deployment) -> None:
    message = only(deployment.ask("ann"), "started")["message_id"]
    assert deployment.clients["ann"].get(f"/api/messages/{message}/trace").status_code == 200
    assert deployment.clients["bob"].get(f"/api/messages/{message}/trace").status_code == 404


def test_the_index_held_at_an_earlier_state_stays_limited_when_the_folder_is_gone(deployment: Deployment) -> None:
    path = deployment.root / "delta" / "codes.md"
    path.parent.mkdir()
    (path.parent / ".users").write_text("ann\n")
    path.write_text("# The vault\n\nThe code of the delta vault is zebradeltazebra.\n")
    ann, bob = deployment.clients["ann"], deployment.clients["bob"]
    wait_for(ann, "delta", "codes.md", "indexed")
    number = ann.get("/api/knowledge").json()["generation"]
    path.unlink()
    (path.parent / ".users").unlink()
    path.parent.rmdir()
    wait_for(ann, "delta", "codes.md", None)
    assert ann.post("/api/knowledge/rollback", json={"generation": number}).status_code == 200
    try:
        body = {"question": "code of the delta vault", "folders": ["delta"]}
        assert ann.post("/api/knowledge/search", json=body).json()["passages"]
        assert bob.post("/api/knowledge/search", json=body).json()["trace"]["candidates"] == []
    finally:
        assert ann.post("/api/knowledge/follow").status_code == 202


def test_on_loopback_without_accounts_the_one_user_may_everything(tmp_path: Path) -> None:
    folder = make_workspace(tmp_path)
    (folder / "knowledge" / "support" / ".users").write_text("ann\n")
    with serving(make_app(folder)) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        wait_for(client, "support", "refunds.md", "indexed")
        found = client.post("/api/knowledge/search", json={"question": "return a lamp within days"}).json()
        assert found["passages"]
        assert client.delete("/api/knowledge/support/refunds.md").status_code == 200

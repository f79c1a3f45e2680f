"""Nobody reaches what is another's: every route and every frame of the protocol, with the other's ids.

`OWNERS` declares for each route of the application whose what it gives is. A route that stands in no table fails, and
so does a parameter that no id is known for.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from server.api.protocol import ClientFrame
from server.types import UserId
from tests.api.test_rest import wait_for
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving
from tests.routes import all_routes, permission_of

PASSWORD = "long enough for all"
MARK = "zebrafish"  # in everything of Ann's

EVERYBODY = "everybody"  # needs no login, and gives nothing of anybody
CALLER = "caller"  # the caller's own things, whatever is asked
BY_ID = "by id"  # the thing of that id, where it is the caller's
SHARED = "shared"  # the same for all who may call it; what a list hides is hidden here too
MANAGED = "managed"  # needs a permission: another's account, never what they wrote

OWNERS = {
    "GET /": EVERYBODY,
    "GET /openapi.json": EVERYBODY,
    "MOUNT /static": EVERYBODY,
    "GET /health": EVERYBODY,
    "GET /health/live": EVERYBODY,
    "GET /health/ready": EVERYBODY,
    "GET /metrics": SHARED,
    "WS /ws": CALLER,
    "GET /api/session": CALLER,
    "POST /api/login": EVERYBODY,
    "POST /api/logout": CALLER,
    "GET /api/oidc/login": EVERYBODY,
    "GET /api/oidc/callback": EVERYBODY,
    "GET /api/account": CALLER,
    "GET /api/account/export": CALLER,
    "PUT /api/account/password": CALLER,
    "DELETE /api/account/sessions": CALLER,
    "DELETE /api/account/sessions/{session_id}": BY_ID,
    "POST /api/account/keys": CALLER,
    "DELETE /api/account/keys/{key_id}": BY_ID,
    "POST /api/account/erase": CALLER,
    "GET /api/users": MANAGED,
    "POST /api/users": MANAGED,
    "PATCH /api/users/{name}": MANAGED,
    "PUT /api/users/{name}/password": MANAGED,
    "DELETE /api/users/{name}": MANAGED,
    "GET /api/groups": MANAGED,
    "POST /api/groups": MANAGED,
    "PUT /api/groups/{group}": MANAGED,
    "DELETE /api/groups/{group}": MANAGED,
    "GET /api/audit": MANAGED,
    "GET /api/conversations": CALLER,
    "POST /api/conversations": CALLER,
    "GET /api/conversations/search": CALLER,
    "GET /api/conversations/{conversation_id}": BY_ID,
    "PATCH /api/conversations/{conversation_id}": BY_ID,
    "DELETE /api/conversations/{conversation_id}": BY_ID,
    "GET /api/conversations/{conversation_id}/memories": BY_ID,
    "GET /api/messages/{message_id}/prompt": BY_ID,
    "GET /api/messages/{message_id}/trace": BY_ID,
    "GET /api/memories": CALLER,
    "POST /api/memories": CALLER,
    "DELETE /api/memories": CALLER,
    "GET /api/memories/export": CALLER,
    "PUT /api/memories/paused": CALLER,
    "PUT /api/memories/domains/{name}": BY_ID,
    "GET /api/memories/dead": CALLER,
    "POST /api/memories/dead/{letter_id}/retry": BY_ID,
    "DELETE /api/memories/dead/{letter_id}": BY_ID,
    "GET /api/memories/{memory_id}/history": BY_ID,
    "PATCH /api/memories/{memory_id}": BY_ID,
    "DELETE /api/memories/{memory_id}": BY_ID,
    "GET /api/domains": SHARED,
    "GET /api/adapters": SHARED,
    "GET /api/knowledge": SHARED,
    "POST /api/knowledge/{folder}": BY_ID,
    "DELETE /api/knowledge/{folder}/{file:path}": BY_ID,
    "GET /api/passages/{passage_id}": BY_ID,
    "GET /api/knowledge/generations": SHARED,
    "POST /api/knowledge/search": SHARED,
    "POST /api/knowledge/rollback": SHARED,
    "POST /api/knowledge/follow": SHARED,
    "POST /api/knowledge/rebuild": SHARED,
    "POST /v1/load_lora_adapter": SHARED,
    "POST /v1/unload_lora_adapter": SHARED,
    "GET /v1/models": SHARED,
    "POST /v1/chat/completions": CALLER,
    "POST /v1/embeddings": CALLER,
}
BODIES: dict[str, Any] = {
    "PUT /api/account/password": {"old": "not the password", "new": "a new password"},
    "POST /api/account/keys": {"name": "own"},
    "POST /api/account/erase": {"password": "not the password"},
    "POST /api/login": {"name": "ann", "password": "not the password"},
    "POST /api/conversations": {},
    "PATCH /api/conversations/{conversation_id}": {"title": "Mine now"},
    "POST /api/memories": {"text": "Likes tea."},
    "PUT /api/memories/paused": {"paused": False},
    "PUT /api/memories/domains/{name}": {"used": False},
    "PATCH /api/memories/{memory_id}": {"text": "Mine now"},
    "POST /api/knowledge/search": {"question": "What is the code of the vault?"},
    "POST /api/knowledge/rollback": {"generation": 1},
    "POST /v1/load_lora_adapter": {"lora_name": "helper"},
    "POST /v1/unload_lora_adapter": {"lora_name": "helper"},
    "POST /v1/chat/completions": {
        "model": "auto",
        "messages": [{"role": "user", "content": "What is the vault's code?"}],
    },
    "POST /v1/embeddings": {"input": "x"},
}
QUERIES = {
    "GET /api/conversations/search": "?query=zebra+vault",
    "DELETE /api/memories": "?confirm=true",
    "DELETE /api/conversations/{conversation_id}": "?memories=forget",
    "GET /api/memories": "?past=true",
}
LAST = ("POST /api/logout", "DELETE /api/account/sessions")  # they end what the others need


@dataclass
class World:
    live: LiveServer
    ids: dict[str, str] = field(default_factory=dict)  # Ann's, by the name of the parameter
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    def snapshot(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of Ann's, and of hers alone."""
        db = self.live.app.state.services.accounts._database.connection()
        tables = [row["name"] for row in db.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
        owned = [name for name in tables if "user_id" in {column.name for column in db[name].columns}]
        ann = self.ids["user"]
        rows = {name: list(db.query(f"SELECT * FROM {name} WHERE user_id = ?", [ann])) for name in owned}
        return {name: sorted(found, key=str) for name, found in rows.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = make_workspace(tmp_path_factory.mktemp("ws"))
    _limited_to_ann(folder)
    app = make_app(folder, ScriptedEngine(adapters=["helper"]), flags={"server.password": PASSWORD})
    accounts = app.state.services.accounts
    for name, admin in (("ann", False), ("bob", False), ("eve", True)):
        accounts.add(name, PASSWORD, admin=admin)
    with ExitStack() as stack:
        made = World(stack.enter_context(serving(app)))
        for name in ("ann", "bob", "eve"):
            client = stack.enter_context(httpx.Client(base_url=made.live.url, timeout=60))
            client.headers["user-agent"] = f"{MARK} browser" if name == "ann" else "other"
            assert client.post("/api/login", json={"name": name, "password": PASSWORD}).status_code == 200
            made.clients[name] = client
        wait_for(made.clients["ann"], "vault", "codes.md", "indexed")
        made.ids = _things_of_ann(made)
        yield made


def _limited_to_ann(workspace: Path) -> None:
    vault = workspace / "knowledge" / "vault"
    vault.mkdir()
    (vault / "codes.md").write_text(f"# The vault\n\nThe code of the vault is {MARK}.\n")
    (vault / ".users").write_text("ann\n")
    (workspace / "prompts" / "vault.md").write_text(
        f"---\ntitle: {MARK}\nknowledge: [vault]\naccess: [ann]\nroutes: [The code of the vault]\n---\nYou answer.\n"
    )


def _things_of_ann(world: World) -> dict[str, str]:
    client, services = world.clients["ann"], world.live.app.state.services
    account = client.get("/api/account").json()
    user = account["user"]["id"]
    key = client.post("/api/account/keys", json={"name": MARK}).json()["key"]
    memory = client.post("/api/memories", json={"text": f"Keeps a {MARK}."}).json()

    async def chat() -> dict[str, Any]:
        cookie = f"tailor_session={client.cookies['tailor_session']}"
        async with chat_session(world.live, additional_headers={"Cookie": cookie}) as socket:
            return only(await socket.ask(f"What is the code of the vault, {MARK}?", domain="vault"), "started")

    started = asyncio.run(chat())
    answer = client.get(f"/api/conversations/{started['conversation_id']}").json()["messages"][1]
    with services.accounts._database.transaction() as db:
        db.execute(
            "INSERT INTO memory_queue "
            "(user_id, conversation_id, message_id, text, created_at, due, attempts, reason, dead) "
            "VALUES (?, ?, ?, ?, ?, 0, 3, 'no JSON', 1)",
            [user, started["conversation_id"], started["user_message_id"], f"A story of a {MARK}", time.time()],
        )
    (letter,) = services.writer.dead_letters(UserId(user))
    return {
        "user": user,
        "name": "ann",
        "group": "board",
        "session_id": account["sessions"][0]["id"],
        "key_id": key["id"],
        "conversation_id": started["conversation_id"],
        "message_id": started["message_id"],
        "parent_id": started["message_id"],
        "memory_id": str(memory["id"]),
        "letter_id": str(letter.id),
        "domain": "vault",
        "folder": "vault",
        "file": "codes.md",
        "passage_id": answer["passages"][0]["passage"]["id"],
    }


def call(world: World, client: httpx.Client, name: str) -> httpx.Response:
    """The route with Ann's ids in its path."""
    method, _, path = name.partition(" ")
    for parameter in re.findall(r"\{(\w+)(?::path)?\}", path):
        thing = "domain" if parameter == "name" and "/domains/" in path else parameter
        path = re.sub(rf"\{{{parameter}(:path)?\}}", world.ids[thing], path)
    options: dict[str, Any] = {"json": BODIES[name]} if name in BODIES else {}
    if name == "POST /api/knowledge/{folder}":
        options = {"files": [("files", ("codes.md", b"# Mine now\n\nText.\n"))]}
    return client.request(method, path + QUERIES.get(name, ""), **options)


def test_every_route_declares_whose_it_is(world: World) -> None:
    assert set(all_routes(world.live.app)) == set(OWNERS)


def test_what_is_managed_needs_a_permission(world: World) -> None:
    for name, route in all_routes(world.live.app).items():
        if OWNERS[name] == MANAGED:
            assert permission_of(route) is not None, name


def test_the_owner_has_it_all(world: World) -> None:
    """So that what others do not get is there to be had."""
    for name, owner in OWNERS.items():
        if owner == BY_ID and name.startswith("GET"):
            answer = call(world, world.clients["ann"], name)
            assert answer.status_code == 200, (name, answer.text)
            if not name.endswith("/memories"):
                assert MARK in answer.text, name


@pytest.mark.parametrize("who", ["nobody", "bob", "eve"])
def test_no_route_gives_another_what_is_anns(world: World, who: str) -> None:
    before = world.snapshot()
    asked = [name for name in OWNERS if not name.startswith(("WS", "MOUNT")) and name not in LAST]
    client = world.clients.get(who) or httpx.Client(base_url=world.live.url, timeout=60)
    for name in (*asked, *LAST):
        if OWNERS[name] == MANAGED and who == "eve":
            continue  # what an administrator may do to an account: tests/api/routes/test_users.py
        answer = call(world, client, name)
        assert MARK not in answer.text.lower(), (name, answer.text[:2_000])
        allowed = {EVERYBODY: None, BY_ID: {403, 404}, MANAGED: {401, 403}}.get(OWNERS[name])
        if who == "nobody" and OWNERS[name] != EVERYBODY and name not in ("GET /api/session", "POST /api/logout"):
            allowed = {401}
        assert allowed is None or answer.status_code in allowed, (name, answer.status_code, answer.text)
        assert answer.status_code < 500, (name, answer.text)
    after = world.snapshot()
    for rows in (*before.values(), *after.values()):
        for row in rows:
            row.pop("last_seen", None)
    assert after == before
    if who == "nobody":
        client.close()


def test_no_administrator_is_shown_what_ann_wrote(world: World) -> None:
    eve = httpx.Client(base_url=world.live.url, timeout=60)
    assert eve.post("/api/login", json={"name": "eve", "password": PASSWORD}).status_code == 200
    for name in ("GET /api/users", "GET /api/groups", "GET /api/audit"):
        answer = call(world, eve, name)
        assert answer.status_code == 200
        assert MARK not in answer.text
    eve.close()


# ── frames ───────────────────────────────────────────────────────────────────────────────────────


def frames(world: World) -> list[dict[str, Any]]:
    """Each frame of the protocol with each id that it takes being Ann's, one after another."""
    made = []
    for kind in get_args(get_args(ClientFrame)[0]):
        fields = kind.model_fields
        required: dict[str, Any] = {"type": get_args(fields["type"].annotation)[0]}
        required |= {"text": "What is the vault's code?"} if "text" in fields else {}
        required |= {"request_id": "r"} if "request_id" in fields else {}
        ids = [name for name in fields if name in ("domain",) or (name.endswith("_id") and name != "request_id")]
        assert ids, f"{kind} takes no id"
        made += [required | {name: world.ids[name]} for name in ids if name != "parent_id"]
    return made


async def test_no_frame_reaches_what_is_anns(world: World) -> None:
    key = world.live.app.state.services.accounts.new_api_key("bob")
    before = world.snapshot()
    asked = [one for one in frames(world) if {"message_id", "conversation_id", "domain"} & set(one)]
    assert {one["type"] for one in asked} == {"send", "regenerate", "stop", "resume"}
    async with chat_session(world.live, additional_headers={"Authorization": f"Bearer {key}"}) as chat:
        own = only(await chat.ask("Hello"), "started")["conversation_id"]
        for parent in (world.ids["parent_id"],):
            asked.append({"type": "send", "request_id": "r", "text": "x", "conversation_id": own, "parent_id": parent})
        for frame in asked:
            if frame["type"] == "regenerate" and "message_id" not in frame:
                continue  # it does not parse without
            await chat.socket.send(json.dumps(frame))
            answer = await chat.next()
            assert (answer["type"], answer["code"]) == ("error", "not_found"), (frame, answer)
            assert MARK not in str(answer)
    assert world.snapshot() == before

"""What administrators and curators change, who may, and that the audit log has it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from server.accounts import GRANTS, Account, Action, AuditLog, Permission, Role
from server.database import Database
from server.types import UserId
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, serving
from tests.routes import all_routes, permission_of

PASSWORD = "long enough for all"
READS = ("GET",)
TRIES = ("POST /api/knowledge/search",)  # asks, and changes nothing

# How to call each route that changes what others share, in an order that works.
CALLS: list[tuple[str, str, dict[str, Any], Action]] = [
    ("POST /api/users", "/api/users", {"json": {"name": "new", "password": PASSWORD}}, Action.USER_ADDED),
    ("PATCH /api/users/{name}", "/api/users/new", {"json": {"roles": ["curator"]}}, Action.ROLES_CHANGED),
    ("PUT /api/users/{name}/password", "/api/users/new/password", {"json": {"password": "another password"}},
     Action.PASSWORD_RESET),
    ("POST /api/groups", "/api/groups", {"json": {"name": "sales", "members": ["new"]}}, Action.GROUP_ADDED),
    ("PUT /api/groups/{group}", "/api/groups/sales", {"json": {"members": []}}, Action.GROUP_CHANGED),
    ("DELETE /api/groups/{group}", "/api/groups/sales", {}, Action.GROUP_REMOVED),
    ("DELETE /api/users/{name}", "/api/users/new?confirm=true", {}, Action.USER_REMOVED),
    ("POST /api/knowledge/{folder}", "/api/knowledge/support",
     {"files": [("files", ("new.md", b"# New\n\nText.\n"))]}, Action.KNOWLEDGE_UPLOADED),
    ("DELETE /api/knowledge/{folder}/{file:path}", "/api/knowledge/support/new.md", {}, Action.KNOWLEDGE_DELETED),
    ("POST /api/knowledge/rollback", "/api/knowledge/rollback", {"json": {"generation": 1}},
     Action.KNOWLEDGE_ROLLED_BACK),
    ("POST /api/knowledge/follow", "/api/knowledge/follow", {}, Action.KNOWLEDGE_FOLLOWED),
    ("POST /api/knowledge/rebuild", "/api/knowledge/rebuild", {}, Action.KNOWLEDGE_REBUILT),
    ("POST /v1/load_lora_adapter", "/v1/load_lora_adapter", {"json": {"lora_name": "helper"}}, Action.ADAPTER_LOADED),
    ("POST /v1/unload_lora_adapter", "/v1/unload_lora_adapter", {"json": {"lora_name": "helper"}},
     Action.ADAPTER_UNLOADED),
]  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = make_workspace(tmp_path_factory.mktemp("ws"))
    engine = ScriptedEngine(adapters=["helper"])
    with serving(make_app(folder, engine, flags={"server.password": PASSWORD})) as served:
        for role in Role:
            served.app.state.services.accounts.add(f"the-{role}", PASSWORD, roles=[role])
        yield served


def client_of(live: LiveServer, name: str) -> closing[httpx.Client]:
    client = httpx.Client(base_url=live.url, timeout=60)
    assert client.post("/api/login", json={"name": name, "password": PASSWORD}).status_code == 200
    return closing(client)


def entries(live: LiveServer) -> list[dict[str, Any]]:
    with client_of(live, "admin") as admin:
        return list(admin.get("/api/audit?limit=500").json()["entries"])


def changing(live: LiveServer) -> set[str]:
    """Routes that need a permission and are no mere look."""
    return {
        name
        for name, route in all_routes(live.app).items()
        if permission_of(route) is not None and not name.startswith(READS) and name not in TRIES
    }


def test_every_route_that_changes_what_others_share_is_recorded(live: LiveServer) -> None:
    assert {name for name, *_ in CALLS} == changing(live)
    with client_of(live, "admin") as admin:
        for name, path, options, action in CALLS:
            before = entries(live)[0]["id"]
            answer = admin.request(name.split()[0], path, **options)
            assert answer.is_success, (name, answer.text)
            made = [entry for entry in entries(live) if entry["id"] > before and entry["action"] == action]
            assert len(made) == 1, name
            assert (made[0]["actor"], made[0]["address"]) == ("admin", "127.0.0.1")
            assert "password" not in json.dumps(made[0]).replace("user.password", "")


@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_what_the_table_says_and_no_more(live: LiveServer, role: Role) -> None:
    """What is permitted may fail for another reason; what is not is refused before anything else is looked at."""
    with client_of(live, f"the-{role}") as client:
        session = client.get("/api/session").json()["user"]
        assert set(session["permissions"]) == GRANTS[role]
        for name, route in all_routes(live.app).items():
            permission = permission_of(route)
            method, _, path = name.partition(" ")
            if permission is None or (permission in GRANTS[role]):
                continue
            refused = client.request(method, path.replace("{file:path}", "x").replace("{", "").replace("}", ""))
            assert refused.status_code == 403, name
            assert permission in refused.json()["error"]["message"] or path.startswith("/v1"), name


def test_a_curator_writes_knowledge_and_a_trainer_loads_adapters(live: LiveServer) -> None:
    with client_of(live, "the-curator") as curator:
        files = [("files", ("c.md", b"# C\n\nText.\n"))]
        assert curator.post("/api/knowledge/support", files=files).status_code == 200
        assert curator.get("/api/knowledge/generations").status_code == 200
        assert curator.post("/v1/load_lora_adapter", json={"lora_name": "helper"}).status_code == 403
    for role in (Role.TRAINER, Role.APPROVER):
        with client_of(live, f"the-{role}") as trainer:
            assert trainer.post("/v1/load_lora_adapter", json={"lora_name": "helper"}).status_code == 200
            assert trainer.post("/v1/unload_lora_adapter", json={"lora_name": "helper"}).status_code == 200
            assert trainer.post("/api/knowledge/rebuild").status_code == 403


def test_accounts_are_managed(live: LiveServer) -> None:
    with client_of(live, "admin") as admin:
        made = admin.post("/api/users", json={"name": "Jun", "password": PASSWORD, "roles": ["curator"]})
        assert (made.status_code, made.json()["name"], made.json()["roles"]) == (201, "jun", ["curator", "user"])
        assert admin.post("/api/users", json={"name": "jun", "password": PASSWORD}).status_code == 409
        assert admin.post("/api/users", json={"name": "jan", "password": "short"}).status_code == 400
        assert (
            admin.post("/api/users", json={"name": "jan", "password": PASSWORD, "roles": ["king"]}).status_code == 400
        )
        listed = {user["name"]: user for user in admin.get("/api/users").json()["users"]}
        assert listed["jun"]["permissions"] == ["knowledge:write"]
        assert admin.put("/api/users/jun/password", json={"password": "another password"}).status_code == 204
        assert admin.delete("/api/users/jun").status_code == 400  # not without confirm
        assert admin.delete("/api/users/admin?confirm=true").status_code == 409
        assert admin.delete("/api/users/jun?confirm=true").json()["erased"]["conversations"] == 0
        for missing in (
            admin.delete("/api/users/jun?confirm=true"),
            admin.patch("/api/users/jun", json={"roles": []}),
            admin.put("/api/users/jun/password", json={"password": PASSWORD}),
        ):
            assert missing.status_code == 404


def test_a_role_taken_away_is_gone_at_the_next_request(live: LiveServer) -> None:
    services = live.app.state.services
    with client_of(live, "the-curator") as curator:
        services.accounts.set_roles("the-curator", [])
        try:
            assert curator.get("/api/knowledge/generations").status_code == 403
        finally:
            services.accounts.set_roles("the-curator", ["curator"])
        assert curator.get("/api/knowledge/generations").status_code == 200


# ── the audit log ────────────────────────────────────────────────────────────────────────────────


def test_signing_in_and_out_and_ones_own_account_are_recorded(live: LiveServer) -> None:
    before = entries(live)[0]["id"]
    accounts = live.app.state.services.accounts
    accounts.add("kim", PASSWORD)
    for name in ("kim", "hunter2-typed-here"):
        httpx.post(f"{live.url}/api/login", json={"name": name, "password": "a wrong one"}, timeout=60)
    with client_of(live, "kim") as kim:
        key = kim.post("/api/account/keys", json={"name": "private label"}).json()
        kim.delete(f"/api/account/keys/{key['key']['id']}")
        client_of(live, "kim").thing.close()
        kim.delete("/api/account/sessions")
        kim.get("/api/account/export")
        kim.put("/api/account/password", json={"old": PASSWORD, "new": "another password"})
        kim.post("/api/logout")
        kim.post("/api/logout")
        kim.post("/api/login", json={"name": "kim", "password": "another password"})
        kim.post("/api/account/erase", json={"password": "another password"})
    made = [entry for entry in reversed(entries(live)) if entry["id"] > before and entry["actor"] != "admin"]
    assert [(entry["actor"], entry["action"], entry["target"]) for entry in made] == [
        ("", "session.refused", "kim"),
        ("", "session.refused", ""),
        ("kim", "session.opened", ""),
        ("kim", "key.made", key["key"]["prefix"]),
        ("kim", "key.revoked", ""),
        ("kim", "session.opened", ""),
        ("kim", "session.revoked", ""),
        ("kim", "account.exported", ""),
        ("kim", "password.changed", ""),
        ("kim", "session.closed", ""),
        ("kim", "session.opened", ""),
        ("kim", "account.erased", "kim"),
    ]
    told = json.dumps(made)
    for secret in (PASSWORD, "another password", "a wrong one", "hunter2", key["secret"], "private label"):
        assert secret not in told


def test_no_text_of_a_user_is_in_it(live: LiveServer) -> None:
    key = live.app.state.services.accounts.new_api_key("the-curator")
    headers = {"Authorization": f"Bearer {key}"}

    async def chat() -> None:
        async with chat_session(live, additional_headers=headers) as socket:
            await socket.ask("Do you know the zebrafish?")

    asyncio.run(chat())
    httpx.post(f"{live.url}/api/memories", json={"text": "Keeps a zebrafish."}, headers=headers, timeout=60)
    assert "zebrafish" not in json.dumps(entries(live))


def test_a_folder_that_its_reader_may_not_see_is_not_named(live: LiveServer) -> None:
    folder = live.app.state.services.settings.paths.knowledge / "board"
    folder.mkdir()
    (folder / ".users").write_text("the-curator\n")
    with client_of(live, "the-curator") as curator:
        curator.post("/api/knowledge/board", files=[("files", ("merger.md", b"# M\n\nText.\n"))])
    newest = entries(live)
    assert next(entry["action"] for entry in newest if entry["actor"] == "the-curator") == "knowledge.uploaded"
    assert "merger" not in json.dumps(newest)
    assert "board" not in json.dumps(newest)


def test_pages_of_the_log(live: LiveServer) -> None:
    with client_of(live, "admin") as admin:
        whole = admin.get("/api/audit?limit=500").json()
        assert whole["next"] is None
        seen: list[dict[str, Any]] = []
        following: int | None = None
        while True:
            page = admin.get("/api/audit", params={"limit": 7, **({"before": following} if following else {})}).json()
            seen += page["entries"]
            following = page["next"]
            if following is None:
                break
        assert seen == whole["entries"]
        for bad in ("limit=0", "limit=501", "before=0", f"before={2**63}", "before=x"):
            assert admin.get(f"/api/audit?{bad}").status_code == 400


def test_rows_are_final_and_go_when_they_are_old(tmp_path_factory: pytest.TempPathFactory) -> None:
    database = Database(tmp_path_factory.mktemp("audit") / "tailor.db")
    log = AuditLog(database, keep_days=1)
    log.record(Action.SIGNED_IN, Account(UserId("1"), "kim"), address="203.0.113.7")
    with pytest.raises(sqlite3.IntegrityError, match="only added to"), database.transaction() as db:
        db.execute("UPDATE audit_log SET actor = 'somebody else'")
    assert [(entry.actor, entry.address) for entry in log.page()] == [("kim", "203.0.113.7")]
    with database.transaction() as db:
        db.execute(
            "INSERT INTO audit_log SELECT 9, 1.0, actor_id, actor, action, target, detail, address FROM audit_log"
        )
    log.record(Action.SIGNED_OUT, None)
    assert [entry.action for entry in log.page()] == ["session.closed", "session.opened"]


def test_who_may_read_it(live: LiveServer) -> None:
    assert [role for role in Role if Permission.AUDIT_READ in GRANTS[role]] == [Role.ADMIN]

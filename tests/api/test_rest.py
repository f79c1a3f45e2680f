"""The HTTP API over the real parts, with a scripted engine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.web import STATIC
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving

HELLO = {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("rest"))


@pytest.fixture(scope="module")
def live(workspace: Path) -> Iterator[LiveServer]:
    with serving(
        make_app(workspace, ScriptedEngine(adapters=["helper"]), flags={"server.max_upload_bytes": 4096})
    ) as s:
        yield s


@pytest.fixture
def client(live: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=60) as http_client:
        yield http_client


def wait_for(client: httpx.Client, folder: str, file: str, state: str | None) -> dict[str, Any] | None:
    """The file's status once it has `state`; with None, once the file is gone."""
    deadline = time.monotonic() + 120
    found: dict[str, Any] | None = None
    while time.monotonic() < deadline:
        status = client.get("/api/knowledge").json()
        files = [f for each in status["folders"] if each["name"] == folder for f in each["files"] if f["file"] == file]
        found = files[0] if files else None
        if (found["state"] if found else None) == state and not status["busy"]:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{folder}/{file} is {found}, not {state}")


def ask(live: LiveServer, text: str, **fields: Any) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        async with chat_session(live) as chat:
            return await chat.ask(text, **fields)

    return asyncio.run(run())


def test_health_and_session(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"ok": True, "running": 0, "waiting": 0, "reason": ""}
    session = client.get("/api/session").json()
    assert session["user"].items() >= {"id": "local", "name": "local", "admin": True}.items()
    assert session["login_needed"] is False
    assert session["model"]["id"] == "scripted"


def test_health_tells_that_the_engine_is_down_and_that_it_is_back(live: LiveServer, client: httpx.Client) -> None:
    engine = live.app.state.services.engine
    engine.down = "the model failed (RuntimeError: out of memory)"
    try:
        response = client.get("/health")
        assert response.status_code == 503
        assert response.json() == {"ok": False, "running": 0, "waiting": 0, "reason": engine.down}
        failed = only(ask(live, "Hello"), "error")
        assert (failed["code"], failed["message"]) == ("engine_down", engine.down)
        over_http = client.post("/v1/chat/completions", json={"model": "base", "messages": [HELLO]})
        assert (over_http.status_code, over_http.json()["error"]["code"]) == (503, "engine_down")
        assert client.get("/api/conversations").status_code == 200  # all that needs no model goes on
    finally:
        engine.down = ""
    assert client.get("/health").status_code == 200
    assert only(ask(live, "Hello"), "done")["finish_reason"] == "stop"


def test_a_conversation_is_listed_opened_renamed_and_deleted(live: LiveServer, client: httpx.Client) -> None:
    events = ask(live, "How do I return a lamp?")
    conversation_id = only(events, "started")["conversation_id"]
    listed = client.get("/api/conversations").json()["conversations"]
    assert conversation_id in [conversation["id"] for conversation in listed]
    opened = client.get(f"/api/conversations/{conversation_id}").json()
    question, answer = opened["messages"]
    assert question["role"] == "user"
    assert answer["domain"] == "support"
    assert answer["route"]["how"] == "similar"
    assert answer["passages"][0]["passage"]["file"] == "refunds.md"
    assert answer["searched"] is True
    assert answer["usage"]["completion_tokens"] == 2
    prompt = client.get(f"/api/messages/{answer['id']}/prompt").json()
    assert prompt["tokens"] == sum(section["tokens"] for section in prompt["sections"])
    assert "45 days" in next(s["text"] for s in prompt["sections"] if s["name"] == "evidence")
    renamed = client.patch(f"/api/conversations/{conversation_id}", json={"title": "Lamps", "domain": "general"})
    assert (renamed.json()["title"], renamed.json()["domain"]) == ("Lamps", "general")
    assert client.patch(f"/api/conversations/{conversation_id}", json={"domain": None}).json()["domain"] is None
    bad = client.patch(f"/api/conversations/{conversation_id}", json={"domain": "nowhere"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (404, "not_found")
    assert client.patch(f"/api/conversations/{conversation_id}", json={"colour": "red"}).status_code == 400
    assert client.delete(f"/api/conversations/{conversation_id}").status_code == 204
    assert client.get(f"/api/conversations/{conversation_id}").status_code == 404


def test_domains_and_their_problems(client: httpx.Client, workspace: Path) -> None:
    found = client.get("/api/domains").json()
    assert {domain["name"] for domain in found["domains"]} == {"general", "support"}
    assert found["default"] == "general"
    broken = workspace / "prompts" / "broken.md"
    broken.write_text("---\ntitle: Broken\nflavour: sweet\n---\nHi.\n")
    try:
        (problem,) = client.get("/api/domains").json()["problems"]
        assert problem["file"].endswith("broken.md")
        assert problem["line"] == 3
        assert "flavour" in problem["reason"]
    finally:
        broken.unlink()
    assert client.get("/api/domains").json()["problems"] == []


def test_a_prompt_file_may_have_any_name(client: httpx.Client, workspace: Path) -> None:
    odd = os.path.join(os.fsencode(workspace / "prompts"), b"caf\xe9.md")
    Path(os.fsdecode(odd)).write_text("---\ntitle: Odd\n---\nHi.\n")
    try:
        (problem,) = client.get("/api/domains").json()["problems"]
        assert problem["file"].endswith("caf\\udce9.md")
    finally:
        os.unlink(odd)


def test_upload_answer_and_delete(live: LiveServer, client: httpx.Client) -> None:
    files = [
        ("files", ("warranty.md", b"# Warranty\n\nThe lantern warranty covers seven years.\n")),
        ("files", ("../../evil.md", b"# Evil\n\nescape\n")),
        ("files", ("empty.md", b"")),
        ("files", ("big.md", b"x" * 4097)),
        ("files", ("tool.exe", b"MZ")),
    ]
    results = client.post("/api/knowledge/support", files=files).json()["files"]
    names = [result.get("file") for result in results]
    assert names[0] == "warranty.md"
    assert names[1] is not None
    assert "/" not in names[1]
    assert ".." not in names[1]
    assert [result["error"]["code"] for result in results[2:]] == ["invalid_input", "too_large", "invalid_input"]
    wait_for(client, "support", "warranty.md", "indexed")
    events = ask(live, "What does the lantern warranty cover?", domain="support")
    assert only(events, "evidence")["passages"][0]["passage"]["file"] == "warranty.md"
    for name in ("warranty.md", names[1]):
        assert client.delete(f"/api/knowledge/support/{name}").status_code == 200
        wait_for(client, "support", name, None)
    events = ask(live, "What does the lantern warranty cover?", domain="support")
    assert all(p["passage"]["file"] != "warranty.md" for p in only(events, "evidence")["passages"])
    assert client.delete("/api/knowledge/support/warranty.md").status_code == 404


@pytest.mark.parametrize(
    "path", ["support/..%2F..%2Fprompts%2Fgeneral.md", "..%2Fprompts/general.md", "support/%2e%2e/x"]
)
def test_no_path_leads_out_of_the_knowledge(client: httpx.Client, workspace: Path, path: str) -> None:
    assert client.delete(f"/api/knowledge/{path}").status_code in (400, 403, 404, 405)
    assert (workspace / "prompts" / "general.md").exists()


def test_a_folder_name_cannot_escape(client: httpx.Client, workspace: Path) -> None:
    response = client.post("/api/knowledge/..", files=[("files", ("a.md", b"# A\n\nx\n"))])
    assert response.status_code in (400, 404, 405)
    response = client.post("/api/knowledge/.hidden", files=[("files", ("a.md", b"# A\n\nx\n"))])
    assert response.status_code == 200
    assert response.json()["files"][0]["error"]["code"] == "invalid_input"
    assert not (workspace / "a.md").exists()


def test_a_file_dropped_into_the_folder_is_seen(client: httpx.Client, workspace: Path) -> None:
    path = workspace / "knowledge" / "support" / "hours.txt"
    path.write_text("The shop opens at nine.\n")
    assert wait_for(client, "support", "hours.txt", "indexed")
    path.rename(path.with_name("opening.txt"))
    assert wait_for(client, "support", "opening.txt", "indexed")
    wait_for(client, "support", "hours.txt", None)
    path.with_name("opening.txt").unlink()
    wait_for(client, "support", "opening.txt", None)


def test_a_pdf_that_is_none_is_named_and_the_rest_goes_on(client: httpx.Client) -> None:
    files = [("files", ("scan.pdf", b"this is no PDF")), ("files", ("fine.txt", b"Fine text about lanterns."))]
    client.post("/api/knowledge/support", files=files)
    failed = wait_for(client, "support", "scan.pdf", "failed")
    assert failed is not None
    assert "PDF" in failed["reason"]
    wait_for(client, "support", "fine.txt", "indexed")
    for name in ("scan.pdf", "fine.txt"):
        client.delete(f"/api/knowledge/support/{name}")


def test_memories_are_made_edited_and_forgotten(client: httpx.Client) -> None:
    made = client.post("/api/memories", json={"text": "Works in Busan.", "kind": "identity"})
    assert made.status_code == 201
    memory_id = made.json()["id"]
    assert (
        client.patch(f"/api/memories/{memory_id}", json={"text": "Works in Seoul."}).json()["text"] == "Works in Seoul."
    )
    assert "Works in Seoul." in [m["text"] for m in client.get("/api/memories").json()["memories"]]
    for text in ("", "   ", "x" * 501):
        refused = client.patch(f"/api/memories/{memory_id}", json={"text": text})
        assert refused.status_code == (413 if text.startswith("x") else 400)
    assert client.delete(f"/api/memories/{memory_id}").json()["deleted"]["text"] == "Works in Seoul."
    assert client.delete(f"/api/memories/{memory_id}").status_code == 404
    assert client.post("/api/memories", json={"text": "x", "kind": "rumour"}).status_code == 400


def test_adapters_load_and_unload_as_in_vllm(client: httpx.Client) -> None:
    assert client.get("/api/adapters").json()["adapters"][0]["name"] == "helper"
    loaded = client.post("/v1/load_lora_adapter", json={"lora_name": "helper"})
    assert loaded.json()["adapter"]["state"] == "loaded"
    assert client.post("/v1/unload_lora_adapter", json={"lora_name": "helper"}).status_code == 200
    again = client.post("/v1/unload_lora_adapter", json={"lora_name": "helper"})
    assert (again.status_code, again.json()["error"]["code"]) == (404, "adapter_not_found")
    missing = client.post("/v1/load_lora_adapter", json={"lora_name": "nobody"})
    assert missing.status_code == 404
    outside = client.post("/v1/load_lora_adapter", json={"lora_name": "helper", "lora_path": "/etc"})
    assert (outside.status_code, outside.json()["error"]["code"]) == (400, "invalid_input")


def test_unknown_paths_and_methods_answer_in_json(client: httpx.Client) -> None:
    assert client.get("/api/nothing").json()["error"]["code"] == "not_found"
    assert client.put("/api/session").json()["error"]["code"] == "method_not_allowed"
    assert client.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"


def test_the_client_is_served_with_a_policy(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    own = client.get("/static/js/main.js")
    assert (own.headers["cache-control"], own.headers["content-type"].split(";")[0]) == ("no-cache", "text/javascript")
    vendored = next((STATIC / "vendor").rglob("*.mjs")).relative_to(STATIC).as_posix()
    kept = client.get(f"/static/{vendored}")
    assert "immutable" in kept.headers["cache-control"]
    assert kept.headers["content-type"].startswith("text/javascript")
    assert client.get("/static/../config.py").status_code == 404

"""A domain that is limited to a group, asked for by every way in: for everybody else it does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving

PASSWORD = "long enough for all"
HIDDEN = """---
title: Merger
description: Plans that few know.
access: ["@board", kim]
routes: ["Which company do we buy next?"]
---
You answer about the merger.
"""
QUESTION = "Which company do we buy next?"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = make_workspace(tmp_path_factory.mktemp("ws"))
    (folder / "prompts" / "merger.md").write_text(HIDDEN, encoding="utf-8")
    app = make_app(folder, flags={"server.password": PASSWORD})
    services = app.state.services
    for name in ("kim", "bea", "eve"):
        services.accounts.add(name, PASSWORD)
    services.groups.add("board", ["bea"])
    with serving(app) as served:
        yield served


def key_of(live: LiveServer, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {live.app.state.services.accounts.new_api_key(name)}"}


def client_of(live: LiveServer, name: str) -> httpx.Client:
    return httpx.Client(base_url=live.url, headers=key_of(live, name), timeout=60)


def ask(live: LiveServer, name: str, **fields: Any) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        async with chat_session(live, additional_headers=key_of(live, name)) as chat:
            await chat.frame(type="send", request_id="r", text=QUESTION, **fields)
            events = [await chat.next()]
            return events if events[0]["type"] == "error" else events + await chat.until("closed")

    return asyncio.run(run())


@pytest.mark.parametrize("name", ["kim", "bea"])
def test_who_is_named_or_in_the_group_has_it(live: LiveServer, name: str) -> None:
    with client_of(live, name) as client:
        assert "merger" in [domain["name"] for domain in client.get("/api/domains").json()["domains"]]
        assert "merger" in [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert only(ask(live, name), "route")["decision"]["domain"] == "merger"
        body = {"model": "merger", "messages": [{"role": "user", "content": QUESTION}]}
        assert client.post("/v1/chat/completions", json=body).json()["tailor"]["domain"] == "merger"


@pytest.mark.parametrize("name", ["eve", "admin"])  # an administrator manages, and does not listen in
def test_for_others_it_does_not_exist(live: LiveServer, name: str) -> None:
    with client_of(live, name) as client:
        chat = client.post("/api/conversations", json={}).json()["id"]
        answers = [client.get(path) for path in ("/api/domains", "/v1/models", "/api/session")]
        refused = [
            client.post("/api/conversations", json={"domain": "merger"}),
            client.patch(f"/api/conversations/{chat}", json={"domain": "merger"}),
            client.put("/api/memories/domains/merger", json={"used": False}),
            client.post(
                "/v1/chat/completions",
                json={"model": "merger", "messages": [{"role": "user", "content": QUESTION}]},
            ),
        ]
        assert [answer.status_code for answer in refused] == [404] * 4
        auto = client.post(
            "/v1/chat/completions", json={"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
        )
        assert auto.json()["tailor"]["domain"] == "general"
        for answer in (*answers, auto):
            assert answer.status_code == 200
            assert "merger" not in answer.text.lower()
        for answer in refused:
            assert "Plans that few know" not in answer.text
            assert "Merger" not in answer.text
    assert ask(live, name, domain="merger")[0]["code"] == "not_found"
    routed = only(ask(live, name), "route")
    assert routed["decision"]["domain"] == "general"
    assert "merger" not in str(routed)


def test_who_leaves_the_group_loses_it_at_once(live: LiveServer) -> None:
    services = live.app.state.services
    started = only(ask(live, "bea"), "started")
    services.groups.set_members("board", [])
    try:
        events = ask(live, "bea", conversation_id=started["conversation_id"])  # bound to it until now
        assert only(events, "route")["decision"]["domain"] == "general"
    finally:
        services.groups.set_members("board", ["bea"])

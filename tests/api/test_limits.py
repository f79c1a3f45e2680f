"""Limits of each user by every way in: 429 with `Retry-After` over HTTP, an error frame with `retry_after`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.memory import MemoryWriter
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving

BODY = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_workspace(tmp_path)


def limited(folder: Path, **flags: int) -> Any:
    return serving(make_app(folder, flags={f"limits.{name}": value for name, value in flags.items()}))


@pytest.fixture
def few(folder: Path) -> Iterator[LiveServer]:
    with limited(folder, messages_per_minute=2) as live:
        yield live


def post(live: LiveServer, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(live.url + path, json=body, timeout=60)


def complete(live: LiveServer, **more: Any) -> httpx.Response:
    return post(live, "/v1/chat/completions", BODY | more)


async def test_messages_a_minute_count_by_every_way_in(few: LiveServer) -> None:
    async with chat_session(few) as chat:
        started = only(await chat.ask("Hello"), "started")
        await chat.frame(type="regenerate", request_id="again", message_id=started["message_id"])
        await chat.until("closed")
        for frame in (
            {"type": "send", "request_id": "r", "text": "Hello"},
            {"type": "regenerate", "request_id": "r", "message_id": started["message_id"]},
        ):
            await chat.frame(**frame)
            error = await chat.next()
            assert (error["type"], error["code"], error["request_id"]) == ("error", "rate_limited", "r")
            assert 0 < error["retry_after"] <= 60
        await chat.frame(type="resume", message_id=started["message_id"])  # asks nothing of the model
        assert (await chat.next())["type"] == "started"
    for stream in (False, True):
        refused = await asyncio.to_thread(complete, few, stream=stream)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert 0 < int(refused.headers["retry-after"]) <= 60
    assert (await asyncio.to_thread(post, few, "/v1/embeddings", {"input": "x"})).status_code == 200


async def test_tokens_a_day_count_chats_and_completions_and_outlive_a_restart(folder: Path) -> None:
    with limited(folder, tokens_per_day=100_000) as live:
        quotas = live.app.state.services.quotas
        async with chat_session(live) as chat:
            usage = only(await chat.ask("Hello"), "done")["usage"]
        spent = usage["prompt_tokens"] + usage["completion_tokens"]
        assert quotas.spent_today("local") == spent > 0
        usage = (await asyncio.to_thread(complete, live)).json()["usage"]
        spent += usage["total_tokens"]
        assert quotas.spent_today("local") == spent
    with limited(folder, tokens_per_day=spent) as live:
        refused = await asyncio.to_thread(complete, live)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "quota_exceeded")
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        async with chat_session(live) as chat:
            await chat.frame(type="send", request_id="r", text="Hello")
            error = await chat.next()
            assert (error["code"], error["retry_after"] > 0) == ("quota_exceeded", True)


async def test_an_answer_that_is_stopped_counts_what_it_took(folder: Path) -> None:
    engine = ScriptedEngine(lambda request, prompt: "word " * 10_000, pause=0.005)
    with serving(make_app(folder, engine, flags={"limits.tokens_per_day": 10**9})) as live:
        async with chat_session(live) as chat:
            await chat.frame(type="send", request_id="r", text="Hello")
            begun = await chat.until("token")
            await chat.frame(type="stop", message_id=begun[0]["message_id"])
            await chat.until("closed")
        spent = live.app.state.services.quotas.spent_today("local")
        prompt = len(engine.requests[0].prompt)
        assert prompt < spent <= prompt + engine.completion_tokens


async def test_what_the_memory_reads_in_the_background_counts_for_nobody(folder: Path) -> None:
    flags = {"limits.tokens_per_day": 10**9, "memory.model_pass": True}
    engine = ScriptedEngine()
    with serving(make_app(folder, engine, flags=flags)) as live:
        services = live.app.state.services
        assert isinstance(services.writer, MemoryWriter)
        async with chat_session(live) as chat:
            usage = only(await chat.ask("On Sundays my two sisters and I bake bread in the old mill."), "done")["usage"]
        for _ in range(600):
            if len(engine.requests) > 1:
                break
            await asyncio.sleep(0.1)
        assert len(engine.requests) > 1  # the background pass has asked the engine
        assert services.quotas.spent_today("local") == usage["prompt_tokens"] + usage["completion_tokens"]

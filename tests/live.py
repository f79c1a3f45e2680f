"""A workspace on disk and a server on a free port, for tests that talk to the product as a user would."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from websockets.asyncio.client import ClientConnection, connect

from server.api.transport.connections import ServerConfig
from server.app import create_app
from server.config import Settings, load_settings
from server.engine import Engine
from server.types import Embedder
from tests.fakes import ScriptedEngine, WordEmbedder

GENERAL = """---
title: General
description: Answers anything.
memory: true
---
You are a helpful assistant.
"""

SUPPORT = """---
title: Support
description: Answers customers.
adapter: helper
knowledge: [support]
routes: ["How do I return an order?", "Where is my parcel?"]
---
You answer customers{% if user.name %} such as {{ user.name }}{% endif %}.
"""

REFUNDS = """# Refunds

## Deadline

You can return any lamp within 45 days of delivery.

## Shipping costs

The sender pays the shipping of a return.
"""


def make_workspace(folder: Path) -> Path:
    """Two domains and one knowledge folder."""
    for name, text in (
        ("prompts/general.md", GENERAL),
        ("prompts/support.md", SUPPORT),
        ("knowledge/support/refunds.md", REFUNDS),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "adapters").mkdir(exist_ok=True)
    return folder


def make_settings(folder: Path, flags: Mapping[str, Any] | None = None) -> Settings:
    own = {"router.min_likelihood": 0.4, "storage.reserve_bytes": 64 * 1024}
    return load_settings(folder, environ={}, flags={**own, **(flags or {})})


def make_app(
    folder: Path,
    engine: Engine | None = None,
    embedder: Embedder | None = None,
    flags: Mapping[str, Any] | None = None,
) -> FastAPI:
    return create_app(
        make_settings(folder, flags),
        engine=engine or ScriptedEngine(adapters=["helper"]),
        embedder=embedder or WordEmbedder(),
    )


@dataclass(frozen=True)
class LiveServer:
    port: int
    app: FastAPI

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"


@contextmanager
def serving(app: FastAPI) -> Iterator[LiveServer]:
    """The application in a thread of its own until the block ends."""
    settings = app.state.services.settings.server
    config = ServerConfig(app, settings, port=0, log_config=None, log_level="error", timeout_graceful_shutdown=5)
    with running(config) as port:
        yield LiveServer(port, app)


@contextmanager
def running(config: uvicorn.Config) -> Iterator[int]:
    """uvicorn in a thread of its own until the block ends; gives the port."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive(), "the server ended while it started"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=120)
        assert not thread.is_alive(), "the server did not stop"


def api_routes(routes: Sequence[BaseRoute]) -> Iterator[APIRoute]:
    """All HTTP routes with endpoints, those of included routers too."""
    for route in routes:
        included = getattr(route, "original_router", None)  # newer FastAPI keeps routers whole
        if included is not None:
            yield from api_routes(included.routes)
        elif isinstance(route, APIRoute):
            yield route


class ChatClient:
    """A client of the protocol: sends frames, collects events."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.changes: list[dict[str, Any]] = []

    async def frame(self, **fields: Any) -> None:
        await self.socket.send(json.dumps(fields))

    async def next(self, seconds: float = 120) -> dict[str, Any]:
        while True:
            event = json.loads(await asyncio.wait_for(self.socket.recv(), seconds))
            if event["type"] != "changed":
                return dict(event)
            self.changes.append(event)

    async def until(self, kind: str, seconds: float = 120) -> list[dict[str, Any]]:
        """Events up to the first of `kind`, inside."""
        events = []
        while not events or events[-1]["type"] != kind:
            events.append(await self.next(seconds))
        return events

    async def until_request(self, request_id: str, seconds: float = 120) -> list[dict[str, Any]]:
        """Events up to the first that gives that request back, inside."""
        events = [await self.next(seconds)]
        while events[-1].get("request_id") != request_id:
            events.append(await self.next(seconds))
        return events

    async def ask(self, text: str, **fields: Any) -> list[dict[str, Any]]:
        """Sends a message and gives all events of its turn, up to `closed`."""
        await self.frame(type="send", request_id=uuid.uuid4().hex, text=text, **fields)
        return await self.until("closed")


@asynccontextmanager
async def chat_session(live: LiveServer, **options: Any) -> AsyncIterator[ChatClient]:
    async with connect(live.ws, max_size=None, **options) as socket:
        chat = ChatClient(socket)
        hello = await chat.next()
        assert hello["type"] == "hello"
        yield chat


def only(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one event of that kind."""
    found = [event for event in events if event["type"] == kind]
    assert len(found) == 1, f"{len(found)} events '{kind}' in {[event['type'] for event in events]}"
    return found[0]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "token")

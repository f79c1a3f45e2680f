"""Real servers as subprocesses on free ports, and the clients that load them: HTTP and WebSockets."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from bench import peers
from bench.chats import Timed
from bench.context import Bench
from bench.models import embedder
from bench.worker import CACHE_SHARE

_START_S = 600.0
_ANSWER_S = 3600.0

DOMAIN = """---
title: General
description: Everyday questions.
memory: false
sampling: {{temperature: 0, max_tokens: {new}}}
---
You are a helpful assistant.
"""


class ServerFailed(Exception):
    """A server did not come up, or answered something else than was asked for."""


@dataclass(frozen=True)
class Server:
    port: int
    model: str  # what requests call it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def workspace(folder: Path, new: int) -> Path:
    """With one domain, whose answers have `new` tokens, and nothing else."""
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    (folder / "prompts" / "general.md").write_text(DOMAIN.format(new=new), encoding="utf-8")
    return folder


@asynccontextmanager
async def tailor(bench: Bench, model: Path, place: Path) -> AsyncIterator[Server]:
    """`tailor serve` on a workspace, until the block ends."""
    port = free_port()
    command = [
        "-m", "server", "serve", "--workspace", str(place), "--model", str(model), "--device", bench.device,
        "--embedder", str(await asyncio.to_thread(embedder, bench)), "--port", str(port),
        "--set", f"engine.max_batch={bench.sizes.chats}",
    ]  # fmt: skip
    async with _running(bench, "tailor", command, port):
        yield Server(port, "base")


@asynccontextmanager
async def transformers(bench: Bench, model: Path, *, batching: bool) -> AsyncIterator[Server]:
    """`transformers serve` as it stands, or with its continuous batching, until the block ends."""
    port = free_port()
    command = [
        "-m", "transformers.cli.transformers", "serve", str(model), "--device", bench.device, "--dtype", "float32",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    more = ["--continuous-batching", "--cb-max-memory-percent", str(CACHE_SHARE)] if batching else []
    async with _running(bench, f"transformers-{batching}", [*command, *more], port):
        yield Server(port, str(model))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def _running(bench: Bench, name: str, command: Sequence[str], port: int) -> AsyncIterator[None]:
    log = bench.folder / f"{name}.log"
    process = await peers.spawn(bench, [sys.executable, *command], log)
    try:
        await _healthy(process, port, log)
        yield
    finally:
        await peers.stop(process)


async def _healthy(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline:
            if process.returncode is not None:
                raise ServerFailed(f"it ended while it started; its last words:\n{peers.last_words(log)}")
            try:
                if (await client.get(f"http://127.0.0.1:{port}/health")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            await asyncio.sleep(0.25)
    raise ServerFailed(f"it did not come up in {_START_S:.0f} s; its last words:\n{peers.last_words(log)}")


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────


async def ask_http(server: Server, messages: Sequence[str], new: int) -> Timed:
    """All messages at once, a client each. Raises ServerFailed where another number of tokens comes."""
    limits = httpx.Limits(max_connections=len(messages))
    async with httpx.AsyncClient(base_url=server.url, timeout=_ANSWER_S, limits=limits, trust_env=False) as client:
        began = time.perf_counter()
        texts = await asyncio.gather(*(_complete(client, server.model, text, new) for text in messages))
        return Timed(time.perf_counter() - began, new * len(messages), tuple(texts))


async def _complete(client: httpx.AsyncClient, model: str, text: str, new: int) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": new, "temperature": 0}
    response = await client.post("/v1/chat/completions", json=body)
    if response.is_error:
        raise ServerFailed(f"HTTP {response.status_code}: {response.text[:500]}")
    reply = response.json()
    came = reply["usage"]["completion_tokens"]
    if came != new:
        raise ServerFailed(f"{came} tokens came instead of {new}")
    return str(reply["choices"][0]["message"]["content"])


# ── WebSockets ───────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def sockets(server: Server, count: int) -> AsyncIterator[list[ClientConnection]]:
    """Open connections that have been greeted."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = await stack.enter_async_context(
                connect(f"ws://127.0.0.1:{server.port}/ws", max_size=None, proxy=None)
            )
            greeting = json.loads(await connection.recv())
            if greeting["type"] != "hello":
                raise ServerFailed(f"the server greets with {greeting}")
            opened.append(connection)
        yield opened


@dataclass(frozen=True)
class Turn:
    """One turn over a socket: the prompt's tokens as the server counted them, and the answer."""

    prompt_tokens: int
    completion_tokens: int
    text: str


async def ask_sockets(connections: Sequence[ClientConnection], messages: Sequence[str]) -> tuple[Timed, list[Turn]]:
    """A message on each connection at once, timed until the last answer is done."""
    began = time.perf_counter()
    turns = await asyncio.gather(*(_turn(*each) for each in zip(connections, messages, strict=True)))
    seconds = time.perf_counter() - began
    return Timed(seconds, sum(turn.completion_tokens for turn in turns), tuple(turn.text for turn in turns)), turns


async def _turn(connection: ClientConnection, text: str) -> Turn:
    """A new conversation. Raises ServerFailed where the server tells of an error."""
    frame = {"type": "send", "request_id": uuid.uuid4().hex, "text": text, "domain": "general"}
    await connection.send(json.dumps(frame))
    texts: list[str] = []
    async with asyncio.timeout(_ANSWER_S):
        while True:
            event: dict[str, Any] = json.loads(await connection.recv())
            if event["type"] == "token":
                texts.append(event["text"])
            elif event["type"] == "error":
                raise ServerFailed(f"{event['code']}: {event['message']}")
            elif event["type"] == "done":
                usage = event["usage"]
                return Turn(usage["prompt_tokens"], usage["completion_tokens"], "".join(texts))

"""A server that is killed for real while people chat, tell, forget, delete, upload and load adapters: nothing that was
acknowledged is lost, and a deletion is there whole or not at all."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.conftest import ROOT
from tests.live import ChatClient, make_workspace, text_of
from tests.remains import remaining
from tests.tiers import cases

pytestmark = pytest.mark.slow

ROUNDS = cases(4, 60)
SECONDS = 90.0


@dataclass
class Acknowledged:
    """What the server has said that it did. A word is in one thing alone."""

    questions: dict[str, tuple[str, str]] = field(default_factory=dict)  # message → (chat, text)
    answers: dict[str, tuple[str, str]] = field(default_factory=dict)
    memories: dict[int, tuple[str, str]] = field(default_factory=dict)  # memory → (question, word)
    files: dict[str, str] = field(default_factory=dict)  # name → word
    gone: set[str] = field(default_factory=set)
    doubtful: dict[str, str] = field(default_factory=dict)  # word → message or file whose deletion was not answered

    def forget(self, messages: set[str]) -> None:
        for message in messages:
            self.questions.pop(message, None)
            self.answers.pop(message, None)


class Server:
    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.scripted_server", str(folder)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Users:
    """Do things until the server is gone, and note what was acknowledged."""

    def __init__(self, port: int, known: Acknowledged, words: Iterator[str], seed: int) -> None:
        self.known, self.words = known, words
        self.draw = random.Random(seed)
        self.stopped = False
        self.socket = f"ws://127.0.0.1:{port}/ws"
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS)

    async def work(self) -> None:
        jobs = (self.chat(), self.forget(), self.delete_chats(), self.files(), self.adapters())
        await asyncio.gather(*map(self._until_it_is_gone, jobs))
        await self.client.aclose()

    async def _until_it_is_gone(self, job: Any) -> None:
        with suppress(httpx.TransportError, WebSocketException, OSError, TimeoutError):
            await job

    async def chat(self) -> None:
        async with connect(self.socket, max_size=None) as socket:
            chat = ChatClient(socket)
            await chat.next()
            for number in itertools.count():
                word = next(self.words)
                await chat.frame(type="send", request_id=str(number), text=f"I like {word} tea.", domain="general")
                started = (await chat.until("started"))[-1]
                question, place = started["user_message_id"], started["conversation_id"]
                self.known.questions[question] = (place, f"I like {word} tea.")
                events = await chat.until("done")
                self.known.answers[started["message_id"]] = (place, text_of(events))
                for event in await chat.until("closed"):
                    if event["type"] == "memory_saved":
                        self.known.memories[event["memories"][0]["id"]] = (question, word)

    async def forget(self) -> None:
        while not self.stopped:
            await asyncio.sleep(self.draw.uniform(0, 0.1))
            if not self.known.memories:
                continue
            number = self.draw.choice(list(self.known.memories))
            question, word = self.known.memories.pop(number)
            self.known.doubtful[word] = question
            assert (await self.client.delete(f"/api/memories/{number}")).status_code in (200, 404)
            self.known.doubtful.pop(word)
            self.known.gone.add(word)
            self.known.questions.pop(question, None)

    async def delete_chats(self) -> None:
        while not self.stopped:
            await asyncio.sleep(self.draw.uniform(0.05, 0.3))
            done = {place for place, _ in self.known.answers.values()}
            told = {self.known.questions[one][0] for one, _ in self.known.memories.values()}
            if not (free := sorted(done & told)):
                continue
            place = self.draw.choice(free)
            inside = {one for kind in (self.known.questions, self.known.answers)
                      for one, (where, _) in kind.items() if where == place}  # fmt: skip
            memories = [one for one, (question, _) in self.known.memories.items() if question in inside]
            words = {self.known.memories.pop(one)[1] for one in memories}
            self.known.doubtful |= dict.fromkeys(words, next(iter(inside & self.known.questions.keys())))
            await self.client.delete(f"/api/conversations/{place}?memories=forget")
            for word in words:
                del self.known.doubtful[word]
            self.known.gone |= words
            self.known.forget(inside)

    async def files(self) -> None:
        for number in itertools.count():
            word, name = next(self.words), f"f{number % 5}.md"
            if name in self.known.files and self.draw.random() < 0.5:
                old = self.known.files.pop(name)
                self.known.doubtful[old] = name
                assert (await self.client.delete(f"/api/knowledge/notes/{name}?purge=true")).status_code == 200
                del self.known.doubtful[old]
                self.known.gone.add(old)
            elif name not in self.known.files and name not in self.known.doubtful.values():
                sent = await self.client.post(
                    "/api/knowledge/notes", files=[("files", (name, f"The {word} note.".encode()))]
                )
                assert sent.status_code == 200
                self.known.files[name] = word

    async def adapters(self) -> None:
        for action in itertools.cycle(("load", "unload")):
            await asyncio.sleep(self.draw.uniform(0, 0.1))
            loaded = await self.client.post(f"/v1/{action}_lora_adapter", json={"lora_name": "helper"})
            assert loaded.status_code == 200


async def check(port: int, known: Acknowledged, folder: Path) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:
        stored: dict[str, dict[str, Any]] = {}
        for chat in (await client.get("/api/conversations")).json()["conversations"]:
            body = (await client.get(f"/api/conversations/{chat['id']}")).json()
            stored |= {message["id"]: message for message in body["messages"]}
        doubtful = set(known.doubtful.values())
        for message, (_, text) in (known.questions | known.answers).items():
            if message in stored or not _may_be_gone(message, known):
                assert message in doubtful or stored[message]["text"] == text
        memories = {one["id"]: one for one in (await client.get("/api/memories")).json()["memories"]}
        assert known.memories.keys() <= memories.keys()
        await _check_files(client, known, folder)
        assert await asyncio.to_thread(remaining, folder / "data", known.gone) == set()
        _check_doubtful(known, stored, " ".join(one["text"] for one in memories.values()), folder)


def _may_be_gone(message: str, known: Acknowledged) -> bool:
    """It is in a chat that was being deleted when the server was killed."""
    chats = {known.questions[one][0] for one in known.doubtful.values() if one in known.questions}
    return (known.questions | known.answers)[message][0] in chats


def _check_doubtful(known: Acknowledged, stored: dict[str, Any], memories: str, folder: Path) -> None:
    """All of it is there, or nothing."""
    for word, place in known.doubtful.items():
        if place.endswith(".md"):
            continue
        kept = word in memories
        assert kept == (word in stored.get(place, {}).get("text", "")), word
        assert kept or not remaining(folder / "data", {word}), word
        if not kept:
            known.questions.pop(place, None)
            known.gone.add(word)
    known.forget({one for one in known.questions.keys() | known.answers.keys() if one not in stored})
    known.doubtful = {}


async def _check_files(client: httpx.AsyncClient, known: Acknowledged, folder: Path) -> None:
    """Files that were acknowledged are there and indexed; of a deletion that began, all or nothing."""
    deadline = time.monotonic() + SECONDS
    while True:
        body = (await client.get("/api/knowledge")).json()
        there = {
            file["file"]: file["state"] for one in body["folders"] if one["name"] == "notes" for file in one["files"]
        }
        there = {name: state for name, state in there.items() if (folder / "knowledge" / "notes" / name).exists()}
        left = {word for word, name in known.doubtful.items() if name.endswith(".md") and name not in there}
        waiting = [name for name in known.files if there.get(name) != "indexed"]
        if not waiting and not body["busy"] and not await asyncio.to_thread(remaining, folder / "data" / "index", left):
            break
        assert time.monotonic() < deadline, (waiting, left, body)
        await asyncio.sleep(0.2)
    for name, word in known.files.items():
        assert word in (folder / "knowledge" / "notes" / name).read_text()


@pytest.mark.timeout(ROUNDS * 120)
async def test_nothing_acknowledged_is_lost_and_a_deletion_is_whole(tmp_path: Path) -> None:
    folder, known, draw = make_workspace(tmp_path), Acknowledged(), random.Random(11)
    words = (f"zebu{number}ish" for number in itertools.count())
    server = Server(folder)
    try:
        for seed in range(ROUNDS):
            users = Users(server.port, known, words, seed)
            work = asyncio.create_task(users.work())
            await asyncio.sleep(draw.uniform(0.3, 3.0))
            server.kill()
            users.stopped = True
            await asyncio.wait_for(work, SECONDS)
            server = Server(folder)
            await check(server.port, known, folder)
        assert len(known.gone) >= ROUNDS
        assert len(known.answers) >= ROUNDS
    finally:
        server.kill()

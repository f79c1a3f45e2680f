"""Who is there in the soak: streams of a heavy and of a light user, readers that hardly read, a probe; what they
find. Knows nothing of how the server was started or of the table.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.context import ROOT

PAUSE_S: Final = 2.0  # of the light user between two questions
SLOW_READ_S: Final = 0.5  # between two frames that a slow reader takes
SLOW_BUFFER: Final = 4096

SUBJECTS: Final = (
    "rivers", "bread", "clocks", "tea", "bridges", "owls", "glass", "trains", "salt", "paper", "wool", "maps", "honey",
    "stairs", "lamps", "rain", "soap", "chess", "ships", "onions", "bells", "ice", "roofs", "wheels", "moss", "ink",
    "ropes", "kites", "caves", "copper", "apples", "doors",
)  # fmt: skip


@dataclass
class Findings:
    """What the run has seen. Times in seconds."""

    texts: dict[str, str] = field(default_factory=dict)  # question: its first answer
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    first_token: dict[str, list[float]] = field(default_factory=lambda: {"heavy": [], "light": [], "alone": []})
    health: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)  # (time, bytes)

    def fault(self, kind: str, detail: str) -> None:
        self.counts[kind] += 1
        if len(self.faults) < 20:
            self.faults.append(f"{kind}: {detail}")

    def compare(self, question: str, text: str) -> None:
        """The same question, the same text, whoever was in the batch."""
        own = self.texts.get(question)
        if own is None:
            self.texts[question] = text
        elif own == text:
            self.counts["same"] += 1
        elif any(other == text for asked, other in self.texts.items() if asked != question):
            self.fault("mixed", f"'{question}' was answered with another question's text")
        else:
            self.counts["differs"] += 1


@dataclass(frozen=True)
class Target:
    """The running server."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str = "") -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    async def socket(self, key: str, *, slow: bool = False) -> ClientConnection:
        """Greeted."""
        raw = socket.socket()
        if slow:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self.port))
        headers = {"Authorization": f"Bearer {key}"}
        opened = await connect(
            f"ws://127.0.0.1:{self.port}/ws",
            sock=raw,
            additional_headers=headers,
            max_queue=1 if slow else 64,
            ping_interval=None,
            open_timeout=60,
            proxy=None,
        )
        greeting = json.loads(await opened.recv())
        if greeting["type"] != "hello":
            raise SystemExit(f"the server greets with {greeting}")
        return opened


# ── one answer ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Answer:
    message_id: str = ""
    conversation_id: str = ""
    text: str = ""
    seq: int = 0
    done: bool = False
    closed: bool = False
    refused: str = ""
    first_token_s: float = 0.0
    gaps: int = 0

    def take(self, event: dict[str, Any], began: float) -> None:
        """One event of this answer; those of others are passed over."""
        kind = event["type"]
        if kind == "error":
            self.refused = str(event["message"])
        if kind == "started":
            self.message_id, self.conversation_id = event["message_id"], event["conversation_id"]
        if event.get("message_id") != self.message_id or event["seq"] <= self.seq:
            return
        self.gaps += event["seq"] != self.seq + 1
        self.seq = event["seq"]
        if kind == "token":
            self.first_token_s = self.first_token_s or time.monotonic() - began
            self.text += event["text"]
        self.done = self.done or kind == "done"
        self.closed = self.closed or kind == "closed"


async def ask(opened: ClientConnection, question: str) -> Answer:
    """A new chat, read to its end."""
    answer, began = Answer(), time.monotonic()
    await opened.send(_send_frame(question))
    async with asyncio.timeout(300):
        while not (answer.closed or (answer.refused and not answer.message_id)):
            answer.take(json.loads(await opened.recv()), began)
    return answer


def _send_frame(question: str) -> str:
    return json.dumps({"type": "send", "request_id": uuid.uuid4().hex, "text": question, "domain": "general"})


async def check(answer: Answer, question: str, client: httpx.AsyncClient, findings: Findings) -> None:
    """Against its own events, the stored chat, and what the question was answered with before."""
    if not answer.message_id:
        findings.fault("refused", answer.refused)
        return
    if answer.gaps or not answer.done:
        findings.fault("lost", f"{answer.gaps} gaps, done {answer.done}; {answer.refused}")
        return
    reply = await client.get(f"/api/conversations/{answer.conversation_id}")
    stored = next((each for each in reply.json().get("messages", ()) if each["id"] == answer.message_id), None)
    if stored is None or stored["text"] != answer.text or stored["status"] != "complete":
        findings.fault("lost", f"'{question}' is stored as {stored}")
        return
    findings.counts["answers"] += 1
    findings.compare(question, answer.text)


def question_of(number: int) -> str:
    return f"Tell me something about {SUBJECTS[number % len(SUBJECTS)]}."


# ── who is there ─────────────────────────────────────────────────────────────────────────────────


async def stream(target: Target, key: str, who: str, number: int, findings: Findings, ends_at: float) -> None:
    """Asks until the time is up; the light user pauses."""
    opened = await target.socket(key)
    async with target.client(key) as client:
        while time.monotonic() < ends_at:
            question = question_of(number)
            answer = await ask(opened, question)
            await check(answer, question, client, findings)
            if answer.first_token_s:
                findings.first_token[who].append(answer.first_token_s)
            number += 7
            await asyncio.sleep(PAUSE_S if who == "light" or not answer.message_id else 0)
    await opened.close()


async def slow_reader(target: Target, key: str, number: int, findings: Findings, ends_at: float) -> None:
    """Takes a frame now and then, asks for everything again and again, and comes back when it is thrown out."""
    while time.monotonic() < ends_at:
        question, answer = question_of(number), Answer()
        with suppress(ConnectionClosed):
            opened = await target.socket(key, slow=True)
            await opened.send(_send_frame(question))
            until = time.monotonic() + 20
            while time.monotonic() < min(until, ends_at) and not answer.closed:
                answer.take(json.loads(await asyncio.wait_for(opened.recv(), 60)), 0.0)
                if answer.message_id:
                    await opened.send(json.dumps({"type": "resume", "message_id": answer.message_id}))
                await asyncio.sleep(SLOW_READ_S)
            await opened.close()
        findings.counts["slow readers' connections"] += 1
        if answer.message_id:
            await _read_again(target, key, question, answer, findings)
        number += 7


async def _read_again(target: Target, key: str, question: str, answer: Answer, findings: Findings) -> None:
    """On a new connection, at a normal pace: nothing of the answer may be missing."""
    opened = await target.socket(key)
    whole = Answer(answer.message_id, answer.conversation_id)
    await opened.send(json.dumps({"type": "resume", "message_id": answer.message_id}))
    async with asyncio.timeout(300):
        while not whole.closed:
            whole.take(json.loads(await opened.recv()), 0.0)
    await opened.close()
    async with target.client(key) as client:
        await check(whole, question, client, findings)


async def listen(opened: ClientConnection) -> None:
    """An open page that nobody looks at: it takes what comes."""
    with suppress(ConnectionClosed):
        while True:
            await opened.recv()


async def probe(target: Target, findings: Findings, ends_at: float) -> None:
    """Health by a process of its own, memory once in five seconds."""
    command = [sys.executable, "-m", "bench.health_probe", str(target.port), str(ends_at - time.monotonic())]
    asking = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    replies = asyncio.create_task(asking.communicate())
    process = psutil.Process(target.process.pid)
    while not replies.done():
        findings.memory.append((time.monotonic(), int(process.memory_info().rss)))
        await asyncio.wait([replies], timeout=5)
    found = json.loads((await replies)[0])
    findings.health += found["seconds"]
    for text in found["unwell"]:
        findings.fault("unwell", text)


async def alone(target: Target, key: str, findings: Findings) -> None:
    """The first token of a light user's questions with nobody else there."""
    opened = await target.socket(key)
    for number in range(6):
        answer = await ask(opened, question_of(number))
        findings.first_token["alone"].append(answer.first_token_s)
    await opened.close()

"""Ten minutes of a busy server: streams, idle sockets and slow readers at once, and what it does to memory and to a
light user.

    python -m bench.soak [--minutes 10] [--streams 60] [--light 4] [--idle 500] [--slow 20] [--model NAME] [--write]

A server of its own, as `tailor serve` starts it. Three accounts: a heavy user, whose streams ask one question after the
other; a light user, whose few streams pause between their questions; and one whose readers hardly read. Each question
is asked again and again in changing company, and must be answered with the same text each time. An answer counts as
lost when its events have a gap, do not end, or when the stored text is another than the streamed; as mixed when it is
the text of another question. Exit status 1 when anything was lost or mixed, memory grew, or `/health` was late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import resource
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench import machine
from bench.context import ROOT
from bench.servers import free_port
from bench.table import write as put

DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"
PLACE: Final = "soak"
PASSWORD: Final = "a password for the soak"
TOKENS: Final = 48
PAUSE_S: Final = 2.0  # of the light user between two questions
WARM_SHARE: Final = 0.2  # of the time, in which caches and the allocator's pools may fill
GROWTH_PERCENT: Final = 5.0
HEALTH_MS: Final = 250.0
SLOW_READ_S: Final = 0.5  # between two frames that a slow reader takes
SLOW_BUFFER: Final = 4096

SUBJECTS: Final = (
    "rivers", "bread", "clocks", "tea", "bridges", "owls", "glass", "trains", "salt", "paper", "wool", "maps", "honey",
    "stairs", "lamps", "rain", "soap", "chess", "ships", "onions", "bells", "ice", "roofs", "wheels", "moss", "ink",
    "ropes", "kites", "caves", "copper", "apples", "doors",
)  # fmt: skip
DOMAIN: Final = f"""---
title: General
description: Everyday questions.
memory: false
sampling: {{temperature: 0, max_tokens: {TOKENS}}}
---
You are a helpful assistant.
"""


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


async def probe(target: Target, findings: Findings, ends_at: float) -> None:
    """Health ten times a second, memory once in five seconds."""
    process, next_look = psutil.Process(target.process.pid), 0.0
    async with target.client() as client:
        while (now := time.monotonic()) < ends_at:
            reply = await client.get("/health")
            findings.health.append(time.monotonic() - now)
            if reply.status_code != httpx.codes.OK:
                findings.fault("unwell", reply.text)
            if now >= next_look:
                findings.memory.append((now, int(process.memory_info().rss)))
                next_look = now + 5
            await asyncio.sleep(0.1)


async def alone(target: Target, key: str, findings: Findings) -> None:
    """The first token of a light user's questions with nobody else there."""
    opened = await target.socket(key)
    for number in range(6):
        answer = await ask(opened, question_of(number))
        findings.first_token["alone"].append(answer.first_token_s)
    await opened.close()


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(place: Path, options: argparse.Namespace) -> Iterator[tuple[Target, dict[str, str]]]:
    """A server on a fresh workspace with three accounts, and their keys."""
    (place / "prompts").mkdir()
    (place / "prompts" / "general.md").write_text(DOMAIN, encoding="utf-8")
    (place / "data").mkdir(mode=0o700)
    (place / "data" / "models").symlink_to(ROOT / "data" / "models")
    keys = {name: _account(place, name) for name in ("heavy", "light", "slow")}
    port = free_port()
    command = [sys.executable, "-m", "server", "serve", "--workspace", str(place), "--port", str(port)]
    sockets = options.idle + options.streams + options.light + options.slow
    command += ["--set", f"server.max_sockets_per_user={sockets + 100}"]
    if options.model:
        command += ["--model", options.model]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        target = Target(port, process)
        _up(target, place / "log")
        yield target, keys
    finally:
        process.terminate()
        process.wait(60)


def _account(place: Path, name: str) -> str:
    command = [sys.executable, "-m", "server", "users"]
    at = ["--workspace", str(place)]
    subprocess.run([*command, "add", name, *at], cwd=ROOT, input=f"{PASSWORD}\n{PASSWORD}\n".encode(), check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    made = subprocess.run([*command, "key", name, *at], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return made.stdout.split()[-1]


def _up(target: Target, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and target.process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{target.url}/health", trust_env=False).status_code == httpx.codes.OK:
                return
        time.sleep(0.25)
    raise SystemExit(f"the server did not come up:\n{log.read_text(errors='replace')[-2000:]}")


async def run(target: Target, keys: Mapping[str, str], options: argparse.Namespace) -> Findings:
    findings = Findings()
    await alone(target, keys["light"], findings)
    async with AsyncExitStack() as stack:
        idle = []
        for _ in range(options.idle):
            idle.append(await target.socket(keys["slow"]))
            stack.push_async_callback(idle[-1].close)
        ends_at = time.monotonic() + 60 * options.minutes
        async with asyncio.TaskGroup() as group:
            group.create_task(probe(target, findings, ends_at))
            for number in range(options.streams):
                group.create_task(stream(target, keys["heavy"], "heavy", number, findings, ends_at))
            for number in range(options.light):
                group.create_task(stream(target, keys["light"], "light", number, findings, ends_at))
            for number in range(options.slow):
                group.create_task(slow_reader(target, keys["slow"], number, findings, ends_at))
        for opened in idle:
            await asyncio.wait_for(await opened.ping(), 10)
            findings.counts["idle sockets alive"] += 1
    return findings


def growth(memory: Sequence[tuple[float, int]]) -> float:
    """In per cent, of the last tenth's median over that of the tenth after the warm-up."""
    sizes = [size for _, size in memory]
    tenth = max(1, len(sizes) // 10)
    first = int(len(sizes) * WARM_SHARE)
    before, after = statistics.median(sizes[first : first + tenth]), statistics.median(sizes[-tenth:])
    return 100 * (after - before) / before


def report(findings: Findings, options: argparse.Namespace) -> tuple[list[str], bool]:
    """The table's lines, and whether all bounds were met."""
    counts = findings.counts
    late = share(findings.health, 0.999) * 1000
    grown = growth(findings.memory)
    resident = findings.memory[-1][1] / 2**20
    rows = [
        ("answers read whole, stored as streamed", f"{counts['answers']:,}", ""),
        ("lost", str(counts["lost"]), "0"),
        ("mixed: another question's text", str(counts["mixed"]), "0"),
        ("refused", str(counts["refused"]), "0"),
        ("the same text as the first time, of those asked again", _same(counts["same"], counts["differs"]), ""),
        (f"idle sockets alive at the end, of {options.idle}", str(counts["idle sockets alive"]), str(options.idle)),
        ("memory at the end, MiB", f"{resident:,.0f}", ""),
        ("memory: growth after the first fifth of the time, %", f"{grown:.1f}", f"{GROWTH_PERCENT:g}"),
        ("`/health`, 999 of 1,000 within, ms", f"{late:.0f}", f"{HEALTH_MS:g}"),
        ("`/health`, longest, ms", f"{max(findings.health) * 1000:.0f}", ""),
        *_waits(findings),
    ]
    good = (
        not counts["lost"] and not counts["mixed"] and not counts["refused"] and not counts["unwell"]
        and counts["idle sockets alive"] == options.idle and grown <= GROWTH_PERCENT and late <= HEALTH_MS
    )  # fmt: skip
    lines = ["| figure | measured | bound |", "|---|---:|---:|"]
    return [*lines, *(f"| {name} | {value} | {bound} |" for name, value, bound in rows)], good


def _waits(findings: Findings) -> list[tuple[str, str, str]]:
    rows = []
    for who, title in (
        ("alone", "the light user alone"),
        ("light", "the light user in the crowd"),
        ("heavy", "the heavy user"),
    ):
        middle, late = (share(findings.first_token[who], part) for part in (0.5, 0.95))
        rows.append((f"first token of {title}, median / p95, s", f"{middle:.2f} / {late:.2f}", ""))
    return rows


def share(values: Sequence[float], part: float) -> float:
    """The value that this part of them does not exceed (the nearest rank); 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)] if ordered else 0.0


def _same(same: int, differs: int) -> str:
    return f"{100 * same / max(1, same + differs):.2f}%"


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--streams", type=int, default=60, help="of the heavy user")
    parser.add_argument("--light", type=int, default=4, help="streams of the light user")
    parser.add_argument("--idle", type=int, default=500, help="sockets that only stay open")
    parser.add_argument("--slow", type=int, default=20, help="readers that hardly read")
    parser.add_argument("--model", default="", help="the default one, if left out")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args(given)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, serving(Path(folder), options) as (target, keys):
        findings = asyncio.run(run(target, keys, options))
    lines, good = report(findings, options)
    command = shlex.join(["python", "-m", "bench.soak", *given])
    text = "\n".join([*(f"- {line}" for line in machine.describe("cpu", os.cpu_count() or 1, command)), "", *lines])
    print(text)
    print("\n".join(findings.faults), file=sys.stderr)
    if options.write:
        put(DOCUMENT, PLACE, text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

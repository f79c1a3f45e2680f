"""The command: where the seconds and the memory of a start go, part by part.

    python -m bench.startup [--model NAME] [--rounds N] [--write]

Each round is a process of its own that does what `tailor serve` does, up to a server that can be asked, on an empty
workspace. After each part its seconds are noted, and what the process then holds more: resident memory, and of it pages
of files, which the system can take back. The table has the medians of the rounds. The first round, which reads files
that the system has not in memory, does not count.
`--write` puts the table into docs/engine.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import psutil

from bench.context import ROOT
from bench.table import write as put

DOCUMENT: Final = ROOT / "docs" / "engine.md"
PLACE: Final = "startup"
LIBRARIES: Final = ("torch", "transformers", "sentence_transformers", "faiss", "peft", "fastapi")
# What the engine's debug log calls them, and what they are.
ENGINE: Final = {
    "tokenizer": "engine: tokenizer and chat template",
    "fingerprint": "engine: fingerprint of the base",
    "weights": "engine: weights, by transformers",
    "products": "engine: choice of the products (trials)",
    "plain forward": "engine: the plain forward, which first reads the weights",
    "decoder": "engine: our decoder, with packed weights and stacks for adapters",
    "forward path": "engine: trial of the decoder against the plain forward",
}

Part = tuple[str, float, float, float]  # name, seconds, MB, MB of files


class Clock(logging.Handler):
    """Notes seconds and megabytes of each part; as a handler it hears the engine's parts."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Part] = []
        self._process = psutil.Process()
        # since the process was started: the interpreter's own start counts
        self._time, self._memory, self._files = self._process.create_time(), 0.0, 0.0

    def note(self, part: str) -> None:
        now, held = time.time(), self._process.memory_info()
        memory, files = held.rss / 1e6, getattr(held, "shared", 0) / 1e6
        self.parts.append((part, now - self._time, memory - self._memory, files - self._files))
        self._time, self._memory, self._files = now, memory, files

    def emit(self, record: logging.LogRecord) -> None:
        name = record.getMessage().removeprefix("ready: ")
        if name in ENGINE:
            self.note(ENGINE[name])


def start(model: str) -> list[Part]:
    """What each part of a start in this process took."""
    clock = Clock()
    clock.note("Python, this script")
    for library in LIBRARIES:
        import_module(library)
        clock.note(f"import {library}")
    from server.app import create_app
    from server.config import load_settings

    clock.note("import the server's own code and the rest")
    with tempfile.TemporaryDirectory() as workspace:
        (Path(workspace) / "data").mkdir()
        (Path(workspace) / "data" / "models").symlink_to(ROOT / "data" / "models")
        settings = load_settings(Path(workspace), flags={"model.name": model or None})
        app = create_app(settings)
        clock.note("database, embedder, all parts wired")
        log = logging.getLogger("tailor.engine")
        log.setLevel(logging.DEBUG)
        log.addHandler(clock)

        async def life() -> None:
            async with app.router.lifespan_context(app):
                clock.note("model thread, knowledge index, watchers")

        asyncio.run(life())
    return clock.parts


def rounds(model: str, count: int, *, warm: bool = True) -> list[list[Part]]:
    """`warm`: one more before them, which does not count."""
    command = [sys.executable, "-m", "bench.startup", "--child", "--model", model]
    found = []
    for _ in range(count + warm):
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.PIPE, text=True, check=True
        )
        found.append([tuple(part) for part in json.loads(done.stdout.splitlines()[-1])])
    return found[1:] if warm else found


def table(measured: Sequence[Sequence[Part]]) -> list[str]:
    lines = ["| part | s | MB | of it files |", "|---|---:|---:|---:|"]
    total = [0.0, 0.0, 0.0]
    for each in zip(*measured, strict=True):
        medians = [statistics.median(part[column] for part in each) for column in (1, 2, 3)]
        total = [sum(pair) for pair in zip(total, medians, strict=True)]
        lines.append(_line(each[0][0], medians))
    return [*lines, _line("all of it", total)]


def _line(part: str, numbers: Sequence[float]) -> str:
    seconds, megabytes, files = numbers
    return f"| {part} | {seconds:.2f} | {megabytes:,.0f} | {files:,.0f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="", help="another base than the default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the table into docs/engine.md")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1:
        parser.error("--rounds takes 1 or more")
    if chosen.child:
        print(json.dumps(start(chosen.model)))
        return 0
    from bench import machine  # imports torch, whose time is a child's to measure

    command = "python -m bench.startup" + "".join(f" --rounds {n}" for n in [chosen.rounds] if n != 3)
    lines = [
        f"`{command}`, medians of {chosen.rounds}, on {machine.processor()} with {len(machine.cores())} cores:",
        "",
        *table(rounds(chosen.model, chosen.rounds)),
    ]
    print("\n".join(lines))
    if chosen.write:
        put(DOCUMENT, PLACE, "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

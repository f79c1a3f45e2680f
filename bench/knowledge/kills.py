"""A process that indexes is killed at 50 random moments; afterwards the index is whole and nothing is lost.

The process (`victim`) changes files and indexes them without end. After each kill the index is opened: it must not
contradict itself. Then it is synced with the files, and each must be found by a word that it alone has.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.context import ROOT
from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.knowledge.run import Run
from bench.knowledge.victim import FOLDER, made, word
from server.retrieval import FileState, KnowledgeBase

LONGEST_S: Final = 1.5  # from the process's first word to its end


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def kills(_: object) -> AsyncIterator[Round]:
        root = run.folder / "kills" / "knowledge"
        for number in range(run.sizes.kill_files):
            path = root / FOLDER / f"{number}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{word(number)} is here.\n")
        yield lambda number: asyncio.to_thread(_killed, run, root)

    return [Figure("kills", _KILLS, kills, rounds=1)]


_KILLS = (
    Measure("broken", "killed while indexing: indexes that contradict themselves", "", Bound(0, at_most=True)),
    Measure("lost", "the same: files not found afterwards", "", Bound(0, at_most=True)),
    Measure("kept", "chunks already there after a kill, before any file is read again", "%"),
)


def _killed(run: Run, root: Path) -> Mapping[str, Reading]:
    index, draw = root.parent / "index", random.Random(run.sizes.kills)
    broken, lost, kept = 0, 0, []
    for turn in range(run.sizes.kills):
        _run_and_kill(root, index, turn, draw.uniform(0, LONGEST_S))
        base = made(root, index)
        base.open()
        try:
            base.check_integrity()
            before = base.history()[0].chunks
            base.sync()
            base.check_integrity()
        except ValueError as error:
            broken += 1
            run.report(f"kill {turn}: {error}")
        else:
            kept.append(100 * min(1.0, before / max(1, base.history()[0].chunks)))
            gone = _missing(base, root)
            lost += len(gone)
            for told in gone:
                run.report(f"kill {turn}: {told}")
        asyncio.run(base.close())
    note = f"{run.sizes.kills} kills, {run.sizes.kill_files} files that change all the time"
    return {
        "broken": Reading(broken, note=note),
        "lost": Reading(lost, note=note),
        "kept": Reading(min(kept, default=0.0), note="the least of all kills"),
    }


def _run_and_kill(root: Path, index: Path, turn: int, after: float) -> None:
    command = [sys.executable, "-m", "bench.knowledge.victim", str(root), str(index), str(turn)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError("the process that was to be killed did not come up")
        time.sleep(after)
        process.send_signal(signal.SIGKILL)


def _missing(base: KnowledgeBase, root: Path) -> list[str]:
    """Files on disk that are not indexed, or not found by their word; and files indexed that are not there."""
    files = {file.file: file for folder in base.status().folders for file in folder.files}
    there = {path.name for path in (root / FOLDER).iterdir()}
    missing = [f"{name} is {'not known' if name in there else 'gone, but known'}" for name in files.keys() ^ there]
    for name, file in files.items():
        wanted = word(int(name.removesuffix(".md")))
        found = base.search(wanted, [FOLDER]).passages
        if file.state is not FileState.INDEXED:
            missing.append(f"{name} is {file.state}: {file.reason}")
        elif not any(wanted in passage.text for passage in found):
            missing.append(f"{name} is not found by {wanted}: {[passage.text[:80] for passage in found]}")
    return missing

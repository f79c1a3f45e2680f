"""Libraries that could keep the lexical side: SQLite's FTS5, bm25s and tantivy, each over KorQuAD and over many texts.

All get the same questions, as words of theirs or as ours (`server.words`: stems, and pairs of characters). `r1` and
`r5` tell whether Korean is found; `query`, `add` and `disk` what 100,000 texts cost.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.figure import Figure, Measure, Reading, Round, Unavailable
from bench.knowledge import quality, sets
from bench.knowledge.peers import PYTHON
from bench.knowledge.run import Run
from server.words import terms

SCRIPT: Final = Path(__file__).with_name("lexical_peer.py")
WAYS: Final = {
    "fts5-own": "FTS5, its unicode61 words",
    "fts5-trigram": "FTS5, its trigrams",
    "fts5-ours": "FTS5, our terms",
    "bm25s-ours": "bm25s, our terms",
    "tantivy-ours": "tantivy, our terms",
}
QUESTIONS: Final = 200  # that are timed


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def lexical(_: object) -> AsyncIterator[Round]:
        if not PYTHON.exists():
            raise Unavailable("the libraries are not there: `make bench-knowledge` installs them into build/peers")
        yield lambda number: asyncio.to_thread(_measured, run)

    measures = [
        measure
        for way, title in WAYS.items()
        for measure in (
            Measure(f"{way}-r1", f"{title}: KorQuAD, the first passage is the right one", "%"),
            Measure(f"{way}-r5", "the same: among the first five", "%"),
            Measure(f"{way}-query", "the same, 100,000 texts: a query, median", "ms"),
            Measure(f"{way}-add", "the same: one text more, until it is found", "ms"),
        )
    ]
    return [Figure("lexical", tuple(measures), lexical, rounds=1)]


def _measured(run: Run) -> Mapping[str, Reading]:
    files, asked = quality.korquad_part(run)
    names = list(files)
    varied = sets.varied(list(files.values()))
    job = {
        "texts": [[files[name], terms(files[name])] for name in names],
        "questions": [[one.text, terms(one.text)] for one in asked],
        "right": [names.index(one.file) for one in asked],
        "many": [[text, terms(text)] for text in itertools.islice(varied, run.sizes.chunks)],
        "timed": min(QUESTIONS, len(asked)),
        "folder": str(run.folder),
    }
    readings = {}
    for way in WAYS:
        told = _ask({**job, "way": way})
        note = f"{told['disk'] / 1e6:.0f} MB on disk" if told["disk"] else "in memory; a text more is a new index"
        readings[f"{way}-r1"] = Reading(100 * told["r1"], note=f"{len(asked)} questions")
        readings[f"{way}-r5"] = Reading(100 * told["r5"], note=f"{len(asked)} questions")
        readings[f"{way}-query"] = Reading(1000 * told["query"], note=note)
        readings[f"{way}-add"] = Reading(1000 * told["add"], note=note)
    return readings


def _ask(job: Mapping[str, object]) -> dict[str, Any]:
    done = subprocess.run(
        [str(PYTHON), str(SCRIPT)], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{job['way']} failed: {done.stderr.strip()[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer

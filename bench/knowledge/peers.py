"""What a user would pick instead: LangChain's splitter and FAISS store, on the same files, questions and embedder.

Its chunks are 1,000 characters with 200 of overlap, as in its tutorials, and its search is dense alone.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.context import PEERS
from bench.figure import Figure, Measure, Reading, Round, Unavailable, ratio
from bench.knowledge import quality
from bench.knowledge.quality import FIRST, Overlap
from bench.knowledge.run import Run

PYTHON: Final = PEERS / "langchain" / "bin" / "python"
SCRIPT: Final = Path(__file__).with_name("langchain_peer.py")
SIZE: Final = 1000
OVERLAP: Final = 200

Chunk = tuple[str, int, str]
"""The file, where in it the chunk begins, its text."""


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def langchain(_: object) -> AsyncIterator[Round]:
        if not PYTHON.exists():
            raise Unavailable("LangChain is not there: `make bench-knowledge` installs it into build/peers")
        yield lambda number: asyncio.to_thread(_compared, run)

    return [Figure("langchain", _LANGCHAIN, langchain, rounds=1)]


_SIDES: Final = ("%", "ours", "LangChain")
_LANGCHAIN = (
    Measure("recall", "chunking set, k=5: recall, ours over LangChain's", "×", None, *_SIDES),
    Measure("iou", "the same: IoU", "×", None, *_SIDES),
    Measure("r1", "KorQuAD, the first passage of an answer is the right one", "×", None, *_SIDES),
    Measure("r5", "KorQuAD, among the passages of an answer, at most five", "×", None, *_SIDES),
)


def _compared(run: Run) -> Mapping[str, Reading]:
    return {**_chunking(run), **_korquad(run)}


def _chunking(run: Run) -> Mapping[str, Reading]:
    files, questions = quality.chunking_part(run)
    base = run.base("chunking", files)
    ours = [
        quality.overlap(question, base.search(question.text, ["chunking"]).passages, files) for question in questions
    ]
    theirs = []
    for question, found in zip(questions, _found(run, files, [one.text for one in questions]), strict=True):
        spans = [(name, start, start + len(text)) for name, start, text in found]
        theirs.append(quality.overlap_of(question, spans))
    return {
        "recall": ratio(_mean(ours, "recall"), _mean(theirs, "recall")),
        "iou": ratio(_mean(ours, "iou"), _mean(theirs, "iou")),
    }


def _korquad(run: Run) -> Mapping[str, Reading]:
    files, questions = quality.korquad_part(run)
    base = run.base("korquad", files)
    ours = [[passage.file for passage in base.search(one.text, ["korquad"]).passages] for one in questions]
    found = _found(run, files, [one.text for one in questions])
    theirs = [[name for name, _, _ in chunks] for chunks in found]
    readings = {}
    for name, most in (("r1", 1), ("r5", FIRST)):
        shares = [
            100 * sum(one.file in names[:most] for one, names in zip(questions, side, strict=True)) / len(questions)
            for side in (ours, theirs)
        ]
        readings[name] = ratio(shares[0], max(shares[1], 0.01))
    return readings


def _mean(overlaps: Sequence[Overlap], name: str) -> float:
    return 100 * statistics.mean(float(getattr(one, name)) for one in overlaps)


def _found(run: Run, files: Mapping[str, str], questions: Sequence[str]) -> list[list[Chunk]]:
    """The chunks that LangChain gives each question."""
    chunks: list[Chunk] = [
        (name, start, text) for name, start, text in _ask({"split": dict(files), "size": SIZE, "overlap": OVERLAP})
    ]
    run.folder.mkdir(parents=True, exist_ok=True)
    paths = {"vectors": run.folder / "vectors.npy", "questions": run.folder / "questions.npy"}
    np.save(paths["vectors"], run.embedder.embed([text for _, _, text in chunks]))
    np.save(paths["questions"], run.embedder.embed(list(questions)))
    rows = _ask({**{name: str(path) for name, path in paths.items()}, "count": FIRST})
    return [[chunks[row] for row in found] for found in rows]


def _ask(job: Mapping[str, object]) -> list[list[Any]]:
    done = subprocess.run(
        [str(PYTHON), str(SCRIPT)], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"LangChain failed: {done.stderr.strip()[-500:]}")
    answer: list[list[Any]] = json.loads(done.stdout)
    return answer

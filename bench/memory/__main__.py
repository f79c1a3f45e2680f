"""The command: measures the figures of memory, prints each as it is done, and writes the table where asked.

    python -m bench.memory [--data PATH] [--only NAME,…] [--rounds N] [--write]

Exit status 0 when nothing was missed and nothing failed, 1 otherwise, 2 for a wrong option.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from bench import engine, machine, table
from bench.context import ROOT, WORK, Bench
from bench.figure import Figure
from bench.memory import crossing, gate, locomo, recall, saving, updates
from bench.memory.run import FULL, QUICK, Run

DOCUMENT = ROOT / "docs" / "benchmarks.md"
TABLE = "memory"  # its results' place in the document
PARTS = (recall, updates, gate, crossing, saving, locomo)  # modules with `figures(run)`


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(given)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    disable_progress_bar()
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="memory-", dir=WORK) as folder:
        run = Run(Path(folder), options.data, QUICK if options.quick else FULL, options.embedder, report=_report)
        try:
            figures = chosen(run, options)
        except ValueError as error:
            parser.error(str(error))
        head = machine.describe("cpu", 1, shlex.join(["python", "-m", "bench.memory", *given]))
        print("\n".join(head), flush=True)
        bench = Bench("cpu", run.folder, 1, report=_report)
        outcomes = asyncio.run(engine.run(figures, bench, options.rounds))
    text = "\n".join([*(f"- {line}" for line in head), "", table.markdown(outcomes), "", table.count(outcomes)])
    print(f"\n{text}")
    if options.write:
        table.write(DOCUMENT, TABLE, text)
    return 0 if table.good(outcomes) else 1


def figures(run: Run) -> list[Figure]:
    return [figure for part in PARTS for figure in part.figures(run)]


def chosen(run: Run, options: argparse.Namespace) -> list[Figure]:
    """All figures, or those that are named. Raises ValueError."""
    there = {figure.name: figure for figure in figures(run)}
    names = options.only.split(",") if options.only else list(there)
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ValueError(f"no figure {', '.join(unknown)}; there are {', '.join(there)}")
    if options.write and (options.only or options.quick or options.embedder):
        raise ValueError("--write takes the whole table: leave out --only, --quick and --embedder")
    return [there[name] for name in names]


def _report(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.memory", description="Measures memory.")
    parser.add_argument("--data", type=Path, help="folder of the evaluation sets; without it their figures are not run")
    parser.add_argument("--only", metavar="NAME,…", default="", help="measure these figures alone")
    parser.add_argument("--rounds", type=engine.positive, default=3, help="rounds of each figure (default: 3)")
    parser.add_argument("--embedder", type=Path, help="folder of another embedder than the default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, no more")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())

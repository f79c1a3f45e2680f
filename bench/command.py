"""The command of a part that is measured on the processor alone: its options, its run, its table in the document.

Knows nothing of what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import torch
from transformers.utils.logging import disable_progress_bar

from bench import engine, machine, table
from bench.context import ROOT, WORK, Bench
from bench.figure import Figure, named

DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"

_Run = TypeVar("_Run")


def main(
    part: str,
    make: Callable[[Path, argparse.Namespace], _Run],
    figures: Callable[[_Run], list[Figure]],
    arguments: Sequence[str] | None,
) -> int:
    """`make` is given an empty folder and the options. Exit status 0 when nothing was missed and nothing failed, 1
    otherwise, 2 for a wrong option."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser(part)
    options = parser.parse_args(given)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    disable_progress_bar()
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{part}-", dir=WORK) as name:
        folder = Path(name)
        try:
            chosen = named(figures(make(folder, options)), options.only)
        except ValueError as error:
            parser.error(str(error))
        if options.write and (options.only or options.quick or options.embedder):
            parser.error("--write takes the whole table: leave out --only, --quick and --embedder")
        shown = ["FOLDER" if options.data and word == str(options.data) else word for word in given]
        head = machine.describe(1, shlex.join(["python", "-m", f"bench.{part}", *shown]))
        report("\n".join(head))
        outcomes = asyncio.run(engine.run(chosen, Bench("cpu", folder, 1, report=report), options.rounds))
    text = "\n".join([*(f"- {line}" for line in head), "", table.markdown(outcomes), "", table.count(outcomes)])
    report(f"\n{text}")
    if options.write:
        table.write(DOCUMENT, part, text)
    return 0 if table.good(outcomes) else 1


def report(text: str) -> None:
    print(text, flush=True)


def _parser(part: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"python -m bench.{part}", description=f"Measures {part}.")
    parser.add_argument("--data", type=Path, help="folder of the evaluation sets; without it their figures are not run")
    parser.add_argument("--only", metavar="NAME,…", default="", help="measure these figures alone")
    parser.add_argument("--rounds", type=engine.positive, default=3, help="rounds of each figure (default: 3)")
    parser.add_argument("--embedder", type=Path, help="folder of another embedder than the default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, no more")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    return parser

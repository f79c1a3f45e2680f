"""The command: measures the figures of a device, prints each as it is done, and writes the table where asked.

    python -m bench.engine [--device cpu|cuda] [--only NAME,…] [--rounds N] [--write]

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

from bench import machine, table
from bench.context import FULL, FULL_CUDA, QUICK, ROOT, WORK, Bench
from bench.figure import Figure, Outcome, measure, named
from bench.figures import FIGURES

DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(given)
    try:
        figures = chosen(options)
    except ValueError as error:
        parser.error(str(error))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)  # of this thread; the engine's own takes all there are, as in the server
    disable_progress_bar()
    head = machine.describe(options.device, options.threads, shlex.join(["python", "-m", "bench.engine", *given]))
    print("\n".join(head), flush=True)
    outcomes = measured(figures, options)
    text = "\n".join([*(f"- {line}" for line in head), "", table.markdown(outcomes), "", table.count(outcomes)])
    print(f"\n{text}")
    if options.write:
        table.write(DOCUMENT, options.device, text)
    return 0 if table.good(outcomes) else 1


def measured(figures: Sequence[Figure], options: argparse.Namespace) -> list[Outcome]:
    """In a folder of its own, which is gone afterwards."""
    WORK.mkdir(parents=True, exist_ok=True)
    sizes = QUICK if options.quick else FULL_CUDA if options.device == "cuda" else FULL
    with tempfile.TemporaryDirectory(prefix="run-", dir=WORK) as folder:
        bench = Bench(options.device, Path(folder), options.threads, sizes, options.model, report=_report)
        return asyncio.run(run(figures, bench, options.rounds))


async def run(figures: Sequence[Figure], bench: Bench, rounds: int) -> list[Outcome]:
    """One figure after the other, each told as soon as it is done."""
    outcomes: list[Outcome] = []
    for figure in figures:
        bench.report(f"\n{figure.name} …")
        done = await measure(figure, bench, rounds)
        for outcome in done:
            bench.report(table.line(outcome))
        outcomes += done
    return outcomes


def chosen(options: argparse.Namespace) -> list[Figure]:
    """The figures of the device, or those of them that are named. Raises ValueError."""
    found = named(
        [figure for figure in FIGURES if figure.device == options.device], options.only, f" on {options.device}"
    )
    if options.write and (options.only or options.quick or options.model):
        raise ValueError("--write takes the whole table: leave out --only, --quick and --model")
    return found


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{number} is not positive")
    return number


def _report(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.engine", description="Measures the engine against its peers.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", metavar="NAME,…", default="", help="measure these figures alone")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds of each figure (default: 5)")
    parser.add_argument("--threads", type=positive, default=len(machine.cores()), help="of each engine (default: all)")
    parser.add_argument("--model", type=Path, help="folder of another model than the default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, no more")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())

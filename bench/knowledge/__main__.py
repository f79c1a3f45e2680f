"""The command: measures the figures of knowledge, prints each as it is done, and writes the table where asked.

python -m bench.knowledge [--data PATH] [--only NAME,…] [--rounds N] [--write]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import command
from bench.figure import Figure
from bench.knowledge import chunkers, kills, lexical, notes, peers, quality, scale, swaps
from bench.knowledge.run import FULL, QUICK, Run

# Modules with `figures(run)`, in the table's order.
PARTS = (quality, chunkers, peers, lexical, scale, notes, swaps, kills)


def main(arguments: Sequence[str] | None = None) -> int:
    return command.main("knowledge", _made, figures, arguments)


def figures(run: Run) -> list[Figure]:
    return [figure for part in PARTS for figure in part.figures(run)]


def _made(folder: Path, options: argparse.Namespace) -> Run:
    sizes = QUICK if options.quick else FULL
    return Run(folder, options.data, sizes, embedder_path=options.embedder, report=command.report)


if __name__ == "__main__":
    sys.exit(main())

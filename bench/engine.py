"""The command: measures the figures of a device, prints each as it is done, and writes the table where asked.

    python -m bench.engine [--device cpu|cuda] [--only NAME,…] [--rounds N] [--write]

On a card correctness comes first, and no figure is measured of an engine that errs, unless `--only` names it; what was
found also goes into a page in the working folder. Exit status 0 when nothing was missed and nothing failed, 1
otherwise, 2 for a wrong option and where there is no card.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from bench import machine, models, table
from bench.context import FULL, FULL_CUDA, QUICK, ROOT, WORK, Bench, Sizes
from bench.figure import Figure, Outcome, State, measure, named, unmeasured
from bench.figures import FIGURES
from bench.gpu import card, page

DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(given)
    try:
        figures = chosen(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        found = card.find() if options.device == "cuda" else None
    except card.NoCard as error:
        print(error, file=sys.stderr)
        return 2
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)  # of this thread; the engine's own takes all there are, as in the server
    disable_progress_bar()
    sizes = _sizes(options, found)
    told = [*found.lines, card.shape_line(sizes.large)] if found else []
    head = machine.describe(options.threads, shlex.join(["python", "-m", "bench.engine", *given]), told)
    said: list[str] = []
    _report("\n".join(head))
    with _engine_log(found is not None) as logged:
        outcomes = measured(figures, options, sizes, found, said)
    text = "\n".join([*(f"- {line}" for line in head), "", table.markdown(outcomes), "", table.count(outcomes)])
    if found:
        text = f"{page.verdict(figures, outcomes)}\n\n{text}"
        place = Path(page.name(found.name))
        place.write_text(page.text(found.name, head, figures, outcomes, list(logged.lines), said), encoding="utf-8")
        text += f"\n\nThe page to send back: {place}" if not options.write else ""
    _report(f"\n{text}")
    if options.write:
        table.write(DOCUMENT, options.device, text)
    return 0 if table.good(outcomes) else 1


def measured(
    figures: Sequence[Figure],
    options: argparse.Namespace,
    sizes: Sizes,
    found: card.Card | None = None,
    said: list[str] | None = None,
) -> list[Outcome]:
    """In a folder of its own, which is gone afterwards. What is reported is added to `said`."""

    def report(text: str) -> None:
        _report(text)
        if said is not None:
            said.append(text)

    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=WORK) as folder:
        memory = found.memory if found else 0
        bench = Bench(options.device, Path(folder), options.threads, sizes, options.model, report, memory)
        return asyncio.run(run(figures, bench, options.rounds, gated=not options.only))


async def run(figures: Sequence[Figure], bench: Bench, rounds: int, *, gated: bool = True) -> list[Outcome]:
    """One figure after the other, each told as soon as it is done. `gated`: after a gate that is missed or fails, gates
    alone are measured."""
    outcomes: list[Outcome] = []
    shut = ""
    for figure in figures:
        bench.report(f"\n{figure.name} …")
        if shut and not figure.gate:
            done = unmeasured(
                figure, State.UNAVAILABLE, f"{shut} says that the engine errs; --only measures all the same"
            )
        else:
            done = await measure(figure, bench, rounds)
            models.release()  # the next one's peers need the card
        if gated and figure.gate and not table.good(done):
            shut = shut or figure.name
        for outcome in done:
            bench.report(table.line(outcome))
        outcomes += done
    return outcomes


@contextmanager
def _engine_log(wanted: bool) -> Iterator[page.EngineLog]:
    """What the engine logs while the block runs; nothing where it is not `wanted`."""
    handler, logger = page.EngineLog(), logging.getLogger("tailor")
    if not wanted:
        yield handler
        return
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _sizes(options: argparse.Namespace, found: card.Card | None) -> Sizes:
    if options.quick:
        return QUICK
    return replace(FULL_CUDA, large=card.fitting(found.memory, FULL_CUDA)) if found else FULL


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

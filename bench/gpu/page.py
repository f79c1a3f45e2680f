"""A run on a card as one page: what the card is, whether the answers were right, the figures, and what failed.

Made to be sent back as it is: it names no folder of the machine it ran on. Knows nothing of how things are measured.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import table
from bench.context import ROOT
from bench.figure import Figure, Outcome, State

_TOLD = re.compile(r" runs on |memory|reserve|captur|graph|[KMG]i?B\b", re.IGNORECASE)
_MOST_LINES = 60


class EngineLog(logging.Handler):
    """Keeps what the engine says of the model it runs and of the memory it plans, and every warning; each line once."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if (record.levelno >= logging.WARNING or _TOLD.search(text)) and len(self.lines) < _MOST_LINES:
            self.lines[text] = None


def name(card: str) -> str:
    """The page's file name."""
    return f"bench-{re.sub('[^a-z0-9]+', '-', card.lower()).strip('-') or 'card'}.md"


def verdict(figures: Sequence[Figure], outcomes: Sequence[Outcome]) -> str:
    """One sentence on correctness: it stands at the top."""
    gates = {figure.name for figure in figures if figure.gate}
    bad = _names(outcomes, gates, State.MISSED, State.FAILED)
    if bad:
        return f"**Correctness FAILED** ({bad}): figures below, if there are any, are those of an engine that errs."
    unknown = _names(outcomes, gates, State.UNAVAILABLE)
    if unknown or not gates:
        return f"**Correctness was not checked in full**: {unknown or 'the run was of some figures alone'}."
    return "**Correctness: all checks passed.**"


def _names(outcomes: Sequence[Outcome], gates: set[str], *states: State) -> str:
    found = dict.fromkeys(each.figure for each in outcomes if each.figure in gates and each.state in states)
    return ", ".join(found)


def text(
    card: str,
    head: Sequence[str],
    figures: Sequence[Figure],
    outcomes: Sequence[Outcome],
    engine: Sequence[str],
    reported: Sequence[str],
) -> str:
    """The page. `head`: lines on machine and run; `engine`: of the engine's log; `reported`: what the run printed."""
    gates = {figure.name for figure in figures if figure.gate}
    failed = [each for each in outcomes if each.state in {State.MISSED, State.FAILED, State.UNAVAILABLE}]
    parts = [
        f"# Tailor on {card}",
        verdict(figures, outcomes),
        "\n".join(f"- {line}" for line in head),
        "## Correctness",
        _table([each for each in outcomes if each.figure in gates]),
        "## Figures",
        _table([each for each in outcomes if each.figure not in gates]),
        table.count(outcomes),
        "## Missed, failed or not run",
        "\n".join(f"- `{each.figure}`, {each.measure.title}: {_whole(each)}" for each in failed) or "Nothing.",
        "## What the engine said of its model and its memory",
        _block(engine),
        "## What the run printed",
        _block(reported),
    ]
    return _without_folders("\n\n".join(parts) + "\n")


def _whole(outcome: Outcome) -> str:
    """The result on one line, however long."""
    return " ".join(table.cells(outcome)[-1].split())


def _table(outcomes: Sequence[Outcome]) -> str:
    return table.markdown(outcomes) if outcomes else "None were run."


def _block(lines: Sequence[str]) -> str:
    """Fenced by more backticks than any line has in a row."""
    joined = "\n".join(lines).strip()
    longest = max((len(run) for run in re.findall("`+", joined)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{joined or 'Nothing.'}\n{fence}"


def _without_folders(page: str, folders: Mapping[Path, str] | None = None) -> str:
    for folder, instead in (folders or {ROOT: ".", Path.home(): "~"}).items():
        if len(folder.parts) > 1:  # a root directory is in every path
            page = page.replace(str(folder), instead)
    return page

"""Outcomes as text: lines for the terminal, Markdown for the documents, and its place between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.figure import Bound, Measure, Outcome, State

MOST_CHARS = 300  # of one cell
HEAD = ("figure", "what", "bound", "measured", "spread", "ours", "against", "result")


def marks(name: str) -> tuple[str, str]:
    """The lines between which results stand: those of a device, or of knowledge."""
    return f"<!-- results on {name}: begin -->", f"<!-- results on {name}: end -->"


def number(value: float | None, unit: str = "") -> str:
    """Two decimals below 10, one below 100, none above; empty for None."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{digits}f}"
    if unit in {"×", "%"}:
        return text + unit
    return f"{text} {unit}" if unit else text


def bound(measure: Measure) -> str:
    limit: Bound | None = measure.bound
    if limit is None:
        return ""
    value = f"{limit.limit:g}{measure.unit}" if measure.unit in {"×", "%"} else f"{limit.limit:g} {measure.unit}"
    return f"{'≤' if limit.at_most else '≥'} {value.strip()}"


def cells(outcome: Outcome) -> tuple[str, ...]:
    """One line's texts, in the order of HEAD."""
    measure = outcome.measure
    result = f"{outcome.state}: {outcome.note}" if outcome.note else str(outcome.state)
    if outcome.value is None:
        return outcome.figure, measure.title, bound(measure), "", "", "", "", result
    return (
        outcome.figure,
        measure.title,
        bound(measure),
        number(outcome.value, measure.unit),
        f"{number(outcome.low)}–{number(outcome.high)} ({outcome.rounds})" if outcome.rounds > 1 else "",
        _side(outcome.ours, measure.ours, measure.sides),
        _side(outcome.against, measure.against, measure.sides),
        result,
    )


def _side(value: float | None, name: str, unit: str) -> str:
    return "" if value is None else f"{number(value, unit)}, {name}"


def line(outcome: Outcome) -> str:
    """For the terminal, as soon as a figure is done."""
    figure, title, limit, measured, spread, ours, against, result = cells(outcome)
    numbers = [measured, f"bound {limit}" if limit else "", spread, ours, against]
    return f"{figure}: {title}\n    {'; '.join(text for text in (*numbers, result) if text)}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    rows = [[_cell(text) for text in cells(outcome)] for outcome in outcomes]
    for row in rows:
        row[0] = f"`{row[0]}`"
    head = ["| " + " | ".join(HEAD) + " |", "|---|---|---:|---:|---|---|---|---|"]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)])


def _cell(text: str) -> str:
    """On one line, and not longer than a table bears: the whole of it was printed."""
    joined = " ".join(text.split())
    short = joined if len(joined) <= MOST_CHARS else f"{joined[:MOST_CHARS]}…"
    return short.replace("|", "\\|")


def count(outcomes: Sequence[Outcome]) -> str:
    """Such as '12 met, 1 missed, 2 failed'."""
    found = [(state, sum(outcome.state is state for outcome in outcomes)) for state in State]
    return ", ".join(f"{many} {state}" for state, many in found if many)


def good(outcomes: Sequence[Outcome]) -> bool:
    """Nothing missed and nothing failed; what could not be run on this machine is no fault."""
    return not any(outcome.state in {State.MISSED, State.FAILED} for outcome in outcomes)


def write(document: Path, name: str, text: str) -> None:
    """Puts `text` between the marks of that name and leaves the rest. Raises ValueError without both marks."""
    begin, end = marks(name)
    before = document.read_text(encoding="utf-8")
    head, found_begin, rest = before.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{document.name} must hold the lines '{begin}' and '{end}', in this order")
    document.write_text(f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}", encoding="utf-8")

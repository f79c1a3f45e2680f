"""What a figure is and how it is measured: rounds one after the other, the median of the rounds' values.

A figure that raises is reported with its reason, and the others go on. Knows nothing of engines or models.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum

from bench.context import Bench, Device


class Unavailable(Exception):
    """Something that a figure needs is not on this machine; the text says what, and how it comes there."""


class State(StrEnum):
    MET = "met"
    MISSED = "missed"
    SHOWN = "shown"  # it has no bound
    FAILED = "failed"
    UNAVAILABLE = "not run"


@dataclass(frozen=True)
class Bound:
    limit: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        """False for NaN, whichever way the bound goes."""
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True)
class Measure:
    """One number of a figure. `unit` is that of the value and its bound; `sides` that of the absolute
    numbers behind it, and `ours` and `against` say what those are."""

    name: str
    title: str
    unit: str
    bound: Bound | None = None
    sides: str = ""
    ours: str = "ours"
    against: str = "peer"


@dataclass(frozen=True)
class Reading:
    """One round's number, with the absolute numbers it comes from and a remark."""

    value: float
    ours: float | None = None
    against: float | None = None
    note: str = ""


Round = Callable[[int], Awaitable[Mapping[str, Reading]]]
"""Measures round n (from 0) and gives a reading for each measure by its name."""


@dataclass(frozen=True)
class Figure:
    """`open` makes ready, warm-up included, and yields the round. `rounds` overrides the run's number, `times` is how
    many it takes for each of these: rounds of a few seconds differ most. `gate`: where it is missed or fails, the
    figures that are no gates say nothing of value and are left out."""

    name: str
    measures: tuple[Measure, ...]
    open: Callable[[Bench], AbstractAsyncContextManager[Round]]
    device: Device = "cpu"
    rounds: int | None = None
    times: int = 1
    gate: bool = False


@dataclass(frozen=True)
class Outcome:
    """A line of the table. The numbers are None where the figure did not come to an end."""

    figure: str
    measure: Measure
    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None
    ours: float | None = None
    against: float | None = None
    rounds: int = 0
    note: str = ""


async def measure(figure: Figure, bench: Bench, rounds: int) -> list[Outcome]:
    """Every measure's outcome. Never raises for what a figure does wrong: that is an outcome, too."""
    taken: list[Mapping[str, Reading]] = []
    try:
        async with figure.open(bench) as one_round:
            for number in range(figure.rounds or rounds * figure.times):
                taken.append(await one_round(number))
        return [summary(figure.name, each, [readings[each.name] for readings in taken]) for each in figure.measures]
    except Unavailable as error:
        return unmeasured(figure, State.UNAVAILABLE, str(error))
    except Exception as error:  # noqa: BLE001  the border between figures: reported in the table and in full here
        bench.report(traceback.format_exc())
        return unmeasured(figure, State.FAILED, f"{type(error).__name__}: {error}")


def summary(figure: str, measure: Measure, readings: Sequence[Reading]) -> Outcome:
    """The median of the rounds' values, their span, and the medians of the absolute numbers."""
    values = [reading.value for reading in readings]
    value = statistics.median(values)
    state = State.SHOWN if measure.bound is None else State.MET if measure.bound.met(value) else State.MISSED
    return Outcome(
        figure=figure,
        measure=measure,
        state=state,
        value=value,
        low=min(values),
        high=max(values),
        ours=_median([reading.ours for reading in readings]),
        against=_median([reading.against for reading in readings]),
        rounds=len(readings),
        note=readings[-1].note,
    )


def unmeasured(figure: Figure, state: State, reason: str) -> list[Outcome]:
    return [Outcome(figure.name, each, state, note=reason) for each in figure.measures]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def named(figures: Sequence[Figure], names: str, where: str = "") -> list[Figure]:
    """Those of the comma-separated names, in their order; all for an empty text. Raises ValueError."""
    there = {figure.name: figure for figure in figures}
    wanted = names.split(",") if names else list(there)
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise ValueError(f"no figure {', '.join(unknown)}{where}; there are {', '.join(there)}")
    return [there[name] for name in wanted]


def ratio(ours: float, against: float, note: str = "") -> Reading:
    """How many times more ours is."""
    return Reading(ours / against, ours, against, note)

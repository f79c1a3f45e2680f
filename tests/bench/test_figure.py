"""How a figure becomes lines of the table: medians, bounds, and what happens to one that fails."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bench import engine
from bench.context import Bench
from bench.figure import (
    Bound,
    Figure,
    Measure,
    Reading,
    Round,
    State,
    Unavailable,
    measure,
    ratio,
    summary,
)

SPEED = Measure("speed", "speed", "×", Bound(2.0), "tokens/s")


def figure(
    name: str = "f",
    *,
    values: Sequence[float | Exception] = (),
    opens: Exception | None = None,
    measures: tuple[Measure, ...] = (SPEED,),
    rounds: int | None = None,
    times: int = 1,
) -> Figure:
    """`values` has each round's number, or what the round raises; `opens` is raised at the start."""

    @asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[Round]:
        if opens is not None:
            raise opens

        async def one_round(number: int) -> Mapping[str, Reading]:
            value = values[number]
            if isinstance(value, Exception):
                raise value
            return {each.name: Reading(value) for each in measures}

        yield one_round

    return Figure(name, measures, opened, rounds=rounds, times=times)


# ── arithmetic ───────────────────────────────────────────────────────────────────────────────────


def test_the_figure_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians() -> None:
    """Rounds in which the whole machine was slow still compare like with like."""
    readings = [ratio(100, 50), ratio(10, 2.5), ratio(90, 30)]  # 2, 4, 3
    outcome = summary("f", SPEED, readings)
    assert outcome.value == 3
    assert (outcome.low, outcome.high) == (2, 4)
    assert (outcome.ours, outcome.against) == (90, 30)
    assert outcome.rounds == 3
    assert outcome.state is State.MET


def test_an_even_number_of_rounds_takes_the_middle() -> None:
    assert summary("f", SPEED, [Reading(1), Reading(2), Reading(4), Reading(100)]).value == 3


def test_absolute_numbers_may_be_missing() -> None:
    outcome = summary("f", SPEED, [Reading(2), Reading(2, ours=7)])
    assert (outcome.ours, outcome.against) == (7, None)


def test_the_note_is_the_last_rounds() -> None:
    assert summary("f", SPEED, [Reading(2, note="first"), Reading(2, note="last")]).note == "last"


@pytest.mark.parametrize(
    ("bound", "value", "met"),
    [
        (Bound(2), 2.0, True),
        (Bound(2), 1.99, False),
        (Bound(3, at_most=True), 3.0, True),
        (Bound(3, at_most=True), 3.01, False),
        (Bound(2), math.nan, False),
        (Bound(3, at_most=True), math.nan, False),
        (Bound(0, at_most=True), 0.0, True),
    ],
)
def test_a_bound_holds_from_its_own_value_on(bound: Bound, value: float, met: bool) -> None:
    assert bound.met(value) is met
    assert summary("f", replace(SPEED, bound=bound), [Reading(value)]).state is (State.MET if met else State.MISSED)


def test_without_a_bound_a_number_is_only_shown() -> None:
    assert summary("f", replace(SPEED, bound=None), [Reading(0.001)]).state is State.SHOWN


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


async def test_rounds_are_counted_from_nought_and_all_are_taken(bench: Bench) -> None:
    (outcome,) = await measure(figure(values=[5, 1, 3]), bench, rounds=3)
    assert (outcome.value, outcome.low, outcome.high, outcome.rounds) == (3, 1, 5, 3)


async def test_a_figure_of_short_rounds_takes_more_of_them(bench: Bench) -> None:
    (outcome,) = await measure(figure(values=[5, 1, 3, 2, 4, 9], times=3), bench, rounds=2)
    assert (outcome.value, outcome.rounds) == (3.5, 6)


async def test_a_figure_may_set_its_own_rounds(bench: Bench) -> None:
    (outcome,) = await measure(figure(values=[5, 1, 3], rounds=1), bench, rounds=3)
    assert (outcome.value, outcome.rounds) == (5, 1)


async def test_each_measure_of_a_figure_gets_a_line(bench: Bench) -> None:
    both = (SPEED, Measure("share", "share", "%"))
    outcomes = await measure(figure(measures=both, values=[2]), bench, rounds=1)
    assert [outcome.measure.name for outcome in outcomes] == ["speed", "share"]


@pytest.mark.parametrize("values", [[RuntimeError("it broke")], [3, RuntimeError("it broke")]])
async def test_a_figure_that_raises_is_reported_with_its_reason_and_without_numbers(
    bench: Bench, values: list[float | Exception]
) -> None:
    lines: list[str] = []
    both = (SPEED, Measure("share", "share", "%"))
    outcomes = await measure(figure(measures=both, values=values), replace(bench, report=lines.append), rounds=2)
    assert [outcome.state for outcome in outcomes] == [State.FAILED, State.FAILED]
    assert {outcome.note for outcome in outcomes} == {"RuntimeError: it broke"}
    assert {outcome.value for outcome in outcomes} == {None}
    assert "Traceback" in lines[0]


async def test_a_reading_that_is_missing_is_a_failure_too(bench: Bench) -> None:
    promised = Figure("f", (SPEED, Measure("other", "other", "")), figure(values=[1]).open)
    outcomes = await measure(promised, bench, rounds=1)
    assert [outcome.state for outcome in outcomes] == [State.FAILED, State.FAILED]


async def test_what_the_machine_does_not_have_is_not_run_rather_than_failed(bench: Bench) -> None:
    (outcome,) = await measure(figure(opens=Unavailable("no such peer: install it")), bench, rounds=1)
    assert (outcome.state, outcome.note) == (State.UNAVAILABLE, "no such peer: install it")


async def test_an_interrupt_is_not_taken_for_a_failure(bench: Bench) -> None:
    @asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[Round]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        await measure(Figure("f", (SPEED,), opened), bench, rounds=1)


async def test_the_others_go_on_after_one_that_raises(bench: Bench) -> None:
    lines: list[str] = []
    figures = [
        figure("one", values=[3]),
        figure("two", opens=ValueError("no model")),
        figure("three", values=[1]),
    ]
    outcomes = await engine.run(figures, replace(bench, report=lines.append), rounds=1)
    assert [(outcome.figure, outcome.state) for outcome in outcomes] == [
        ("one", State.MET),
        ("two", State.FAILED),
        ("three", State.MISSED),
    ]
    told = "\n".join(lines)
    assert told.index("one …") < told.index("two …") < told.index("ValueError: no model") < told.index("three …")


async def test_what_a_figure_opened_is_closed_when_a_round_raises(bench: Bench) -> None:
    closed = []

    @asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[Round]:
        async def one_round(number: int) -> Mapping[str, Reading]:
            raise RuntimeError("it broke")

        try:
            yield one_round
        finally:
            closed.append(True)

    await measure(Figure("f", (SPEED,), opened), bench, rounds=1)
    assert closed == [True]

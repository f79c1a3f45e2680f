"""The figures' own arithmetic: gaps of streams, percentiles, growth of memory, shares of bandwidth."""

from __future__ import annotations

import asyncio

import pytest

from bench import machine
from bench.figures import FIGURES
from bench.figures.alone import share
from bench.figures.endurance import growth, resident
from bench.figures.latency import Stream, _unless_ended, percentile
from bench.figures.turns import shared


def test_gaps_are_those_that_end_in_the_window() -> None:
    stream = Stream([1.0, 2.0, 4.0, 4.5, 9.0])
    assert stream.gaps(1.5, 5.0) == [1.0, 2.0, 0.5]
    assert stream.gaps(0.0, 10.0) == [1.0, 2.0, 0.5, 4.5]


def test_a_stream_that_stands_still_at_the_end_has_that_gap_too() -> None:
    assert Stream([1.0, 2.0]).gaps(1.5, 7.0) == [1.0, 5.0]
    assert Stream([1.0]).gaps(2.0, 7.0) == [6.0]
    assert Stream([1.0, 9.0]).gaps(2.0, 7.0) == [6.0]
    assert Stream([]).gaps(2.0, 7.0) == [5.0]


@pytest.mark.parametrize(
    ("values", "at", "value"),
    [
        ([5.0], 0.99, 5.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 11)], 0.99, 10.0),
        ([1.0, 2.0], 0.0, 1.0),
    ],
)
def test_percentile_is_one_of_the_values(values: list[float], at: float, value: float) -> None:
    assert percentile(values, at) == value


async def test_waiting_ends_with_what_a_stream_raised() -> None:
    async def broken() -> None:
        raise RuntimeError("it ended")

    async def endless() -> None:
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(endless())]
    await _unless_ended(tasks, 0)
    tasks.append(asyncio.create_task(broken()))
    with pytest.raises(RuntimeError, match="it ended"):
        await _unless_ended(tasks, 60)
    tasks[0].cancel()


def test_growth_is_in_per_cent_and_never_negative() -> None:
    mib = 2**20
    reading = growth(200 * mib, 210 * mib)
    assert (reading.value, reading.ours, reading.against) == (5.0, 210, 200)
    assert growth(200 * mib, 100 * mib).value == 0


def test_this_process_takes_memory() -> None:
    assert resident() > 2**20


def test_a_share_is_in_per_cent_with_both_speeds() -> None:
    reading = share(6e9, 12e9)
    assert (reading.value, reading.ours, reading.against) == (50, 6, 12)


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [([], [], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 2], 2), ([1, 2], [1, 3, 2], 1), ([4], [5], 0)],
)
def test_prompts_share_what_they_begin_with(one: list[int], other: list[int], count: int) -> None:
    assert shared(one, other) == shared(other, one) == count


# ── the machine ──────────────────────────────────────────────────────────────────────────────────


def test_the_head_names_machine_versions_and_command() -> None:
    head = "\n".join(machine.describe(2, "python -m bench.engine --rounds 3"))
    assert machine.processor() in head
    assert f"{len(machine.cores())} cores" in head
    words = ("Date: 20", "Instruction sets:", "Threads: 2", "torch ", "peft ", "`python -m bench.engine --rounds 3`")
    assert [word for word in words if word not in head] == []


def test_only_instruction_sets_of_matrix_products_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = "fpu avx512_vnni avx2 sse avx_vnni amx_int8 fma x2apic"
    text = f"processor : 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: {flags}\n"
    monkeypatch.setattr(machine, "_cpuinfo", lambda: text)
    assert machine.instruction_sets() == ["amx_int8", "avx2", "avx512_vnni", "avx_vnni", "fma"]
    assert machine.processor() == "Some CPU @ 2 GHz"


def test_a_system_that_tells_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: "")
    assert machine.instruction_sets() == []
    assert "Instruction sets: unknown" in machine.describe(1, "x")
    assert machine.processor()


def test_memory_is_read_at_some_speed() -> None:
    assert machine.read_bandwidth("cpu", 1 << 24) > 1e8


# ── the table of figures ─────────────────────────────────────────────────────────────────────────


def test_figures_and_their_measures_have_names_of_their_own() -> None:
    names = [figure.name for figure in FIGURES]
    assert len(set(names)) == len(names)
    for figure in FIGURES:
        measures = [each.name for each in figure.measures]
        assert measures
        assert len(set(measures)) == len(measures)


def test_every_figure_on_the_processor_but_the_shown_ones_has_a_bound() -> None:
    unbound = {
        (figure.name, each.name)
        for figure in FIGURES
        for each in figure.measures
        if each.bound is None and figure.device == "cpu"
    }
    assert unbound == {("base-serve-batching", "ratio"), ("alone", "share")}

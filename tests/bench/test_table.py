"""The table as people read it, and its place in the document."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import table
from bench.engine import DOCUMENT
from bench.figure import Bound, Measure, Outcome, State

RATIO = Measure("ratio", "16 chats against a|b", "×", Bound(2.5), "tokens/s", against="generate")
DONE = Outcome("mixed", RATIO, State.MET, 3.14159, 2.9, 3.5, 120.4, 40.2, 5, "same text in 16 of 16")
FAILED = Outcome("mixed", RATIO, State.FAILED, note="RuntimeError: two\nlines")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "×", ""),
        (3.14159, "×", "3.14×"),
        (31.4159, "%", "31.4%"),
        (1234.6, "tokens/s", "1,235 tokens/s"),
        (0.004, "", "0.00"),
        (-20.55, "ms", "-20.6 ms"),
        (0.0, "MiB", "0.00 MiB"),
    ],
)
def test_numbers_are_short(value: float | None, unit: str, text: str) -> None:
    assert table.number(value, unit) == text


@pytest.mark.parametrize(
    ("bound", "unit", "text"),
    [
        (Bound(2.5), "×", "≥ 2.5×"),
        (Bound(50, at_most=True), "ms", "≤ 50 ms"),
        (Bound(90), "%", "≥ 90%"),
        (Bound(1, at_most=True), "", "≤ 1"),
        (None, "×", ""),
    ],
)
def test_a_bound_says_which_way_it_goes(bound: Bound | None, unit: str, text: str) -> None:
    assert table.bound(replace(RATIO, bound=bound, unit=unit)) == text


def test_a_line_has_the_median_the_spread_and_both_absolute_numbers() -> None:
    assert table.cells(DONE) == (
        "mixed",
        "16 chats against a|b",
        "≥ 2.5×",
        "3.14×",
        "2.90–3.50 (5)",
        "120 tokens/s, ours",
        "40.2 tokens/s, generate",
        "met: same text in 16 of 16",
    )


def test_one_round_has_no_spread() -> None:
    assert table.cells(replace(DONE, rounds=1))[4] == ""


def test_a_failure_keeps_its_bound_and_gives_its_reason() -> None:
    assert table.cells(FAILED) == (
        "mixed", "16 chats against a|b", "≥ 2.5×", "", "", "", "", "failed: RuntimeError: two\nlines",
    )  # fmt: skip


def test_markdown_is_one_row_a_line_whatever_the_texts_hold() -> None:
    lines = table.markdown([DONE, FAILED]).splitlines()
    assert len(lines) == 4
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert lines[2].startswith("| `mixed` | 16 chats against a\\|b | ≥ 2.5× | 3.14× |")
    assert lines[3].endswith("| failed: RuntimeError: two lines |")


def test_a_long_reason_is_cut_in_the_table_and_whole_in_the_terminal() -> None:
    long = replace(FAILED, note="x" * 1000)
    assert "x" * 280 + "x" in table.markdown([long])
    assert table.markdown([long]).endswith("x… |")
    assert len(table.markdown([long]).splitlines()[-1]) < 400
    assert "x" * 1000 in table.line(long)


def test_the_terminal_shows_what_is_there() -> None:
    assert "3.14×; bound ≥ 2.5×; 2.90–3.50 (5)" in table.line(DONE)
    assert table.line(FAILED).endswith("bound ≥ 2.5×; failed: RuntimeError: two\nlines")


def test_every_state_is_counted() -> None:
    missed, shown = replace(DONE, state=State.MISSED), replace(DONE, state=State.SHOWN)
    absent = replace(FAILED, state=State.UNAVAILABLE)
    assert table.count([DONE, DONE, missed, shown, FAILED, absent]) == "2 met, 1 missed, 1 shown, 1 failed, 1 not run"


@pytest.mark.parametrize(
    ("state", "good"),
    [
        (State.MET, True),
        (State.SHOWN, True),
        (State.UNAVAILABLE, True),
        (State.MISSED, False),
        (State.FAILED, False),
    ],
)
def test_what_is_missed_or_fails_is_not_good(state: State, good: bool) -> None:
    assert table.good([DONE, replace(DONE, state=state)]) is good


# ── the document ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "benchmarks.md"
    cpu, cuda = table.marks("cpu"), table.marks("cuda")
    path.write_text(f"Before\n\n{cpu[0]}\nold\n{cpu[1]}\n\nBetween\n\n{cuda[0]}\nkept\n{cuda[1]}\nAfter\n")
    return path


def test_only_what_stands_between_the_devices_marks_is_replaced(document: Path) -> None:
    table.write(document, "cpu", "new\ntable\n")
    text = document.read_text()
    assert "old" not in text
    begin, end = table.marks("cpu")
    assert f"Before\n\n{begin}\n\nnew\ntable\n\n{end}\n\nBetween" in text
    assert text.endswith(f"{table.marks('cuda')[0]}\nkept\n{table.marks('cuda')[1]}\nAfter\n")


def test_writing_twice_leaves_one_table(document: Path) -> None:
    table.write(document, "cuda", "first")
    once = document.read_text()
    table.write(document, "cuda", "second")
    assert document.read_text() == once.replace("first", "second")


@pytest.mark.parametrize("cut", [0, 1])
def test_a_document_without_both_marks_is_left_alone(document: Path, cut: int) -> None:
    broken = document.read_text().replace(table.marks("cpu")[cut], "")
    document.write_text(broken)
    with pytest.raises(ValueError, match="results on cpu: begin"):
        table.write(document, "cpu", "new")
    assert document.read_text() == broken


def test_the_products_own_document_has_a_place_for_both_devices() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for begin, end in (table.marks("cpu"), table.marks("cuda")):
        assert text.count(begin) == text.count(end) == 1
        assert text.index(begin) < text.index(end)

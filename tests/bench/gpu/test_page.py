"""The page of a run, and the order of a run, from outcomes that are made up."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench import engine
from bench.context import QUICK, ROOT, Bench
from bench.figure import Bound, Figure, Measure, Outcome, Reading, Round, State
from bench.figures import FIGURES
from bench.gpu import card, page

CARD = card.Card("NVIDIA RTX 6000 Ada/48GB", 48 << 30, "8.9", "570.1", "12.8")
COUNT = Measure("count", "wrong answers", "answers", Bound(0, at_most=True))


def figure(name: str, value: float, *, gate: bool = False) -> Figure:
    @asynccontextmanager
    async def opened(bench: Bench) -> AsyncIterator[Round]:
        async def one_round(number: int) -> Mapping[str, Reading]:
            if value < 0:
                raise RuntimeError(f"broke in {ROOT / 'bench'}")
            logging.getLogger("tailor.engine").debug("the model runs on cuda; steps replayed as CUDA graphs")
            return {"count": Reading(value)}

        yield one_round

    return Figure(name, (COUNT,), opened, "cuda", rounds=1, gate=gate)


def test_a_page_is_named_after_the_card() -> None:
    assert page.name(CARD.name) == "bench-nvidia-rtx-6000-ada-48gb.md"
    assert page.name("../../etc") == "bench-etc.md"
    assert page.name("///") == "bench-card.md"


@pytest.mark.parametrize(
    ("gates", "says"),
    [
        ({"tests": State.MET, "tokens": State.MET}, "Correctness: all checks passed"),
        ({"tests": State.MISSED, "tokens": State.FAILED}, "Correctness FAILED** (tests, tokens)"),
        ({"tests": State.UNAVAILABLE, "tokens": State.MET}, "not checked in full**: tests"),
        ({}, "not checked in full**: the run was of some figures alone"),
    ],
)
def test_the_first_words_are_of_correctness(gates: Mapping[str, State], says: str) -> None:
    figures = [*(figure(name, 0, gate=True) for name in gates), figure("fast", 0)]
    outcomes = [*(Outcome(name, COUNT, state) for name, state in gates.items()), Outcome("fast", COUNT, State.MISSED)]
    text = page.text(CARD.name, ["Date: today"], figures, outcomes, [], [])
    assert says in text.split("\n\n")[1]
    assert "- Date: today" in text


def test_what_failed_stands_on_the_page_and_no_folder_does() -> None:
    outcomes = [
        Outcome("tests", COUNT, State.MET, 0.0, rounds=1),
        Outcome("fast", COUNT, State.FAILED, note=f"RuntimeError: in {ROOT}/bench and {Path.home()}/.c " + "x" * 400),
    ]
    said = ["a traceback with ```` in it", f'File "{ROOT}/bench/engine.py"']
    text = page.text(CARD.name, [], [figure("tests", 0, gate=True), figure("fast", 0)], outcomes, ["a line"], said)
    before, _, after = text.partition("## Figures")
    assert "`tests`" in before
    assert "`fast`" not in before
    assert "- `fast`, wrong answers: failed: RuntimeError: in ./bench" in after
    assert "x" * 400 in after, "whole, where the table's cell is cut"
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    assert "`````\na traceback" in text


def test_the_engines_log_is_kept_where_it_tells_of_model_or_memory() -> None:
    log, logger = page.EngineLog(), logging.getLogger("tailor.page-test")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(log)
    for _ in range(2):
        logger.debug("keys and values: %d GiB", 3)
    logger.debug("ready: tokenizer")
    logger.warning("a size cannot be recorded")
    logger.removeHandler(log)
    assert list(log.lines) == ["keys and values: 3 GiB", "a size cannot be recorded"]


# ── the command ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on a card that is not there: the working folder it writes to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(card, "find", lambda: CARD)
    monkeypatch.setattr(engine, "WORK", tmp_path / "work")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, figures: list[Figure], *arguments: str) -> int:
    monkeypatch.setattr(engine, "FIGURES", tuple(figures))
    return engine.main(["--device", "cuda", *arguments])


def test_a_right_engine_is_measured_and_a_page_is_left(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [figure("tests", 0, gate=True), figure("fast", 0)]) == 0
    text = (there / "bench-nvidia-rtx-6000-ada-48gb.md").read_text()
    assert text.startswith("# Tailor on NVIDIA RTX 6000 Ada/48GB\n\n**Correctness: all checks passed.**")
    for words in (CARD.lines[0], "random Llama of 8.0B parameters", "2 met", "replayed as CUDA graphs", "Command: "):
        assert words in text
    assert sorted(path.name for path in there.iterdir()) == ["bench-nvidia-rtx-6000-ada-48gb.md", "work"]
    assert list((there / "work").iterdir()) == []


@pytest.mark.parametrize("bad", [1, -1], ids=["missed", "failed"])
def test_an_engine_that_errs_is_not_measured(there: Path, monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    figures = [figure("tests", bad, gate=True), figure("tokens", 0, gate=True), figure("fast", 0)]
    assert run(monkeypatch, figures) == 1
    text = (there / page.name(CARD.name)).read_text()
    assert "**Correctness FAILED** (tests)" in text
    assert "| `tokens` | wrong answers | ≤ 0 answers | 0.00 answers |  |  |  | met |" in text, "the other checks go on"
    assert "not run: tests says that the engine errs" in text
    assert str(ROOT) not in text


def test_a_figure_that_is_named_is_measured_all_the_same(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = [figure("tests", 1, gate=True), figure("fast", 0)]
    assert run(monkeypatch, figures, "--only", "tests,fast") == 1
    assert run(monkeypatch, figures, "--only", "fast") == 0
    text = (there / page.name(CARD.name)).read_text()
    assert "the run was of some figures alone" in text
    assert "1 met" in text


def test_the_table_goes_into_the_document(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = there / "page.md"
    document.write_text("\n".join(engine.table.marks("cuda")))
    monkeypatch.setattr(engine, "DOCUMENT", document)
    monkeypatch.setattr(engine, "ROOT", there)
    assert run(monkeypatch, [figure("tests", 0, gate=True)], "--write") == 0
    written = document.read_text()
    assert "**Correctness: all checks passed.**" in written
    assert "| `tests` |" in written


def test_without_a_card_one_line_says_so_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> card.Card:
        raise card.NoCard("no card, and the fix")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(card, "find", none)
    monkeypatch.setattr(engine, "WORK", tmp_path / "work")
    assert run(monkeypatch, [figure("tests", 0)]) == 2
    assert capsys.readouterr() == ("", "no card, and the fix\n")
    assert list(tmp_path.iterdir()) == []


def test_correctness_comes_before_every_figure_of_the_card() -> None:
    gates = [each.gate for each in FIGURES if each.device == "cuda"]
    assert gates == sorted(gates, reverse=True)
    assert sum(gates) == 3
    assert not any(each.gate for each in FIGURES if each.device == "cpu")


def test_a_quick_run_is_small_on_a_card_too() -> None:
    options = engine._parser().parse_args(["--device", "cuda", "--quick"])
    assert engine._sizes(options, CARD) == QUICK
    options = engine._parser().parse_args(["--device", "cuda"])
    assert engine._sizes(options, replace(CARD, memory=24 << 30)).large.layers == 28

"""The run of the tests that need a card, on tests that are made up."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bench.context import Bench
from bench.figure import State, measure
from bench.gpu import suite

PASSES = "import pytest\n@pytest.mark.gpu\ndef test_it(): pass\ndef test_other(): assert False\n"
FAILS = "import pytest\n@pytest.mark.gpu\ndef test_bad(): assert 'a wrong token' == ''\n"
SKIPS = "import pytest\n@pytest.mark.gpu\n@pytest.mark.skip(reason='no card')\ndef test_skipped(): pass\n"


def written(folder: Path, texts: tuple[str, ...]) -> None:
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu: a card\n")
    for number, text in enumerate(texts):
        (folder / f"test_{number}.py").write_text(text)


async def states(bench: Bench, folder: Path, *texts: str) -> tuple[dict[str, State], str, str]:
    written(folder, texts)
    lines: list[str] = []
    figure = replace(suite.FIGURE, open=partial(suite.marked, tests=folder))
    found = await measure(figure, replace(bench, report=lines.append), rounds=1)
    return {each.measure.name: each.state for each in found}, found[0].note, "\n".join(lines)


async def test_what_is_marked_passes(bench: Bench, tmp_path: Path) -> None:
    found, note, _ = await states(bench, tmp_path / "tests", PASSES, SKIPS)
    assert found == {"failed": State.MET, "passed": State.MET}
    assert "1 passed, 1 skipped" in note


async def test_a_failure_is_a_miss_whose_words_are_reported(bench: Bench, tmp_path: Path) -> None:
    found, note, said = await states(bench, tmp_path / "tests", PASSES, FAILS)
    assert found == {"failed": State.MISSED, "passed": State.MET}
    assert "1 failed, 1 passed" in note
    assert "a wrong token" in said


@pytest.mark.parametrize("texts", [(SKIPS,), ("def test_other(): pass\n",)], ids=["skipped", "none"])
async def test_a_run_in_which_nothing_ran_is_a_miss(bench: Bench, tmp_path: Path, texts: tuple[str, ...]) -> None:
    found, _, _ = await states(bench, tmp_path / "tests", *texts)
    assert found == {"failed": State.MET, "passed": State.MISSED}


async def test_a_file_that_cannot_be_read_is_a_failure(bench: Bench, tmp_path: Path) -> None:
    found, _, _ = await states(bench, tmp_path / "tests", PASSES, "import nothing_of_this_name\n")
    assert found["failed"] is State.MISSED


def test_a_report_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no report that can be read"):
        suite.counts(tmp_path / "none.xml")

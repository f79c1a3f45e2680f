"""Where a start's seconds and memory go."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bench import startup


def test_the_table_has_medians_and_their_sum() -> None:
    rounds = [
        [("import", 1.0, 100.0, 50.0), ("weights", 2.0, 500.0, 500.0)],
        [("import", 3.0, 120.0, 50.0), ("weights", 9.0, 500.0, 499.0)],
        [("import", 2.0, 110.0, 50.0), ("weights", 4.0, 502.0, 500.0)],
    ]
    assert startup.table(rounds)[2:] == [
        "| import | 2.00 | 110 | 50 |",
        "| weights | 4.00 | 500 | 500 |",
        "| all of it | 6.00 | 610 | 550 |",
    ]


def test_the_clock_hears_the_engines_parts_and_nothing_else() -> None:
    clock = startup.Clock()
    for text in ("ready: weights", "a row ended", "ready: decoder"):
        clock.emit(logging.LogRecord("tailor.engine", logging.DEBUG, "", 0, text, (), None))
    assert [name for name, *_ in clock.parts] == [startup.ENGINE["weights"], startup.ENGINE["decoder"]]


def test_no_round_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        startup.main(["--rounds", "0"])
    assert ended.value.code == 2
    assert "--rounds" in capsys.readouterr().err


@pytest.mark.slow
def test_every_part_of_a_real_start_is_there(chat_model_dir: Path, embedder_dir: Path) -> None:
    [parts] = startup.rounds("", 1, warm=False)
    assert {name for name, *_ in parts} >= set(startup.ENGINE.values())
    assert sum(seconds for _, seconds, *_ in parts) > 1
    assert sum(memory for _, _, memory, _ in parts) > 500, "the default model alone has as much"

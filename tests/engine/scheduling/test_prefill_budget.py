from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.scheduling.prefill_budget import Pace

SMALLEST = 4
ROWS = 4
WRITING = [1] * ROWS


class Machine:
    """Steps take `plain_s`, and `token_s` more for each token of a prompt."""

    def __init__(self, pace: Pace, plain_s: float, token_s: float) -> None:
        self.pace, self.plain_s, self.token_s = pace, plain_s, token_s

    def stretched(self, steps: int = 60) -> float:
        """How many times as long as a plain step the last one with a prompt's chunk took."""
        took = self.plain_s
        for _ in range(steps):
            self.pace.note(self.plain_s, WRITING)
            room = self.pace.room(ROWS)
            took = self.plain_s + room * self.token_s
            self.pace.note(took, [*WRITING, room])
        return took / self.plain_s


@given(plain=st.floats(1e-4, 10), token=st.floats(1e-6, 1), most=st.integers(16, 2048))
def test_a_prompt_stretches_steps_by_a_bounded_factor_on_any_machine(plain: float, token: float, most: int) -> None:
    pace = Pace(most)
    stretched = Machine(pace, plain, token).stretched()
    assert SMALLEST <= pace.room(ROWS) <= most
    if pace.room(ROWS) > SMALLEST:
        assert stretched <= 3
    if pace.room(ROWS) < most:
        assert stretched >= 1.5, "a prompt must not be starved either"


@given(st.integers(1, 64), st.floats(1e-3, 1), st.floats(1e-5, 0.1))
def test_a_chunk_fills_up_what_products_are_padded_to(writing: int, plain: float, token: float) -> None:
    pace = Pace(1 << 20)
    pace.note(plain, [1] * writing)
    pace.note(plain + 50 * token, [*[1] * writing, 50])
    assert (pace.room(writing) + writing) % 4 == 0
    assert pace.room(writing) >= SMALLEST


def test_before_it_knows_it_is_careful() -> None:
    assert Pace(1000).room(ROWS) == 32
    assert Pace(20).room(ROWS) == 20
    pace = Pace(1000)
    pace.note(0.1, WRITING)
    assert pace.room(ROWS) == 32, "nothing is known of prompts yet"


def test_time_that_went_into_something_else_is_taken_off() -> None:
    pace = Pace(1000)
    Machine(pace, 0.1, 0.001).stretched()
    assert pace.room(ROWS, 0.03) <= pace.room(ROWS) - 20
    assert pace.room(ROWS, 5.0) == SMALLEST


def test_a_disturbance_shrinks_chunks_less_than_its_end_lets_them_grow() -> None:
    pace = Pace(1000)
    machine = Machine(pace, 0.1, 0.001)
    machine.stretched()
    calm = pace.room(ROWS)
    pace.note(0.1 + 0.003 * calm, [*WRITING, calm])
    disturbed = pace.room(ROWS)
    assert calm * 0.75 < disturbed < calm
    machine.stretched(8)
    assert pace.room(ROWS) > calm * 0.95


def test_it_follows_a_machine_that_changes() -> None:
    pace = Pace(4096)
    Machine(pace, 0.01, 1e-5).stretched()
    wide = pace.room(ROWS)
    assert Machine(pace, 0.01, 1e-4).stretched() <= 3
    assert SMALLEST < pace.room(ROWS) < wide / 5
    Machine(pace, 0.01, 1e-5).stretched()
    assert pace.room(ROWS) > wide * 0.8


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_chunks_that_seem_free_do_no_harm(seconds: float) -> None:
    """A clock's grain, or a plain step that was slow by chance."""
    pace = Pace(512)
    pace.note(0.1, WRITING)
    pace.note(seconds, [*WRITING, 150, 50])
    assert SMALLEST <= pace.room(ROWS) <= 512
    assert Machine(pace, 0.01, 1e-3).stretched(200) <= 3


def test_a_step_is_compared_with_steps_of_as_many_rows() -> None:
    """After the last row of a crowd has written on alone, the next crowd's steps are not taken for slow ones."""
    pace = Pace(1000)
    Machine(pace, 0.1, 0.001).stretched()
    crowded = pace.room(ROWS)
    for _ in range(60):
        pace.note(0.01, [1])
    assert pace.room(ROWS) == crowded
    assert pace.room(3) == pace.room(7) == pytest.approx(crowded, abs=3), "the nearest number that is known"
    assert pace.room(1) == pytest.approx(crowded / 10, abs=4), "its steps take a tenth"
    pace.note(0.2, [100])
    assert pace.room(ROWS) < crowded, "a step of prompts alone tells what their tokens cost"

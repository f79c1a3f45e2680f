from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.pace import Pace

SMALLEST = 8


class Machine:
    """Steps take `plain_s`, and `token_s` more for each token of a prompt."""

    def __init__(self, pace: Pace, plain_s: float, token_s: float) -> None:
        self.pace, self.plain_s, self.token_s = pace, plain_s, token_s

    def stretched(self, steps: int = 60) -> float:
        """How many times as long as a plain step the last one with a prompt's chunk took."""
        took = self.plain_s
        for _ in range(steps):
            self.pace.note(self.plain_s, 4, 4)
            room = self.pace.room()
            took = self.plain_s + room * self.token_s
            self.pace.note(took, 4 + room, 4)
        return took / self.plain_s


@given(plain=st.floats(1e-4, 10), token=st.floats(1e-6, 1), most=st.integers(16, 2048))
def test_a_prompt_stretches_steps_by_a_bounded_factor_on_any_machine(plain: float, token: float, most: int) -> None:
    pace = Pace(most)
    stretched = Machine(pace, plain, token).stretched()
    assert SMALLEST <= pace.room() <= most
    if pace.room() > SMALLEST:
        assert stretched <= 3
    if pace.room() < most:
        assert stretched >= 1.5, "a prompt must not be starved either"


def test_before_it_knows_it_is_careful() -> None:
    assert Pace(1000).room() == 32
    assert Pace(20).room() == 20
    pace = Pace(1000)
    pace.note(0.1, 3, 3)
    assert pace.room() == 32, "nothing is known of prompts yet"


def test_time_that_went_into_something_else_is_taken_off() -> None:
    pace = Pace(1000)
    Machine(pace, 0.1, 0.001).stretched()
    assert pace.room(0.03) <= pace.room() - 20
    assert pace.room(5.0) == SMALLEST


def test_it_follows_a_machine_that_changes() -> None:
    pace = Pace(4096)
    Machine(pace, 0.01, 1e-5).stretched()
    wide = pace.room()
    assert Machine(pace, 0.01, 1e-4).stretched() <= 3
    assert SMALLEST < pace.room() < wide / 5
    Machine(pace, 0.01, 1e-5).stretched()
    assert pace.room() > wide * 0.8


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_chunks_that_seem_free_do_no_harm(seconds: float) -> None:
    """A clock's grain, or a plain step that was slow by chance."""
    pace = Pace(512)
    pace.note(0.1, 2, 2)
    pace.note(seconds, 200, 2)
    assert SMALLEST <= pace.room() <= 512
    assert Machine(pace, 0.01, 1e-3).stretched(200) <= 3

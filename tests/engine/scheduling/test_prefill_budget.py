from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.scheduling.prefill_budget import PrefillBudget

MIN_CHUNK = 4
ROWS = 4
DECODING = [1] * ROWS


class Machine:
    """Steps take `decode_s`, and `token_s` more for each token of a prompt."""

    def __init__(self, budget: PrefillBudget, decode_s: float, token_s: float) -> None:
        self.budget, self.decode_s, self.token_s = budget, decode_s, token_s

    def stretched(self, steps: int = 60) -> float:
        """How many times as long as a decode step the last one with a prompt's chunk took."""
        took = self.decode_s
        for _ in range(steps):
            self.budget.observe(self.decode_s, DECODING)
            tokens = self.budget.tokens(ROWS)
            took = self.decode_s + tokens * self.token_s
            self.budget.observe(took, [*DECODING, tokens])
        return took / self.decode_s


@given(decode_s=st.floats(1e-4, 10), token=st.floats(1e-6, 1), most=st.integers(16, 2048))
def test_a_prompt_stretches_steps_by_a_bounded_factor_on_any_machine(decode_s: float, token: float, most: int) -> None:
    budget = PrefillBudget(most)
    stretched = Machine(budget, decode_s, token).stretched()
    assert MIN_CHUNK <= budget.tokens(ROWS) <= most
    if budget.tokens(ROWS) > MIN_CHUNK:
        assert stretched <= 3
    if budget.tokens(ROWS) < most:
        assert stretched >= 1.5, "a prompt must not be starved either"


@given(st.integers(1, 64), st.floats(1e-3, 1), st.floats(1e-5, 0.1))
def test_a_chunk_fills_up_what_products_are_padded_to(decoding: int, decode_s: float, token: float) -> None:
    budget = PrefillBudget(1 << 20)
    budget.observe(decode_s, [1] * decoding)
    budget.observe(decode_s + 50 * token, [*[1] * decoding, 50])
    assert (budget.tokens(decoding) + decoding) % 4 == 0
    assert budget.tokens(decoding) >= MIN_CHUNK


def test_before_it_knows_it_is_careful() -> None:
    assert PrefillBudget(1000).tokens(ROWS) == 32
    assert PrefillBudget(20).tokens(ROWS) == 20
    budget = PrefillBudget(1000)
    budget.observe(0.1, DECODING)
    assert budget.tokens(ROWS) == 32, "nothing is known of prompts yet"


def test_time_that_went_into_something_else_is_taken_off() -> None:
    budget = PrefillBudget(1000)
    Machine(budget, 0.1, 0.001).stretched()
    assert budget.tokens(ROWS, 0.03) <= budget.tokens(ROWS) - 20
    assert budget.tokens(ROWS, 5.0) == MIN_CHUNK


def test_a_disturbance_shrinks_chunks_less_than_its_end_lets_them_grow() -> None:
    budget = PrefillBudget(1000)
    machine = Machine(budget, 0.1, 0.001)
    machine.stretched()
    calm = budget.tokens(ROWS)
    budget.observe(0.1 + 0.003 * calm, [*DECODING, calm])
    disturbed = budget.tokens(ROWS)
    assert calm * 0.75 < disturbed < calm
    machine.stretched(8)
    assert budget.tokens(ROWS) > calm * 0.95


def test_it_follows_a_machine_that_changes() -> None:
    budget = PrefillBudget(4096)
    Machine(budget, 0.01, 1e-5).stretched()
    wide = budget.tokens(ROWS)
    assert Machine(budget, 0.01, 1e-4).stretched() <= 3
    assert MIN_CHUNK < budget.tokens(ROWS) < wide / 5
    Machine(budget, 0.01, 1e-5).stretched()
    assert budget.tokens(ROWS) > wide * 0.8


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_chunks_that_seem_free_do_no_harm(seconds: float) -> None:
    """A clock's resolution, or a decode step that was slow by chance."""
    budget = PrefillBudget(512)
    budget.observe(0.1, DECODING)
    budget.observe(seconds, [*DECODING, 150, 50])
    assert MIN_CHUNK <= budget.tokens(ROWS) <= 512
    assert Machine(budget, 0.01, 1e-3).stretched(200) <= 3


def test_a_step_is_compared_with_steps_of_as_many_rows() -> None:
    """After the last row of a crowd has written on alone, the next crowd's steps are not taken for slow ones."""
    budget = PrefillBudget(1000)
    Machine(budget, 0.1, 0.001).stretched()
    crowded = budget.tokens(ROWS)
    for _ in range(60):
        budget.observe(0.01, [1])
    assert budget.tokens(ROWS) == crowded
    assert budget.tokens(3) == budget.tokens(7) == pytest.approx(crowded, abs=3), "the nearest number that is known"
    assert budget.tokens(1) == pytest.approx(crowded / 10, abs=4), "its steps take a tenth"
    budget.observe(0.2, [100])
    assert budget.tokens(ROWS) < crowded, "a step of prompts alone tells what their tokens cost"


# ── beside rows that are replayed ────────────────────────────────────────────────────────────────


class Card:
    """A chunk costs `fixed_s` however short it is, and the rows that are replayed beside it `decode_s`."""

    def __init__(self, budget: PrefillBudget, decode_s: float, fixed_s: float, token_s: float) -> None:
        self.budget, self.decode_s, self.fixed_s, self.token_s = budget, decode_s, fixed_s, token_s

    def prompt(self, tokens: int) -> list[float]:
        """Seconds of each step until a prompt of so many tokens is computed."""
        took = []
        while tokens:
            self.budget.observe(self.decode_s, DECODING)
            chunk = min(tokens, self.budget.tokens(ROWS))
            took.append(self.decode_s + self.fixed_s + chunk * self.token_s)
            self.budget.observe(took[-1], [*DECODING, chunk])
            tokens -= chunk
        return took


def test_what_any_chunk_costs_does_not_make_chunks_shrink() -> None:
    """8 ms a step, 45 with the shortest chunk: a budget that counts tokens alone falls to the least, and stays."""
    naive = Card(PrefillBudget(1024), 0.008, 0.037, 2e-5).prompt(1000)
    assert sum(naive) > 5, "which is what this is about"
    card = Card(PrefillBudget(1024, fixed_cost=True), 0.008, 0.037, 2e-5)
    assert sum(card.prompt(1000)) < 0.5
    assert sum(card.prompt(1000)) < 0.2, "and less once it knows"


@given(
    decode_s=st.floats(1e-3, 0.1),
    fixed=st.floats(0, 10),
    token=st.floats(1e-4, 0.1),
    most=st.sampled_from([64, 256, 2048]),
)
def test_rows_wait_about_twice_as_long_as_beside_the_shortest_chunk(
    decode_s: float, fixed: float, token: float, most: int
) -> None:
    """`fixed`, `token`: what they cost, of a step without a chunk."""
    budget = PrefillBudget(most, fixed_cost=True)
    card = Card(budget, decode_s, fixed * decode_s, token * decode_s)
    card.prompt(40 * most)
    shortest = decode_s * (1 + fixed)
    chunks = [budget.tokens(ROWS) for _ in range(8)]
    longest = max(shortest + chunk * card.token_s for chunk in chunks)
    assert longest <= 2.2 * shortest or max(chunks) == MIN_CHUNK
    if max(chunks) < most:
        assert longest >= 1.5 * shortest, "a prompt must not be starved either"


def test_a_limit_holds_from_then_on() -> None:
    budget = PrefillBudget(1024, fixed_cost=True)
    assert budget.tokens(ROWS) == 256, "before it knows it is careful"
    assert budget.limit(40) == 40
    assert budget.limit(100) == 40
    Card(budget, 0.008, 0.037, 2e-5).prompt(500)
    assert max(budget.tokens(ROWS) for _ in range(4)) == 40

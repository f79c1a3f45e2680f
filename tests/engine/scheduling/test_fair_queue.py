"""The queue's promises, held over random histories of a whole scheduler."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.scheduling.row import Row, RowState
from tests.engine.scheduling.test_scheduler import Harness
from tests.tiers import cases

USERS = ("a", "b", "c", None)
LONGEST = 300  # tokens of a row, which fit into the least memory tried


class History:
    """A scheduler, and for each row how many of each user were admitted first while it waited."""

    def __init__(self, **bounds: int) -> None:
        self.harness = Harness(max_waiting=10_000, max_per_user=10_000, **bounds)
        self.rows: list[Row] = []
        self.before: dict[int, int] = {}  # rows of its own user that waited when it came
        self.passed: dict[int, Counter[str | None]] = {}
        self.admitted: list[Row] = []

    def submit(self, user: str | None, prompt: int = 3) -> Row:
        waiting = [row for row in self.harness.scheduler.waiting if row.user == user and not row.turn]
        row = self.harness.row(prompt, user=user, most=1000)
        self.rows.append(row)
        self.before[row.id], self.passed[row.id] = len(waiting), Counter()
        return row

    def step(self) -> None:
        fresh = [row for row in self.rows if not row.turn and row.state is RowState.WAITING]
        self.harness.plan()
        for row in [row for row in self.harness.scheduler.running if len(row.tokens) > LONGEST]:
            self.harness.finish(row)
        for row in sorted((row for row in fresh if row.turn), key=lambda row: row.turn):
            self.admitted.append(row)
            for other in fresh:
                if other is not row and (not other.turn or other.turn > row.turn):
                    self.passed[other.id][row.user] += 1

    def finish(self, which: int) -> None:
        running = self.harness.scheduler.running
        if running:
            self.harness.finish(running[which % len(running)])

    def cancel(self, which: int) -> None:
        waiting = list(self.harness.scheduler.waiting)
        if waiting:
            row = waiting[which % len(waiting)]
            self.harness.finish(row)
            for other in self.rows:
                if other.user == row.user and other.id > row.id and not other.turn and not row.turn:
                    self.before[other.id] -= 1

    def drain(self) -> None:
        for _ in range(10 * len(self.rows) + 10):
            self.step()
            self.finish(0)
        assert len(self.harness.scheduler.waiting) == 0, "a row starved"

    def check(self) -> None:
        for user in USERS:
            ids = [row.id for row in self.admitted if row.user == user]
            assert ids == sorted(ids), f"a later row of {user} overtook an earlier one"
        for row in self.rows:
            for user, count in self.passed[row.id].items():
                assert count <= self.before_at_most(row) + (user != row.user), (row.id, user, count)

    def before_at_most(self, row: Row) -> int:
        """Cancelled rows ahead make the bound smaller than what had passed already: the first bound holds."""
        return max(self.before[row.id], self.passed[row.id][row.user])


events = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from(USERS)),
    st.tuples(st.just("step"), st.sampled_from([1, 1, 1, 130])),  # after 130 a row has outgrown its first memory
    st.tuples(st.just("finish"), st.integers(0, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
)


@settings(max_examples=cases(300, 5_000), deadline=None, derandomize=True)
@given(st.lists(events, max_size=60), st.sampled_from([1, 2, 5]), st.booleans())
def test_users_share_and_each_user_is_served_first_come_first(history, batch: int, short_of_memory: bool) -> None:
    run = History(max_batch=batch, **({"tokens": 320} if short_of_memory else {}))
    for what, value in history:
        for _ in range(value if what == "step" else 1):
            run.step() if what == "step" else getattr(run, what)(value)
    run.drain()
    run.check()


def test_a_light_users_first_row_waits_for_one_round() -> None:
    run = History(max_batch=1)
    for user in ("a", "b"):
        for _ in range(60):
            run.submit(user)
    run.step()
    light = run.submit("c")
    while not light.turn:
        run.finish(0)
        run.step()
    assert run.passed[light.id].total() <= 2


def test_rows_of_one_user_alone_are_served_as_they_came() -> None:
    run = History(max_batch=2)
    rows = [run.submit("a") for _ in range(40)]
    run.drain()
    assert run.admitted == rows


def test_newcomers_do_not_starve_who_waits() -> None:
    run = History(max_batch=1)
    run.submit("a")
    second = run.submit("a")
    for number in range(50):
        run.submit(f"new {number}")
        run.step()
        run.finish(0)
        if second.turn:
            break
    assert second.turn
    assert second.turn <= 4


@pytest.mark.parametrize("user", ["a", "b"])
def test_a_preempted_row_is_next_again_and_costs_its_user_no_turn(user: str) -> None:
    run = History(max_batch=2, tokens=448)
    first, second = run.submit("a", 100), run.submit(user, 100)
    run.step()
    assert first.turn < second.turn
    waiting = [run.submit(name, 3) for name in ("c", user, "d")]
    while second.state is RowState.RUNNING:
        run.step()
    order = list(run.harness.scheduler.waiting)
    assert order[0] is second
    assert order[1:] == [row for row in waiting if not row.turn]
    run.finish(0)
    run.step()
    assert second.state is RowState.RUNNING


def test_a_row_that_leaves_costs_nobody_a_turn() -> None:
    run = History(max_batch=1)
    run.submit("a")
    run.step()
    b, c = run.submit("b"), run.submit("c")
    run.submit("b")
    run.harness.finish(b)
    assert [row.user for row in run.harness.scheduler.waiting] == ["b", "c"]
    run.finish(0)
    run.step()
    assert not c.turn

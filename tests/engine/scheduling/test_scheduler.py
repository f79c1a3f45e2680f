from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.config import EngineSettings
from server.engine.adapters.folders import AdapterFolder
from server.engine.adapters.slots import SlotState, SlotTable
from server.engine.cache.kv import KVBudget
from server.engine.cache.prefix import BLOCK, PrefixIndex
from server.engine.sampling.detokenize import TextStream
from server.engine.sampling.sampler import Sampler
from server.engine.scheduling.row import Row, RowState
from server.engine.scheduling.scheduler import Scheduler
from server.errors import AdapterInvalid, EngineBusy
from server.types import Queued, SamplingParams


class Bench:
    """A scheduler with a clock, rows whose events are kept, and a model thread's bookkeeping: what each place of
    the arena and of the prefix store would hold."""

    def __init__(
        self, *, tokens: int = 64_000, loras: int = 2, chunked: bool = True, blocks: int = 0, **changes
    ) -> None:
        self.now = 100.0
        settings = EngineSettings(**changes)
        self.slots = SlotTable(loras, 1000)
        self.to_read: list = []
        self.budget = KVBudget(tokens, 1, settings.max_batch)
        self.prefix = PrefixIndex(blocks)
        self.scheduler = Scheduler(settings, self.budget, self.slots, self.prefix, self.to_read.append,
                                   chunked=chunked)
        self.events: dict[int, list] = {}
        self.count = 0
        self.arena: dict[int, list] = {}
        self.pool: dict[int, list] = {}

    def row(
        self, prompt: int | list[int] = 10, *, user: str | None = None, adapter: str | None = None, most: int = 5
    ) -> Row:
        self.count += 1
        self.now += 0.001
        folder = AdapterFolder(adapter, "1", Path(adapter), ()) if adapter else None
        events = self.events.setdefault(self.count, [])
        row = Row(id=self.count, prompt=tuple(range(prompt)) if isinstance(prompt, int) else tuple(prompt),
                  max_tokens=most, user=user, folder=folder, adapter_bytes=1, sampler=Sampler(SamplingParams(), ()),
                  text=TextStream(lambda ids: ""), emit=events.append, submitted=self.now)
        self.scheduler.submit(row)
        return row

    def plan(self, seconds: float = 0.0) -> dict[int, int]:
        """Plans and carries out a step: {row id: how many tokens}."""
        self.now += seconds
        self.scheduler.reap(self.now)
        self.keep()
        plan = self.scheduler.plan(self.now)
        self.keep()
        for arrival in plan.arrivals:
            self.arena[arrival.place] = [mark for block in arrival.blocks for mark in self.pool[block]]
        for part in plan.parts:
            row, whole = part.row, len(part.tokens) == part.row.pending
            held = self.arena[row.grant.place]
            assert held == marks(row.load, row.known[:row.computed]), "the place holds another row's tokens"
            held += [(row.load, token) for token in part.tokens]
            row.computed += len(part.tokens)
            self.save(row.load, row.known[:row.computed], row.grant.place)
            if whole:
                row.known.append(1000 + row.id)
        self.scheduler.check_integrity()
        return {part.row.id: len(part.tokens) for part in plan.parts}

    def keep(self) -> None:
        for departure in self.scheduler.departures:
            self.save(departure.load, departure.tokens, departure.place)
        self.scheduler.departures = []
        for slot in self.slots.left:
            self.prefix.drop(slot.id)
        self.slots.left = []

    def save(self, load: int, tokens, place: int) -> None:
        for number, block in self.prefix.add(load, tokens):
            self.pool[block] = self.arena[place][number * BLOCK:(number + 1) * BLOCK]

    def load_all(self) -> None:
        while self.to_read:
            self.slots.fill(self.to_read.pop())

    def finish(self, row: Row) -> None:
        self.scheduler.finish(row, self.now)


def marks(load: int, tokens) -> list:
    return [(load, token) for token in tokens]


def test_a_long_prompt_comes_in_chunks_while_others_write() -> None:
    bench = Bench(prefill_tokens=16)
    writer = bench.row(4)
    bench.plan()
    long = bench.row(40)
    assert [bench.plan() for _ in range(3)] == [{1: 1, 2: 16}, {1: 1, 2: 16}, {1: 1, 2: 8}]
    assert bench.plan() == {writer.id: 1, long.id: 1}


@pytest.mark.parametrize(
    ("writers", "late", "tokens"),
    [(0, [200], 64), (1, [200], 8), (6, [30, 40], 64), (7, [30, 40], 8), (7, [30, 34], 64), (7, [60], 8),
     (3, [30, 400], 8)],
)
def test_prompts_come_slowly_beside_rows_that_write_unless_many_short_ones_wait(
    writers: int, late: list[int], tokens: int
) -> None:
    bench = Bench(prefill_tokens=64)
    for _ in range(writers):
        bench.row(3)
    bench.plan()
    waiting = [bench.row(length).id for length in late]
    asked: list[int] = []
    parts = bench.scheduler.plan(bench.now, beside=lambda writing: asked.append(writing) or 8).parts  # type: ignore[func-returns-value]
    assert asked == [writers] * (tokens == 8)
    assert sum(len(part.tokens) for part in parts if part.row.id in waiting) == tokens


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    bench = Bench(prefill_tokens=32)
    bench.row(1000)
    bench.plan()
    bench.row(12)
    assert bench.plan() == {1: 20, 2: 12}


def test_the_oldest_prompt_always_moves() -> None:
    bench = Bench(prefill_tokens=32)
    bench.row(100)
    for _ in range(6):
        bench.row(16)
    while bench.scheduler.running == [] or bench.scheduler.running[0].pending > 1:
        assert bench.plan()[1] >= 4


def test_prompts_of_one_adapter_are_computed_together() -> None:
    bench = Bench(loras=3, prefill_tokens=80)
    for adapter in ("one", "two", "three", "two", "one"):
        bench.row(20, adapter=adapter)
    bench.row(38, adapter="one")
    bench.plan()
    bench.load_all()
    assert bench.plan() == {1: 20, 5: 20, 2: 20, 4: 20}, "shorter ones of another adapter before a longer one"
    assert bench.plan() == {1: 1, 2: 1, 3: 20, 4: 1, 5: 1, 6: 38}


def test_without_chunks_one_whole_prompt_a_step() -> None:
    bench = Bench(chunked=False, prefill_tokens=16)
    bench.row(40)
    bench.row(50)
    assert bench.plan() == {1: 40}
    assert bench.plan() == {1: 1, 2: 50}


def test_what_does_not_fit_waits_and_is_told_its_place() -> None:
    bench = Bench(max_batch=1)
    first = bench.row()
    bench.row()
    bench.row()
    bench.plan()
    bench.plan()
    assert bench.events == {1: [], 2: [Queued(1)], 3: [Queued(2)]}
    bench.finish(first)
    bench.plan()
    assert bench.events[3] == [Queued(2), Queued(1)]


def test_memory_bounds_admission_in_order() -> None:
    bench = Bench(tokens=320)
    big = bench.row(150)
    bench.row(100)
    bench.row(3)
    assert bench.plan() == {1: 150}, "the small one must not pass the one that waits for memory"
    bench.finish(big)
    assert set(bench.plan()) == {2, 3}


def test_users_take_turns() -> None:
    bench = Bench(max_batch=1)
    rows = [bench.row(user="a") for _ in range(3)]
    other = bench.row(user="b")
    bench.plan()
    assert [row.user for row in bench.scheduler.waiting] == ["b", "a", "a"]
    bench.finish(rows[0])
    bench.plan()
    assert other.state is RowState.RUNNING


def test_nobody_waits_for_ever() -> None:
    bench = Bench(max_batch=1, max_waiting=1000)
    running = bench.row(user="x")
    bench.plan()
    second = bench.row(user="x")
    for step in range(100):
        bench.row(user=f"new{step}")
        bench.plan(seconds=1)
        bench.finish(running)
        running = bench.scheduler.running[0] if bench.scheduler.running else bench.scheduler.waiting[0]
        bench.plan()
        running = bench.scheduler.running[0]
        if running is second:
            return
    pytest.fail("the second row of one user starved behind newcomers")


def test_bounds_are_refusals_with_reasons() -> None:
    bench = Bench(max_batch=1, max_waiting=1, max_per_user=2)
    bench.row(user="a")
    bench.row(user="a")
    with pytest.raises(EngineBusy, match="max_per_user"):
        bench.row(user="a")
    bench.plan()
    with pytest.raises(EngineBusy, match="max_waiting"):
        bench.row(user="b")
    assert len(bench.scheduler.waiting) == 1


def test_no_waiting_room_still_admits_to_a_free_batch() -> None:
    bench = Bench(max_batch=2, max_waiting=0)
    bench.row()
    bench.row()
    with pytest.raises(EngineBusy):
        bench.row()


def test_a_cancelled_row_is_gone_before_the_step() -> None:
    bench = Bench()
    one, two = bench.row(), bench.row()
    bench.plan()
    one.cancelled = True
    assert bench.plan() == {two.id: 1}
    assert bench.budget.owners() == {two.id}
    assert one.state is RowState.FINISHED


def test_rows_of_one_adapter_stand_side_by_side_behind_the_base() -> None:
    bench = Bench()
    order = ["a", None, "b", "a", None, "b"]
    rows = [bench.row(adapter=name) for name in order]
    bench.plan()
    bench.load_all()
    bench.plan()
    parts = bench.scheduler.plan(bench.now).parts
    slots = [part.row.slot.place + 1 if part.row.slot else 0 for part in parts]
    assert len(parts) == len(rows)
    assert slots == sorted(slots)
    assert slots[:2] == [0, 0]


def test_an_adapter_is_read_once_and_its_rows_wait_for_it() -> None:
    bench = Bench()
    bench.row(adapter="a")
    bench.row(adapter="a")
    bench.row()
    assert set(bench.plan()) == {3}
    assert len(bench.to_read) == 1
    bench.load_all()
    assert set(bench.plan()) == {1, 2, 3}


def test_more_adapters_than_slots_wait_until_one_is_free() -> None:
    bench = Bench(loras=1)
    a = bench.row(adapter="a")
    b = bench.row(adapter="b")
    bench.plan()
    bench.load_all()
    assert set(bench.plan()) == {1}
    assert not bench.to_read
    bench.finish(a)
    bench.plan()
    bench.load_all()
    bench.plan()
    assert b.state is RowState.RUNNING


def test_a_rare_adapter_does_not_starve_behind_a_busy_one() -> None:
    bench = Bench(loras=1, max_waiting=100)
    busy = [bench.row(adapter="busy")]
    bench.plan()
    bench.load_all()
    rare = bench.row(adapter="rare")
    for _ in range(20):
        busy.append(bench.row(adapter="busy"))
        base = bench.row()
        bench.plan(seconds=1)
        bench.load_all()
        assert base.state is RowState.RUNNING, "rows of the base model are not held up"
        bench.finish(base)
        bench.finish(next(row for row in busy if row.state is not RowState.FINISHED))
        if rare.state is RowState.RUNNING:
            return
    pytest.fail("the rare adapter's row never ran")


# ── rows that outgrow memory, and prompts that begin alike ───────────────────────────────────────


def test_the_last_to_come_goes_back_when_rows_outgrow_memory_and_loses_nothing() -> None:
    bench = Bench(tokens=256, blocks=16)
    first, second = bench.row(list(range(60))), bench.row(list(range(500, 560)))
    for _ in range(60):
        bench.plan()
    assert bench.budget.owners() == {first.id, second.id}
    while second.state is RowState.RUNNING:
        bench.plan()
        assert len(first.known) < 300
    assert bench.scheduler.preempted == 1
    before = list(second.known)
    bench.plan()
    assert bench.events[second.id] == [Queued(1)]
    bench.finish(first)
    steps = bench.plan()
    assert second.known[:len(before)] == before
    assert steps == {second.id: len(before) - len(before) // BLOCK * BLOCK}, "the rest came from the prefix store"


def test_without_a_store_it_computes_anew() -> None:
    bench = Bench(tokens=256)
    first, second = bench.row(100), bench.row(100)
    while second.state is RowState.RUNNING or not second.computed:
        bench.plan()
        if first.state is RowState.RUNNING and bench.scheduler.preempted:
            break
        assert len(first.known) < 300
    known = len(second.known)
    bench.finish(first)
    bench.plan()
    assert second.computed == known


def test_a_prompt_that_begins_like_an_earlier_one_starts_behind_it() -> None:
    bench = Bench(blocks=16)
    first = bench.row(100)
    bench.plan()
    bench.finish(first)
    again = bench.row(100)
    assert bench.plan() == {again.id: 4}
    assert again.cached == 96


def test_the_last_token_is_always_computed() -> None:
    bench = Bench(blocks=16)
    first = bench.row(2 * BLOCK)
    bench.plan()
    bench.finish(first)
    again = bench.row(2 * BLOCK)
    assert bench.plan() == {again.id: BLOCK}


def test_another_adapter_shares_nothing() -> None:
    bench = Bench(blocks=16)
    base = bench.row(100)
    bench.plan()
    bench.finish(base)
    adapted = bench.row(100, adapter="a")
    bench.plan()
    bench.load_all()
    assert bench.plan() == {adapted.id: 100}


def test_equal_prompts_at_once_are_computed_once() -> None:
    bench = Bench(blocks=16, prefill_tokens=64)
    rows = [bench.row(200) for _ in range(3)]
    short = bench.row([7, 8, 9])
    assert bench.plan() == {rows[0].id: 61, short.id: 3}
    steps = [bench.plan() for _ in range(6)]
    assert all(row.pending == 1 for row in rows)
    assert [row.cached for row in rows] == [0, 176, 176], "the last blocks are not worth another step's wait"
    assert sum(step.get(row.id, 0) for step in steps for row in rows[1:]) < 100


def test_a_cancelled_prompt_leaves_what_it_has_computed() -> None:
    bench = Bench(blocks=16, prefill_tokens=64)
    row = bench.row(200)
    bench.plan()
    bench.plan()
    row.cancelled = True
    bench.plan()
    again = bench.row(200)
    bench.plan()
    assert again.cached == 128


class Machine(RuleBasedStateMachine):
    """Whatever comes in whatever order: the books agree, and all memory comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(tokens=320, loras=2, max_batch=3, max_waiting=6, max_per_user=4, prefill_tokens=16,
                           blocks=5)
        self.rows: list[Row] = []

    @rule(prompt=st.integers(1, 200), most=st.integers(1, 40), user=st.sampled_from(["a", "b", None]),
          adapter=st.sampled_from([None, "x", "y", "z"]))
    def submit(self, prompt: int, most: int, user: str | None, adapter: str | None) -> None:
        try:
            self.rows.append(self.bench.row(prompt, user=user, adapter=adapter, most=most))
        except EngineBusy:
            assert self.bench.scheduler.waiting

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0]), times=st.sampled_from([1, 1, 70]))
    def step(self, seconds: float, times: int) -> None:
        for _ in range(times):
            for row in self.bench.scheduler.running:
                if len(row.known) >= 310:
                    row.cancelled = True
            self.bench.plan(seconds)

    @precondition(lambda self: self.bench.to_read)
    @rule(works=st.booleans())
    def load(self, works: bool) -> None:
        slot = self.bench.to_read.pop(0)
        if slot.state is not SlotState.LOADING:
            return
        if works:
            self.bench.slots.fill(slot)
        else:
            for row in [row for row in self.bench.scheduler.waiting if row.slot is slot]:
                self.bench.finish(row)
            self.bench.slots.fail(slot, AdapterInvalid("broken"))

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), cancel=st.booleans())
    def end(self, data, cancel: bool) -> None:
        row = self.rows.pop(data.draw(st.integers(0, len(self.rows) - 1)))
        if cancel:
            row.cancelled = True
        else:
            self.bench.finish(row)

    @invariant()
    def sound(self) -> None:
        self.bench.scheduler.check_integrity()

    def teardown(self) -> None:
        for row in (*self.bench.scheduler.waiting, *self.bench.scheduler.running):
            self.bench.finish(row)
        self.bench.keep()
        assert not self.bench.budget.owners()
        assert all(slot.users == 0 for slot in self.bench.slots)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, deadline=None)

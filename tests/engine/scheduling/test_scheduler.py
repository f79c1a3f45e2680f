from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.config import EngineSettings
from server.engine.adapters.folders import AdapterFolder
from server.engine.adapters.slots import SlotState, SlotTable
from server.engine.cache.kv import KVArena, KVShape
from server.engine.cache.memory import ArenaMemory, KVMemory
from server.engine.cache.pages import PAGE_SIZE, KVPages, PagedMemory
from server.engine.cache.prefix import BLOCK_SIZE
from server.engine.sampling.detokenize import TextStream
from server.engine.sampling.sampler import Sampler
from server.engine.scheduling.row import Row, RowState
from server.engine.scheduling.scheduler import Scheduler
from server.errors import AdapterInvalid, EngineBusy
from server.types import Queued, SamplingParams
from tests.tiers import cases

SHAPE = KVShape(1, 1, 1, 1, torch.float64, torch.device("cpu"))


class Harness:
    """A scheduler with a clock, rows whose events are kept, and a model thread's bookkeeping: the key of each token
    that is computed tells which one it was, and by which load of an adapter."""

    def __init__(
        self,
        *,
        tokens: int = 64_000,
        loras: int = 2,
        chunked: bool = True,
        blocks: int = 0,
        paged: bool = False,
        **changes,
    ) -> None:
        self.now = 100.0
        settings = EngineSettings(**changes)
        self.slots = SlotTable(loras, 1000)
        self.to_read: list = []
        self.kv: KVArena | KVPages = KVPages(SHAPE) if paged else KVArena(SHAPE)
        self.memory = self._memory(settings.max_batch, tokens, blocks)
        self.scheduler = Scheduler(settings, self.memory, self.slots, self.to_read.append, chunked=chunked)
        self.events: dict[int, list] = {}
        self.count = 0

    def _memory(self, rows: int, tokens: int, blocks: int) -> KVMemory:
        lock, size = threading.Condition(), SHAPE.token_bytes
        if isinstance(self.kv, KVPages):
            self.kv.allocate(tokens // PAGE_SIZE + 1, tokens // PAGE_SIZE)
            return PagedMemory(self.kv, rows, lock)
        return ArenaMemory.of(
            self.kv,
            kv_bytes=tokens * size,
            prefix_bytes=blocks * BLOCK_SIZE * size,
            bytes_per_token=size,
            max_rows=rows,
            release_slot=lambda slot: None,
            lock=lock,
        )

    def row(
        self, prompt: int | list[int] = 10, *, user: str | None = None, adapter: str | None = None, most: int = 5
    ) -> Row:
        self.count += 1
        self.now += 0.001
        folder = AdapterFolder(adapter, "1", Path(adapter), ()) if adapter else None
        events = self.events.setdefault(self.count, [])
        row = Row(
            id=self.count,
            prompt=tuple(range(prompt)) if isinstance(prompt, int) else tuple(prompt),
            max_tokens=most,
            user=user,
            folder=folder,
            adapter_bytes=1,
            sampler=Sampler(SamplingParams(), ()),
            text=TextStream(lambda ids: ""),
            emit=events.append,
            submitted_at=self.now,
        )
        self.scheduler.submit(row)
        return row

    def plan(self, seconds: float = 0.0) -> dict[int, int]:
        """Plans and carries out a step: {row id: how many tokens}."""
        self.now += seconds
        self.scheduler.remove_cancelled(self.now)
        self.settle()
        plan = self.scheduler.plan(self.now)
        self.settle()
        self.memory.prepare()
        for chunk in plan.chunks:
            row, whole = chunk.row, len(chunk.tokens) == chunk.row.pending
            assert self.held(row) == tagged(row.load_id, row.tokens[: row.computed]), "another row's tokens are there"
            self.compute(row, chunk.tokens)
        for chunk in plan.chunks:
            row, whole = chunk.row, len(chunk.tokens) == chunk.row.pending
            row.computed += len(chunk.tokens)
            row.verified = row.computed
            self.memory.publish(row.id, row.load_id, row.tokens[: row.computed])
            if whole:
                row.tokens.append(1000 + row.id)
        self.scheduler.check_integrity()
        return {chunk.row.id: len(chunk.tokens) for chunk in plan.chunks}

    def held(self, row: Row) -> list[float]:
        where = row.reservation
        keys = (
            self.kv.keys(0)[where.pages].flatten() if isinstance(self.kv, KVPages) else self.kv.keys[0][where.kv_slot]
        )
        return keys.flatten()[: row.computed].tolist()

    def compute(self, row: Row, tokens) -> None:
        at = torch.arange(row.computed, row.computed + len(tokens))
        keys = torch.tensor(tagged(row.load_id, tokens), dtype=SHAPE.dtype).view(-1, 1, 1)
        if isinstance(self.kv, KVPages):
            pages = torch.tensor(row.reservation.pages)
            self.kv.write(0, pages[at // PAGE_SIZE] * PAGE_SIZE + at % PAGE_SIZE, keys, keys)
        else:
            self.kv.write(0, torch.full_like(at, row.reservation.kv_slot), at, keys, keys)

    def settle(self) -> None:
        self.memory.settle()
        for slot in self.slots.dropped:
            self.memory.drop(slot.id)
        self.slots.dropped = []

    def load_adapters(self) -> None:
        while self.to_read:
            self.slots.mark_loaded(self.to_read.pop())

    def finish(self, row: Row) -> None:
        self.scheduler.finish(row, self.now)


def tagged(load_id: int, tokens) -> list[float]:
    return [load_id * 1e6 + token for token in tokens]


def test_a_long_prompt_comes_in_chunks_while_others_write() -> None:
    harness = Harness(prefill_tokens=16)
    decoding_row = harness.row(4)
    harness.plan()
    long = harness.row(40)
    assert [harness.plan() for _ in range(3)] == [{1: 1, 2: 16}, {1: 1, 2: 16}, {1: 1, 2: 8}]
    assert harness.plan() == {decoding_row.id: 1, long.id: 1}


@pytest.mark.parametrize(
    ("decoding", "late", "tokens"),
    [
        (0, [200], 64),
        (1, [200], 8),
        (6, [30, 40], 64),
        (7, [30, 40], 8),
        (7, [30, 34], 64),
        (7, [60], 8),
        (3, [30, 400], 8),
    ],
)
def test_prompts_come_slowly_beside_rows_that_write_unless_many_short_ones_wait(
    decoding: int, late: list[int], tokens: int
) -> None:
    harness = Harness(prefill_tokens=64)
    for _ in range(decoding):
        harness.row(3)
    harness.plan()
    waiting = [harness.row(length).id for length in late]
    asked: list[int] = []
    chunks = harness.scheduler.plan(harness.now, prefill_budget=lambda rows: asked.append(rows) or 8).chunks  # type: ignore[func-returns-value]
    assert asked == [decoding] * (tokens == 8)
    assert sum(len(chunk.tokens) for chunk in chunks if chunk.row.id in waiting) == tokens


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    harness = Harness(prefill_tokens=32)
    harness.row(1000)
    harness.plan()
    harness.row(12)
    assert harness.plan() == {1: 20, 2: 12}


def test_the_oldest_prompt_always_moves() -> None:
    harness = Harness(prefill_tokens=32)
    harness.row(100)
    for _ in range(6):
        harness.row(16)
    while harness.scheduler.running == [] or harness.scheduler.running[0].pending > 1:
        assert harness.plan()[1] >= 4


def test_prompts_of_one_adapter_are_computed_together() -> None:
    harness = Harness(loras=3, prefill_tokens=80)
    for adapter in ("one", "two", "three", "two", "one"):
        harness.row(20, adapter=adapter)
    harness.row(38, adapter="one")
    harness.plan()
    harness.load_adapters()
    assert harness.plan() == {1: 20, 5: 20, 2: 20, 4: 20}, "shorter ones of another adapter before a longer one"
    assert harness.plan() == {1: 1, 2: 1, 3: 20, 4: 1, 5: 1, 6: 38}


def test_without_chunks_one_whole_prompt_a_step() -> None:
    harness = Harness(chunked=False, prefill_tokens=16)
    harness.row(40)
    harness.row(50)
    assert harness.plan() == {1: 40}
    assert harness.plan() == {1: 1, 2: 50}


def test_what_does_not_fit_waits_and_gets_its_position() -> None:
    harness = Harness(max_batch=1)
    first = harness.row()
    harness.row()
    harness.row()
    harness.plan()
    harness.plan()
    assert harness.events == {1: [], 2: [Queued(1)], 3: [Queued(2)]}
    harness.finish(first)
    harness.plan()
    assert harness.events[3] == [Queued(2), Queued(1)]


def test_memory_bounds_admission_in_order() -> None:
    harness = Harness(tokens=320)
    big = harness.row(150)
    harness.row(100)
    harness.row(3)
    assert harness.plan() == {1: 150}, "the small one must not pass the one that waits for memory"
    harness.finish(big)
    assert set(harness.plan()) == {2, 3}


def test_users_take_turns() -> None:
    harness = Harness(max_batch=1)
    rows = [harness.row(user="a") for _ in range(3)]
    other = harness.row(user="b")
    harness.plan()
    assert [row.user for row in harness.scheduler.waiting] == ["b", "a", "a"]
    harness.finish(rows[0])
    harness.plan()
    assert other.state is RowState.RUNNING


def test_nobody_waits_for_ever() -> None:
    harness = Harness(max_batch=1, max_waiting=1000)
    running = harness.row(user="x")
    harness.plan()
    second = harness.row(user="x")
    for step in range(100):
        harness.row(user=f"new{step}")
        harness.plan(seconds=1)
        harness.finish(running)
        running = harness.scheduler.running[0] if harness.scheduler.running else next(iter(harness.scheduler.waiting))
        harness.plan()
        running = harness.scheduler.running[0]
        if running is second:
            return
    pytest.fail("the second row of one user starved behind newcomers")


def test_bounds_are_refusals_with_reasons() -> None:
    harness = Harness(max_batch=1, max_waiting=1, max_per_user=2)
    harness.row(user="a")
    harness.row(user="a")
    with pytest.raises(EngineBusy, match="max_per_user"):
        harness.row(user="a")
    harness.plan()
    with pytest.raises(EngineBusy, match="max_waiting"):
        harness.row(user="b")
    assert len(harness.scheduler.waiting) == 1


def test_no_waiting_room_still_admits_to_a_free_batch() -> None:
    harness = Harness(max_batch=2, max_waiting=0)
    harness.row()
    harness.row()
    with pytest.raises(EngineBusy):
        harness.row()


def test_a_cancelled_row_is_gone_before_the_step() -> None:
    harness = Harness()
    one, two = harness.row(), harness.row()
    harness.plan()
    one.cancelled = True
    assert harness.plan() == {two.id: 1}
    assert harness.memory.owners() == {two.id}
    assert one.state is RowState.FINISHED


def test_rows_of_one_adapter_are_neighbours_behind_those_of_the_base() -> None:
    harness = Harness()
    order = ["a", None, "b", "a", None, "b"]
    rows = [harness.row(adapter=name) for name in order]
    harness.plan()
    harness.load_adapters()
    harness.plan()
    chunks = harness.scheduler.plan(harness.now).chunks
    slots = [chunk.row.slot.stack_index + 1 if chunk.row.slot else 0 for chunk in chunks]
    assert len(chunks) == len(rows)
    assert slots == sorted(slots)
    assert slots[:2] == [0, 0]


def test_an_adapter_is_read_once_and_its_rows_wait_for_it() -> None:
    harness = Harness()
    harness.row(adapter="a")
    harness.row(adapter="a")
    harness.row()
    assert set(harness.plan()) == {3}
    assert len(harness.to_read) == 1
    harness.load_adapters()
    assert set(harness.plan()) == {1, 2, 3}


def test_more_adapters_than_slots_wait_until_one_is_free() -> None:
    harness = Harness(loras=1)
    a = harness.row(adapter="a")
    b = harness.row(adapter="b")
    harness.plan()
    harness.load_adapters()
    assert set(harness.plan()) == {1}
    assert not harness.to_read
    harness.finish(a)
    harness.plan()
    harness.load_adapters()
    harness.plan()
    assert b.state is RowState.RUNNING


def test_a_rare_adapter_does_not_starve_behind_a_busy_one() -> None:
    harness = Harness(loras=1, max_waiting=100)
    busy = [harness.row(adapter="busy")]
    harness.plan()
    harness.load_adapters()
    rare = harness.row(adapter="rare")
    for _ in range(20):
        busy.append(harness.row(adapter="busy"))
        base = harness.row()
        harness.plan(seconds=1)
        harness.load_adapters()
        assert base.state is RowState.RUNNING, "rows of the base model are not held up"
        harness.finish(base)
        harness.finish(next(row for row in busy if row.state is not RowState.FINISHED))
        if rare.state is RowState.RUNNING:
            return
    pytest.fail("the rare adapter's row never ran")


# ── rows that outgrow memory, and prompts that begin alike ───────────────────────────────────────


def test_the_last_row_is_preempted_when_rows_outgrow_memory_and_loses_nothing() -> None:
    harness = Harness(tokens=256, blocks=16)
    first, second = harness.row(list(range(60))), harness.row(list(range(500, 560)))
    for _ in range(60):
        harness.plan()
    assert harness.memory.owners() == {first.id, second.id}
    while second.state is RowState.RUNNING:
        harness.plan()
        assert len(first.tokens) < 300
    assert harness.scheduler.preempted == 1
    before = list(second.tokens)
    harness.plan()
    assert harness.events[second.id] == [Queued(1)]
    harness.finish(first)
    steps = harness.plan()
    assert second.tokens[: len(before)] == before
    assert steps == {second.id: len(before) - len(before) // BLOCK_SIZE * BLOCK_SIZE}, "the rest is in the prefix store"


def test_without_a_store_it_computes_anew() -> None:
    harness = Harness(tokens=256)
    first, second = harness.row(100), harness.row(100)
    while second.state is RowState.RUNNING or not second.computed:
        harness.plan()
        if first.state is RowState.RUNNING and harness.scheduler.preempted:
            break
        assert len(first.tokens) < 300
    length = len(second.tokens)
    harness.finish(first)
    harness.plan()
    assert second.computed == length


def test_a_prompt_that_begins_like_an_earlier_one_starts_behind_it() -> None:
    harness = Harness(blocks=16)
    first = harness.row(100)
    harness.plan()
    harness.finish(first)
    again = harness.row(100)
    assert harness.plan() == {again.id: 4}
    assert again.cached == 96


def test_the_last_token_is_always_computed() -> None:
    harness = Harness(blocks=16)
    first = harness.row(2 * BLOCK_SIZE)
    harness.plan()
    harness.finish(first)
    again = harness.row(2 * BLOCK_SIZE)
    assert harness.plan() == {again.id: BLOCK_SIZE}


def test_another_adapter_shares_nothing() -> None:
    harness = Harness(blocks=16)
    base = harness.row(100)
    harness.plan()
    harness.finish(base)
    adapted = harness.row(100, adapter="a")
    harness.plan()
    harness.load_adapters()
    assert harness.plan() == {adapted.id: 100}


def test_equal_prompts_at_once_are_computed_once() -> None:
    harness = Harness(blocks=16, prefill_tokens=64)
    rows = [harness.row(200) for _ in range(3)]
    short = harness.row([7, 8, 9])
    assert harness.plan() == {rows[0].id: 61, short.id: 3}
    steps = [harness.plan() for _ in range(6)]
    assert all(row.pending == 1 for row in rows)
    assert [row.cached for row in rows] == [0, 176, 176], "the last blocks are not worth another step's wait"
    assert sum(step.get(row.id, 0) for step in steps for row in rows[1:]) < 100


def test_a_cancelled_prompt_leaves_what_it_has_computed() -> None:
    harness = Harness(blocks=16, prefill_tokens=64)
    row = harness.row(200)
    harness.plan()
    harness.plan()
    row.cancelled = True
    harness.plan()
    again = harness.row(200)
    harness.plan()
    assert again.cached == 128


class Machine(RuleBasedStateMachine):
    """Whatever comes in whatever order: the bookkeeping agrees, and all memory comes back."""

    memory: ClassVar[dict] = {"tokens": 320, "blocks": 5}
    longest = 310

    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness(loras=2, max_batch=3, max_waiting=6, max_per_user=4, prefill_tokens=16, **self.memory)
        self.rows: list[Row] = []

    @rule(
        prompt=st.integers(1, 200),
        most=st.integers(1, 40),
        user=st.sampled_from(["a", "b", None]),
        adapter=st.sampled_from([None, "x", "y", "z"]),
    )
    def submit(self, prompt: int, most: int, user: str | None, adapter: str | None) -> None:
        try:
            self.rows.append(self.harness.row(prompt, user=user, adapter=adapter, most=most))
        except EngineBusy:
            assert self.harness.scheduler.waiting

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0]), times=st.sampled_from([1, 1, 70]))
    def step(self, seconds: float, times: int) -> None:
        for _ in range(times):
            for row in self.harness.scheduler.running:
                if len(row.tokens) >= self.longest:
                    row.cancelled = True
            self.harness.plan(seconds)

    @precondition(lambda self: self.harness.to_read)
    @rule(works=st.booleans())
    def load(self, works: bool) -> None:
        slot = self.harness.to_read.pop(0)
        if slot.state is not SlotState.LOADING:
            return
        if works:
            self.harness.slots.mark_loaded(slot)
        else:
            for row in [row for row in self.harness.scheduler.waiting if row.slot is slot]:
                self.harness.finish(row)
            self.harness.slots.fail(slot, AdapterInvalid("broken"))

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), cancel=st.booleans())
    def end(self, data, cancel: bool) -> None:
        row = self.rows.pop(data.draw(st.integers(0, len(self.rows) - 1)))
        if cancel:
            row.cancelled = True
        else:
            self.harness.finish(row)

    @invariant()
    def sound(self) -> None:
        self.harness.scheduler.check_integrity()

    def teardown(self) -> None:
        for row in (*self.harness.scheduler.waiting, *self.harness.scheduler.running):
            self.harness.finish(row)
        self.harness.settle()
        assert not self.harness.memory.owners()
        assert all(slot.users == 0 for slot in self.harness.slots)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=cases(60, 1_200), deadline=None)


class PagedMachine(Machine):
    """With prompts that share their beginnings, whole pages and parts of them."""

    memory: ClassVar[dict] = {"tokens": 4 * PAGE_SIZE, "paged": True}
    longest = 4 * PAGE_SIZE - 10

    @rule(shared=st.integers(0, 700), own=st.integers(1, 200), adapter=st.sampled_from([None, "x"]))
    def submit_alike(self, shared: int, own: int, adapter: str | None) -> None:
        prompt = [*range(shared), *range(5000 + own, 5000 + 2 * own)]
        try:
            self.rows.append(self.harness.row(prompt, adapter=adapter, most=40))
        except EngineBusy:
            assert self.harness.scheduler.waiting

    @rule()
    def clear(self) -> None:
        if not self.harness.scheduler.running:
            self.harness.memory.clear()

    def teardown(self) -> None:
        super().teardown()
        self.harness.memory.clear()
        assert self.harness.memory.use().rows == self.harness.memory.use().prefixes == 0


TestPagedMachine = PagedMachine.TestCase
TestPagedMachine.settings = settings(max_examples=cases(60, 1_200), deadline=None)

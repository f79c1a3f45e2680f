from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.engine.adapters.folders import AdapterFolder
from server.engine.adapters.slots import SlotState, SlotTable
from server.errors import AdapterInvalid
from tests.tiers import cases


def folder(name: str, stamp: int = 0) -> AdapterFolder:
    return AdapterFolder(name, "1", Path(name), (("f", 1, stamp, 1),))


def table_of(slots: int, most: int = 1000) -> SlotTable:
    return SlotTable(slots, most)


def loaded(table: SlotTable, name: str, now: float):
    slot = table.reserve(folder(name), 1, now)
    assert slot is not None
    if slot.state is SlotState.LOADING:
        table.mark_loaded(slot)
    return slot


def test_the_least_recently_used_leaves() -> None:
    table = table_of(2)
    loaded(table, "a", 1)
    b = loaded(table, "b", 2)
    loaded(table, "a", 3)
    loaded(table, "c", 4)
    assert b.state is SlotState.GONE
    assert table.dropped == [b], "its weights are still to be cleared away"
    assert {slot.folder.name for slot in table} == {"a", "c"}


def test_one_in_use_never_leaves() -> None:
    table = table_of(2)
    a, b = loaded(table, "a", 1), loaded(table, "b", 2)
    table.acquire(a, 3)
    table.acquire(b, 4)
    assert table.reserve(folder("c"), 1, 5) is None
    with pytest.raises(ValueError, match="in use"):
        table.drop(a)
    table.release(b, 6)
    assert table.reserve(folder("c"), 1, 7) is not None
    assert a.state is SlotState.LOADED


def test_one_that_loads_never_leaves() -> None:
    table = table_of(1)
    table.reserve(folder("a"), 1, 1)
    assert table.reserve(folder("b"), 1, 2) is None


def test_each_load_has_a_fresh_id_even_of_the_same_name() -> None:
    table = table_of(1)
    first = loaded(table, "a", 1)
    table.drop(first)
    again = loaded(table, "a", 2)
    changed = table.reserve(folder("a", stamp=9), 1, 3)
    assert changed is not None
    assert len({first.id, again.id, changed.id}) == 3


def test_a_failed_load_frees_the_slot_and_its_holders() -> None:
    table = table_of(1)
    slot = table.reserve(folder("a"), 1, 1)
    assert slot is not None
    table.acquire(slot, 1)
    table.fail(slot, AdapterInvalid("broken"))
    table.release(slot, 2)
    assert len(table) == 0
    table.check_integrity()


@pytest.mark.parametrize("works", [True, False])
def test_a_cancelled_waiter_of_a_load_is_left_alone(works: bool) -> None:
    table = table_of(1)
    slot = table.reserve(folder("a"), 1, 1)
    gone, there = Future(), Future()
    slot.waiters = [gone, there]
    gone.cancel()
    if works:
        table.mark_loaded(slot)
        assert there.result(0) is None
    else:
        table.fail(slot, AdapterInvalid("broken"))
        assert isinstance(there.exception(0), AdapterInvalid)
    assert gone.cancelled()


def test_bytes_are_bounded_and_the_unused_leave_for_them() -> None:
    table = table_of(4, 10)
    a = table.reserve(folder("a"), 6, 1)
    b = table.reserve(folder("b"), 4, 2)
    table.mark_loaded(a)
    assert table.reserve(folder("c"), 5, 3) is not None
    assert (table.bytes, a.state, b.state) == (9, SlotState.GONE, SlotState.LOADING)
    assert table.reserve(folder("d"), 2, 4) is None, "both are being loaded"
    with pytest.raises(AdapterInvalid, match=r"takes 11 bytes.*engine\.adapter_bytes"):
        table.reserve(folder("e"), 11, 5)


def test_stack_indices_are_the_lowest_free_ones() -> None:
    table = table_of(3)
    a, b, c = (loaded(table, name, now) for now, name in enumerate("abc"))
    assert [a.stack_index, b.stack_index, c.stack_index] == [0, 1, 2]
    table.drop(b)
    assert loaded(table, "d", 9).stack_index == 1


def test_wrong_moves_are_refused() -> None:
    table = table_of(1)
    slot = loaded(table, "a", 1)
    with pytest.raises(ValueError, match="expected"):
        table.mark_loaded(slot)
    with pytest.raises(ValueError, match="more often"):
        table.release(slot, 1)


class SlotMachine(RuleBasedStateMachine):
    """Any order of loads, uses and drops keeps the table sound, and never frees what is used."""

    def __init__(self) -> None:
        super().__init__()
        self.table = table_of(3, 4)
        self.held: list = []
        self.now = 0.0

    @rule(name=st.sampled_from("abcdef"), stamp=st.integers(0, 1))
    def reserve(self, name: str, stamp: int) -> None:
        self.now += 1
        size = 1 + "abcdef".index(name) // 3 + stamp
        slot = self.table.reserve(folder(name, stamp), size, self.now)
        if slot is None:
            assert all(other.users or other.state is SlotState.LOADING for other in self.table)
        elif len(self.held) < 8:
            self.table.acquire(slot, self.now)
            self.held.append(slot)

    @precondition(lambda self: any(slot.state is SlotState.LOADING for slot in self.table))
    @rule(works=st.booleans())
    def finish_load(self, works: bool) -> None:
        slot = next(slot for slot in self.table if slot.state is SlotState.LOADING)
        if works:
            self.table.mark_loaded(slot)
        else:
            self.table.fail(slot, AdapterInvalid("broken"))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data) -> None:
        self.now += 1
        self.table.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))), self.now)

    @invariant()
    def sound(self) -> None:
        self.table.check_integrity()
        for slot in self.held:
            assert slot.state is SlotState.GONE or slot in list(self.table)
            assert slot.state is not SlotState.GONE or slot.users == 0


TestSlotMachine = SlotMachine.TestCase
TestSlotMachine.settings = settings(max_examples=cases(60, 1_200), deadline=None)

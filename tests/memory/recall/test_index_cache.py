"""The index per user: that it follows the table whoever writes, and gives up what has not been asked for long."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.config import MemorySettings
from server.database import Database
from server.memory import MemoryStore, UserMemory
from server.memory.recall import index_cache
from server.types import Memory, UserId
from tests.fakes import WordEmbedder
from tests.memory.conftest import MINA
from tests.tiers import cases

WORDS = ("gate", "dog", "printer", "cello", "회의실", "주차장")


def found(memory: UserMemory, question: str) -> list[tuple[str, str]]:
    return [(one.text, one.why) for one in memory.recall(question)]


def test_a_memory_says_why_it_came(mina: UserMemory) -> None:
    mina.learn("My name is Mina. I live in Busan.", conversation_id=None, message_id=None)
    mina.add("The cello is in the cellar")
    mina.add("주차장은 지하 2층이에요")
    assert found(mina, "Where do I live?") == [("Name is Mina.", "profile"), ("Lives in Busan.", "asked")]
    assert found(mina, "Where is my cello, in the cellar?")[1:] == [("The cello is in the cellar", "words")]
    assert found(mina, "주차장이 몇 층이야?")[1:] == [("주차장은 지하 2층이에요", "words")]


def test_what_another_process_writes_is_found(database: Database) -> None:
    one, two = (MemoryStore(database, WordEmbedder(), MemorySettings()).of(MINA) for _ in range(2))
    saved = one.add("The cello is red")
    assert found(two, "my cello") == found(one, "my cello") == [("The cello is red", "words")]
    one.edit(saved.id, "The piano is red")
    assert found(two, "my cello") == []
    assert found(two, "my piano") == [("The piano is red", "words")]
    one.delete(saved.id)
    assert found(two, "my piano") == []
    one.erase()
    one.add("The harp is red")
    assert found(two, "my harp") == [("The harp is red", "words")]


@pytest.mark.parametrize("count", [1, 99, 130])
def test_what_was_deleted_elsewhere_is_gone_from_the_index(database: Database, count: int) -> None:
    one, two = (MemoryStore(database, WordEmbedder(), MemorySettings(recall=200)).of(MINA) for _ in range(2))
    held = [one.add(f"The cello of number{number} is red") for number in range(count + 1)]
    assert len(found(two, "my cello")) == count + 1
    for memory in held[1:]:
        one.delete(memory.id)
    assert found(two, "my cello") == [("The cello of number0 is red", "words")]
    assert len(two._indexes._index_of(MINA)._row_of) == 1


def test_many_users_share_the_cache_and_all_find_their_own(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "MAX_CACHED_MEMORIES", 20)
    store = MemoryStore(database, WordEmbedder(), MemorySettings())
    for turn in range(2):
        for number in range(10):
            memory = store.of(UserId(f"user-{number}"))
            for word in ("gate", "dog", "cello", "harp"):
                memory.add(f"The {word} is number{number} of turn{turn}")
            assert {f"number{number}" in text for text, _ in found(memory, "my cello")} == {True}
            assert sum(len(index) for index in store._indexes._indexes.values()) <= 20 + len(memory.list())


STEPS = st.tuples(st.sampled_from(["add", "edit", "delete", "forget", "erase"]), st.sampled_from(WORDS))


@given(st.lists(STEPS, max_size=25))
@settings(max_examples=cases(40, 1_000))
def test_an_index_that_follows_finds_what_a_new_one_finds(steps: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "tailor.db")
        kept = MemoryStore(database, WordEmbedder(), MemorySettings(recall=50)).of(MINA)
        for number, (step, word) in enumerate(steps):
            held: tuple[Memory, ...] = kept.list()
            if step == "add":
                kept.add(f"The {word} has number{number}")
            elif step == "forget":
                kept.forget(word)
            elif step == "erase" and number % 5 == 0:
                kept.erase()
            elif held and step == "edit":
                kept.edit(held[number % len(held)].id, f"The {word} got number{number}")
            elif held and step == "delete":
                kept.delete(held[number % len(held)].id)
            new = MemoryStore(database, WordEmbedder(), MemorySettings(recall=50)).of(MINA)
            for asked in WORDS:
                assert {one.id for one in kept.recall(f"my {asked}")} == {one.id for one in new.recall(f"my {asked}")}
        database.close()

"""No order of calls by several users lets one see, change or hide another's memories."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from server.config import MemorySettings
from server.database import Database
from server.errors import Conflict, NotFound
from server.memory import MemoryStore, UserMemory
from server.types import Memory, UserId
from tests.fakes import WordEmbedder
from tests.tiers import cases

USERS = [UserId(name) for name in ("mina", "jun", "mina ", "' OR 1=1 --")]
WORDS = ("gate", "dog", "printer", "회의", "주차장")


def statement(word: str, kind: int, mark: str) -> str:
    """A turn that teaches one memory carrying the user's own mark."""
    return (
        f"Remember that the {word} is {mark}.",
        f"My name is {mark}.",
        f"I like {word} {mark}.",
        f"Always mention {mark} {word}.",
        f"기억해 줘: {word} 암구어 {mark}",
        f"I live in {mark}.",
    )[kind]


def mark_of(user: UserId) -> str:
    return f"Zq{USERS.index(user)}zq"


class Users(RuleBasedStateMachine):
    """The model: for each user, the ids that were ever theirs. Every text carries its owner's mark."""

    memories: Bundle[tuple[UserId, int]] = Bundle("memories")
    user = st.sampled_from(USERS)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(Path(self.folder.name) / "tailor.db")
        self.open()
        self.deleted: dict[UserId, set[int]] = {user: set() for user in USERS}

    def open(self) -> None:
        self.store = MemoryStore(self.database, WordEmbedder(), MemorySettings())

    def of(self, user: UserId) -> UserMemory:
        return self.store.of(user)

    def check(self, user: UserId, found: tuple[Memory, ...]) -> None:
        for memory in found:
            assert mark_of(user) in memory.text, "another user's text"
            assert memory.id not in self.deleted[user], "a deleted memory came back"

    @rule(target=memories, user=user, word=st.sampled_from(WORDS), kind=st.integers(0, 5))
    def learn(self, user: UserId, word: str, kind: int) -> object:
        saved = self.of(user).learn(statement(word, kind, mark_of(user)), conversation_id="c", message_id="m")
        self.check(user, saved)
        return multiple(*((user, memory.id) for memory in saved))

    @rule(target=memories, user=user, word=st.sampled_from(WORDS))
    def add(self, user: UserId, word: str) -> tuple[UserId, int]:
        added = self.of(user).add(f"{word} {mark_of(user)}")
        self.check(user, (added,))
        return user, added.id

    @rule(owned=memories, user=user, word=st.sampled_from(WORDS))
    def edit(self, owned: tuple[UserId, int], user: UserId, word: str) -> None:
        owner, memory_id = owned
        live = memory_id in {memory.id for memory in self.of(owner).list()}
        if user != owner or memory_id in self.deleted[owner]:
            with pytest.raises(NotFound):
                self.of(user).edit(memory_id, f"stolen by {mark_of(user)}")
        elif not live:
            with pytest.raises(Conflict):
                self.of(user).edit(memory_id, f"stolen by {mark_of(user)}")
        else:
            self.check(user, (self.of(user).edit(memory_id, f"edited {word} {mark_of(user)}"),))

    @rule(owned=memories, user=user)
    def delete(self, owned: tuple[UserId, int], user: UserId) -> None:
        owner, memory_id = owned
        before = self.of(owner).list(past=True)
        if user != owner or memory_id not in {memory.id for memory in before}:
            with pytest.raises(NotFound):
                self.of(user).delete(memory_id)
            assert self.of(owner).list(past=True) == before
        else:
            self.of(user).delete(memory_id)
            self.deleted[user].add(memory_id)

    @rule(owned=memories, user=user)
    def get(self, owned: tuple[UserId, int], user: UserId) -> None:
        owner, memory_id = owned
        if user != owner or memory_id not in {memory.id for memory in self.of(owner).list(past=True)}:
            for call in (self.of(user).get, self.of(user).history):
                with pytest.raises(NotFound):
                    call(memory_id)
        else:
            self.check(user, (self.of(user).get(memory_id),))
            self.check(user, self.of(user).history(memory_id))

    @rule(user=user, word=st.sampled_from(WORDS), other=user)
    def forget(self, user: UserId, word: str, other: UserId) -> None:
        before = {who: self.of(who).list(past=True) for who in USERS if who != user}
        gone = self.of(user).forget(f"I like {word} {mark_of(other)}")
        self.check(user, gone)
        self.deleted[user] |= {memory.id for memory in gone}
        assert {who: self.of(who).list(past=True) for who in before} == before

    @rule(user=user)
    def export(self, user: UserId) -> None:
        exported = json.dumps(self.of(user).export(), ensure_ascii=False)
        assert not [other for other in USERS if other != user and mark_of(other) in exported]
        assert len(json.loads(exported)["memories"]) == len(self.of(user).list(past=True))

    @rule(user=user)
    def erase(self, user: UserId) -> None:
        before = {who: self.of(who).list(past=True) for who in USERS if who != user}
        self.deleted[user] |= {memory.id for memory in self.of(user).list(past=True)}
        self.of(user).erase()
        assert self.of(user).list(past=True) == ()
        assert {who: self.of(who).list(past=True) for who in before} == before

    @rule(user=user, on=st.booleans())
    def pause(self, user: UserId, on: bool) -> None:
        others = {who: self.of(who).paused for who in USERS if who != user}
        self.of(user).pause(on)
        assert {who: self.of(who).paused for who in others} == others
        self.of(user).pause(False)

    @rule(user=user, owned=memories)
    def used(self, user: UserId, owned: tuple[UserId, int]) -> None:
        before = {who: self.of(who).list(past=True) for who in USERS if who != user}
        self.of(user).mark_used([owned[1]])
        assert {who: self.of(who).list(past=True) for who in before} == before

    @rule(user=user, words=st.lists(st.sampled_from(WORDS), min_size=1), excluded=st.sets(st.integers(1, 40)))
    def recall(self, user: UserId, words: list[str], excluded: set[int]) -> None:
        marks = " ".join(mark_of(other) for other in USERS)
        found = self.of(user).recall(f"{' '.join(words)} {marks}", exclude=excluded)
        self.check(user, found)
        assert len(found) <= MemorySettings().recall
        assert not {memory.id for memory in found} & excluded

    @rule()
    def restart(self) -> None:
        self.database.close()
        self.open()

    @invariant()
    def lists_hold_only_their_own(self) -> None:
        for user in USERS:
            self.check(user, self.of(user).list())
            name = self.of(user).name()
            assert name in ("", mark_of(user)) or mark_of(user) in name

    @invariant()
    def nobody_is_replaced_by_another_users_memory(self) -> None:
        crossed = self.database.connection().execute(
            "SELECT count(*) FROM memories a JOIN memories b ON a.superseded_by = b.id WHERE a.user_id <> b.user_id"
        )
        assert crossed.fetchone()[0] == 0

    @invariant()
    def each_question_has_one_answer(self) -> None:
        twice = self.database.connection().execute(
            "SELECT user_id, slot FROM memories WHERE superseded_by IS NULL AND slot IS NOT NULL "
            "AND coalesce(valid_to, ended_at) IS NULL GROUP BY user_id, slot, subject HAVING count(*) > 1"
        )
        assert twice.fetchall() == []

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()


Users.TestCase.settings = settings(
    max_examples=cases(40, 1_000), stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestUsers = Users.TestCase


def test_the_same_words_of_two_users_are_two_memories(mina: UserMemory, jun: UserMemory) -> None:
    turn = "My name is Alex. Remember that the gate is blue."
    first = mina.learn(turn, conversation_id="c", message_id="m")
    second = jun.learn(turn, conversation_id="c", message_id="m")
    assert {memory.id for memory in first}.isdisjoint(memory.id for memory in second)
    mina.delete(first[0].id)
    assert (mina.name(), jun.name()) == ("", "Alex")


def test_another_users_id_reads_as_one_that_never_was(mina: UserMemory, jun: UserMemory) -> None:
    held = mina.add("The gate is blue")
    with pytest.raises(NotFound) as theirs:
        jun.get(held.id)
    with pytest.raises(NotFound) as nobodys:
        jun.get(held.id + 1)
    assert str(theirs.value).replace(str(held.id), "N") == str(nobodys.value).replace(str(held.id + 1), "N")

"""Many users save, recall, edit, delete, forget and export in random order: does one ever meet another's memory?

Every text carries its owner's mark, and every user asks with everybody's marks in the question. Ids are tried on
users who do not own them. Two stores over one file take turns, as two processes would.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.knowledge.embedders import Fast
from bench.memory.run import Run
from server.config import MemorySettings
from server.errors import NotFound, TailorError
from server.memory import MemoryStore, UserMemory
from server.types import Memory, UserId

USERS = 25
WORDS = ("gate", "dog", "printer", "sister", "회의", "주차장", "고양이")
_MARK = re.compile(r"Zq\d+zq")


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def crossing(_: object) -> AsyncIterator[Round]:
        yield lambda number: asyncio.to_thread(_measured, run, number)

    return [Figure("crossing", _CROSSING, crossing, rounds=1)]


_CROSSING = (Measure("crossings", "steps of many users that touch another's memory", "", Bound(0, at_most=True)),)


@dataclass
class Walk:
    """The users, what is whose, and how often somebody met what is not theirs."""

    stores: tuple[MemoryStore, ...]
    rng: random.Random
    owner: dict[int, int] = field(default_factory=dict)
    crossings: int = 0
    refused: int = 0  # ids of others that were tried

    def of(self, user: int) -> UserMemory:
        return self.rng.choice(self.stores).of(UserId(f"user-{user}"))

    def saw(self, user: int, memories: tuple[Memory, ...]) -> None:
        for memory in memories:
            self.owner.setdefault(memory.id, user)
            self.crossings += self.owner[memory.id] != user or set(_MARK.findall(memory.text)) != {_mark(user)}

    def try_id(self, user: int, call: Callable[[UserMemory, int], object]) -> None:
        """A random known id: what is not the user's must read as what never was."""
        if not self.owner:
            return
        memory_id = self.rng.choice([*self.owner])
        mine = self.owner[memory_id] == user
        try:
            call(self.of(user), memory_id)
        except NotFound:
            self.refused += not mine
        except TailorError:
            self.crossings += not mine
        else:
            self.crossings += not mine


def _mark(user: int) -> str:
    return f"Zq{user}zq"


def _save(walk: Walk, user: int) -> None:
    word, mark = walk.rng.choice(WORDS), _mark(user)
    statements = (
        f"Remember that the {word} is {mark}.", f"My name is {mark}.", f"I like {word} {mark}.",
        f"I live in {mark}.", f"Always mention {mark} {word}.", f"기억해 줘: {word} 암구어 {mark}",
    )  # fmt: skip
    walk.saw(user, walk.of(user).learn(walk.rng.choice(statements), conversation_id=f"chat-{user}", message_id="m"))


def _recall(walk: Walk, user: int) -> None:
    marks = " ".join(_mark(other) for other in range(USERS))
    word = walk.rng.choice(WORDS)
    question = walk.rng.choice((f"Where is my {word}? {marks}", "Where did I live before?", f"내 {word} 어디 있지?"))
    walk.saw(user, walk.of(user).recall(question))


def _read(walk: Walk, user: int) -> None:
    memory = walk.of(user)
    walk.saw(user, (*memory.list(past=True), *memory.current(), *memory.from_conversation(f"chat-{user}")))
    walk.crossings += not set(_MARK.findall(json.dumps(memory.export()))) <= {_mark(user)}
    walk.crossings += not set(_MARK.findall(memory.name())) <= {_mark(user)}
    walk.try_id(user, lambda own, memory_id: walk.saw(user, own.history(memory_id)))


def _change(walk: Walk, user: int) -> None:
    walk.try_id(user, lambda own, memory_id: own.edit(memory_id, f"{walk.rng.choice(WORDS)} {_mark(user)}"))


def _delete(walk: Walk, user: int) -> None:
    walk.try_id(user, lambda own, memory_id: own.delete(memory_id))


def _forget(walk: Walk, user: int) -> None:
    other = walk.rng.randrange(USERS)
    walk.saw(user, walk.of(user).forget(f"I like {walk.rng.choice(WORDS)} {_mark(other)}"))
    walk.of(user).mark_used([*walk.owner][:5])
    if walk.rng.random() < 0.02:
        walk.of(user).erase()


_STEPS = (_save, _save, _save, _recall, _recall, _read, _change, _delete, _forget)


def _measured(run: Run, number: int) -> Mapping[str, Reading]:
    database, embedder = run.database("crossing"), Fast(run.embedder)
    stores = tuple(MemoryStore(database, embedder, MemorySettings()) for _ in range(2))
    walk = Walk(stores, random.Random(number))
    for _ in range(run.sizes.steps):
        walk.rng.choice(_STEPS)(walk, walk.rng.randrange(USERS))
    note = f"{run.sizes.steps:,} steps of {USERS} users, {walk.refused:,} times another's id was tried"
    return {"crossings": Reading(walk.crossings, note=note)}

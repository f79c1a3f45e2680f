"""Recall at size: one user with thousands of memories among many users, without the time that embedding takes.

Half the questions are the large user's, the others those of users drawn at random, whose index may have been dropped.
Between two questions somebody saves a memory, so that indexes are brought up to date as they are in use. Vectors are
made by a fast embedder of the same size: what is measured is what comes after.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.knowledge.embedders import Fast, Remembering
from bench.knowledge.scale import percentile
from bench.memory.run import Run
from server.config import MemorySettings
from server.database import Database
from server.memory import Finding, MemoryStore, UserMemory, parse_command
from server.types import MemoryKind, UserId

_T = TypeVar("_T")

LARGE, USUAL = UserId("large"), UserId("usual")
FREE_MEMORIES = 10  # memories that the large user has left
SEED = 7
_ENGLISH = """
dog cat bicycle garden printer kitchen router sofa piano guitar camera laptop phone jacket passport ticket wallet lamp
window door balcony cellar office desk meeting report budget invoice contract plan sprint review deadline client team
manager nurse doctor dentist teacher lawyer plumber neighbour landlord cousin uncle aunt nephew wedding birthday holiday
flight train hotel museum concert marathon swim yoga chess novel recipe soup bread coffee tea wine apple
"""
_TOWNS = """
Busan Seoul Daegu Berlin Paris Lyon Oslo Bergen York Leeds Rome Milan Madrid Porto Tokyo Osaka Boston
"""
_NOUNS = """
강아지 고양이 자전거 정원 프린터 부엌 소파 피아노 사진기 여권 지갑 창문 회의 보고서 예산 계약서 결혼식 휴가 기차
"""
_THINGS, _PLACES, _KOREAN = _ENGLISH.split(), _TOWNS.split(), _NOUNS.split()


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def recall(_: object) -> AsyncIterator[Round]:
        embedder = Remembering(Fast(run.embedder))
        database = await asyncio.to_thread(_filled, run, embedder)
        yield lambda number: asyncio.to_thread(_measured, run, database, embedder, number)

    return [Figure("recall", _RECALL, recall)]


_RECALL = (
    Measure("p50", "one user's 10,000 memories among 1,000 users, a recall without the embedding: median", "ms"),
    Measure("p95", "the same: 95th percentile", "ms", Bound(10, at_most=True)),
    Measure("large-p95", "the large user's alone: 95th percentile", "ms", Bound(10, at_most=True)),
    Measure("reply", "a user's 300 memories: all that memory does before an answer, without the embedding: p95",
            "ms", Bound(5, at_most=True)),
    Measure("save", "a memory saved without the embedding: median", "ms"),
    Measure("cold", "the large user's first recall, whose index is read from the table", "ms"),
)  # fmt: skip


def _statements(seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    number = 0
    while True:
        number += 1
        one, two, place = rng.choice(_THINGS), rng.choice(_THINGS), rng.choice(_PLACES)
        if number % 4 == 0:
            yield f"{rng.choice(_KOREAN)} {number}번은 {rng.choice(_KOREAN)} 옆에 있어요"
        else:
            yield f"The {one} number {number} belongs to the {two} in {place}"


def _filled(run: Run, embedder: Remembering) -> Database:
    database = run.database("recall")
    store = MemoryStore(database, embedder, MemorySettings())
    statements = _statements(SEED)
    sizes = {
        LARGE: run.sizes.memories - FREE_MEMORIES,
        USUAL: run.sizes.usual,
        **{_user(at): run.sizes.each for at in range(run.sizes.users - 1)},
    }
    for user, count in sizes.items():
        found = [Finding(MemoryKind.FACT, next(statements), 0, 0) for _ in range(count)]
        store.of(user).keep(found, conversation_id=None, message_id=None)
        store.of(user).learn("My name is Mina. Always cite sources.", conversation_id=None, message_id=None)
    return database


def _measured(run: Run, database: Database, embedder: Remembering, number: int) -> Mapping[str, Reading]:
    """A new store each time: its indexes are empty."""
    rng, statements = random.Random(number), _statements(1000 + number)
    store = MemoryStore(database, embedder, MemorySettings())
    cold = _timed(partial(store.of(LARGE).recall, "Where is my dog?"), embedder)[1]
    recall_times: dict[bool, list[float]] = {True: [], False: []}
    saves, replies = [], []
    for at in range(run.sizes.recalls):
        large = at % 2 == 0
        memory = store.of(LARGE if large else _user(rng.randrange(run.sizes.users - 1)))
        text = f"Round {number}: {next(statements)}"
        saved, ms = _timed(partial(memory.add, text), embedder)
        saves.append(ms)
        question = f"Where is my {rng.choice(_THINGS)} in {rng.choice(_PLACES)}?"
        if rng.random() < 0.5:
            question = f"내 {rng.choice(_KOREAN)} 어디 있지?"
        recall_times[large].append(_timed(partial(memory.recall, question), embedder)[1])
        memory.delete(saved.id)
        replies.append(_timed(partial(_work_before_answer, store.of(USUAL), question), embedder)[1])
    of_large = recall_times[True]
    every = of_large + recall_times[False]
    note = f"{len(every)} questions, half Korean; a memory is saved before each and deleted after it"
    return {
        "p50": Reading(statistics.median(every), note=note),
        "p95": Reading(percentile(every, 0.95), note=note),
        "large-p95": Reading(percentile(of_large, 0.95), note=f"median {statistics.median(of_large):.1f} ms"),
        "reply": Reading(percentile(replies, 0.95), note=f"median {statistics.median(replies):.1f} ms"),
        "save": Reading(statistics.median(saves)),
        "cold": Reading(cold),
    }


def _work_before_answer(memory: UserMemory, question: str) -> None:
    """Is it a command, what belongs beside it, and what is the user called?"""
    parse_command(question)
    memory.recall(question)
    memory.name()


def _timed(call: Callable[[], _T], embedder: Remembering) -> tuple[_T, float]:
    """What it gives, and its milliseconds without those spent in the embedder."""
    embedding, started = embedder.seconds, time.perf_counter()
    given = call()
    return given, 1000 * (time.perf_counter() - started - (embedder.seconds - embedding))


def _user(at: int) -> UserId:
    return UserId(f"user-{at}")

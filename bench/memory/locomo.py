"""Past chats: which turns a question finds (LoCoMo), and how fast among 20,000 turns of one user.

    locomo/locomo10.json         ten long conversations of two people, with questions and the turns that answer them
    locomo/audit_errors.json     questions whose answers or turns an audit found wrong

Each conversation is one user's past: a session is a chat, a turn is fed through `Episodes.add` under its speaker's
name, with the caption of its picture, and the questions go through `Episodes.search`. Questions without an answer
(category 5), those whose answer the audit found wrong and those without a turn are left out. Recall is the share of a
question's turns that are among the first k, averaged over the questions. The weights were chosen by the first, third, …
conversation and not by the others, so those are told on their own, too.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import random
import re
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.figure import Bound, Figure, Measure, Reading, Round, Unavailable
from bench.knowledge.embedders import Fast, Remembering
from bench.knowledge.scale import percentile
from bench.knowledge.sets import sample
from bench.memory.run import Run
from server.config import MemorySettings
from server.database import Database
from server.memory import Episodes
from server.types import UserId

DEPTHS: Final = (5, 10, 50)
CATEGORIES: Final = {1: "several turns", 2: "time", 3: "open", 4: "one turn"}
TURNS: Final = 20_000
CHAT_TURNS: Final = 20
SEARCHES: Final = 500
USER: Final = UserId("mina")
VOCABULARY: Final = 50_000
SYLLABLES: Final = [one + other for one in "bdfk" for other in "aeio"]
_SESSION: Final = re.compile(r"session_(\d+)")
_TURN: Final = re.compile(r"D(\d+):0*(\d+)")


@dataclass(frozen=True)
class LocomoTurn:
    id: str
    chat: str
    speaker: str
    text: str
    at: float


@dataclass(frozen=True)
class LocomoQuestion:
    """`turns` answer the question; `corrected` are those that the audit names instead, where it names any."""

    text: str
    category: int
    turns: frozenset[str]
    corrected: frozenset[str]


@dataclass(frozen=True)
class Conversation:
    user: UserId
    turns: tuple[LocomoTurn, ...]
    questions: tuple[LocomoQuestion, ...]


@dataclass(frozen=True)
class _Large:
    """One user's long past. `added`: seconds a turn took, 95th percentile."""

    database: Database
    embedder: Remembering
    added: float


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def locomo(_: object) -> AsyncIterator[Round]:
        past = conversations(run.data)
        if run.sizes.cases is not None:
            past = past[:1]
        episodes = await asyncio.to_thread(_filled, run, past)
        yield lambda number: asyncio.to_thread(_recall, run, episodes, past)

    @asynccontextmanager
    async def speed(_: object) -> AsyncIterator[Round]:
        large = await asyncio.to_thread(_large, run)
        yield lambda number: asyncio.to_thread(_searched, run, large, number)

    return [Figure("locomo", _LOCOMO, locomo, rounds=1), Figure("past-chats", _SPEED, speed)]


_LOCOMO = (
    Measure("r5", "LoCoMo, turns of the answer among the first 5", "%"),
    Measure("r10", "the same, 10", "%", Bound(72)),
    Measure("r50", "the same, 50", "%", Bound(87)),
    Measure("r10-unseen", "10, conversations the weights were not chosen with", "%", Bound(72)),
    Measure("r50-unseen", "50, the same", "%", Bound(87)),
    Measure("r10-corrected", "10, with the turns that the audit names", "%"),
    *(Measure(f"r10-{number}", f"10, category {number} ({what})", "%") for number, what in CATEGORIES.items()),
    *(Measure(f"r50-{number}", f"50, category {number} ({what})", "%") for number, what in CATEGORIES.items()),
)
_SPEED = (
    Measure("p50", f"search among {TURNS:,} turns of one user, without the question's embedding: p50", "ms"),
    Measure("p95", "the same, p95", "ms", Bound(10, at_most=True)),
    Measure("first", "the first search after a start", "ms"),
    Measure("add", "a turn is added, without its embedding: p95", "ms"),
)


def conversations(data: Path | None) -> list[Conversation]:
    audit = json.loads(_text(data, "audit_errors.json"))
    wrong = {row["question_id"] for row in audit if row["error_type"] != "WRONG_CITATION"}
    cited = {row["question_id"]: _ids(row["correct_evidence"]) for row in audit}
    found = []
    for number, row in enumerate(json.loads(_text(data, "locomo10.json"))):
        questions = []
        for place, asked in enumerate(row["qa"]):
            name, turns = f"locomo_{number}_qa{place}", _ids(asked["evidence"])
            if asked["category"] in CATEGORIES and turns and name not in wrong:
                questions.append(LocomoQuestion(asked["question"], asked["category"], turns, cited.get(name) or turns))
        turns_said = tuple(_turns(row["conversation"]))
        found.append(Conversation(UserId(f"locomo-{number}"), turns_said, tuple(questions)))
    return found


def _turns(conversation: Mapping[str, Any]) -> Iterator[LocomoTurn]:
    """In order. A session's turns share its time."""
    for number in sorted(int(found[1]) for key in conversation if (found := _SESSION.fullmatch(key))):
        at = datetime.datetime.strptime(conversation[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y")
        for turn in conversation[f"session_{number}"]:
            caption = turn.get("blip_caption")
            text = f"{turn['text']} [{caption}]" if caption else turn["text"]
            yield LocomoTurn(turn["dia_id"], f"session-{number}", turn["speaker"], text, at.timestamp())


def _ids(evidence: list[str]) -> frozenset[str]:
    return frozenset(f"D{chat}:{turn}" for one in evidence for chat, turn in _TURN.findall(one))


def _filled(run: Run, past: list[Conversation]) -> Episodes:
    episodes = Episodes(run.database("locomo"), run.embedder, MemorySettings())
    for one in past:
        for turn in one.turns:
            episodes.add(one.user, turn.chat, turn.id, "user", turn.text, turn.at, speaker=turn.speaker)
    return episodes


def _recall(run: Run, episodes: Episodes, past: list[Conversation]) -> Mapping[str, Reading]:
    shares: dict[str, list[float]] = {measure.name: [] for measure in _LOCOMO}
    for number, one in enumerate(past):
        now = max(turn.at for turn in one.turns)
        for asked in sample(one.questions, run.sizes.cases):
            found = episodes.search(one.user, asked.text, now=now, limit=max(DEPTHS))
            ids = [turn.message_id for turn in found]
            for depth in DEPTHS:
                share = len(asked.turns.intersection(ids[:depth])) / len(asked.turns)
                names = [f"r{depth}", f"r{depth}-{asked.category}", *([f"r{depth}-unseen"] if number % 2 else [])]
                for name in names:
                    shares.get(name, []).append(share)
            shares["r10-corrected"].append(len(asked.corrected.intersection(ids[:10])) / len(asked.corrected))
    return {name: _mean(values) for name, values in shares.items()}


def _mean(values: list[float]) -> Reading:
    return Reading(100 * statistics.mean(values) if values else float("nan"), note=f"{len(values)} questions")


def _large(run: Run) -> _Large:
    embedder = Remembering(Fast(run.embedder))
    turns = min(TURNS, 2 * run.sizes.memories)
    database, rng, added = run.database("past"), random.Random(0), []
    episodes = Episodes(database, embedder, MemorySettings())
    for number in range(turns):
        role, waited = ("user", "assistant")[number % 2], embedder.seconds
        chat, text, started = f"chat-{number // CHAT_TURNS}", _words(rng, rng.randint(10, 60)), time.perf_counter()
        episodes.add(USER, chat, f"turn-{number}", role, text, 1.6e9 + 3600 * number)
        added.append(time.perf_counter() - started - (embedder.seconds - waited))
    return _Large(database, embedder, percentile(added, 0.95))


def _words(rng: random.Random, count: int) -> str:
    """As in a language, the nth word is drawn n times less often than the first."""
    return " ".join(_word(int(VOCABULARY ** rng.random())) for _ in range(count))


def _word(rank: int) -> str:
    return "".join(SYLLABLES[rank // len(SYLLABLES) ** at % len(SYLLABLES)] for at in range(4))


def _searched(run: Run, large: _Large, number: int) -> Mapping[str, Reading]:
    episodes = Episodes(large.database, large.embedder, MemorySettings())
    rng, taken = random.Random(number + 1), []
    for _ in range(min(SEARCHES, run.sizes.recalls) + 1):
        question = _words(rng, 8)
        large.embedder.embed([question])  # so that the search finds it done
        started = time.perf_counter()
        episodes.search(USER, question, now=2e9)
        taken.append(1000 * (time.perf_counter() - started))
    first, *rest = taken
    return {
        "p50": Reading(percentile(rest, 0.5)),
        "p95": Reading(percentile(rest, 0.95)),
        "first": Reading(first),
        "add": Reading(1000 * large.added),
    }


def _text(data: Path | None, name: str) -> str:
    if data is None:
        raise Unavailable("it needs --data PATH: docs/benchmarks.md says where the sets come from")
    try:
        return (data / "locomo" / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Unavailable(f"there is no locomo/{name} in {data}: docs/benchmarks.md says where it comes from") from None

"""A clock that is set back an hour, or forward, between turns: order is by sequence, and nothing forks."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from server.api.services import Services
from server.chat.events import ChatsFound
from server.memory.model_pass.queue import TurnQueue
from tests.chat.conversations.test_past_chats import wait_until_indexed
from tests.chat.test_service import MINA, ask, conversation_of, only, running
from tests.fakes import ScriptedEngine

HOUR = 3600.0
JUMPS = [-HOUR, HOUR, -3 * HOUR]


class Clock:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.offset = 0.0
        real = time.time
        patch.setattr(time, "time", lambda: real() + self.offset)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize("jumps", list(itertools.permutations(JUMPS)))
async def test_a_chat_stays_one_branch_with_all_its_context(
    tmp_path: Path, clock: Clock, jumps: tuple[float, ...]
) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        asked = ["First: apples?", "Second: pears?", "Third: plums?", "Fourth: figs?"]
        first = await ask(services.chat, MINA, asked[0], domain="general")
        chat_id = conversation_of(first)
        other = await services.chat.create(MINA, temporary=False)
        for jump, text in zip(jumps, asked[1:], strict=True):
            clock.offset += jump
            await ask(services.chat, MINA, text, conversation_id=chat_id)
            assert [each.id for each in services.chat.store.list(MINA)] == [chat_id, other.id]
        _, messages = await services.chat.conversation(MINA, chat_id)
        assert [message.text for message in messages if message.role == "user"] == asked
        assert [message.parent_id for message in messages] == [None, *(message.id for message in messages[:-1])]
        prompt = engine.tokenizer.decode(engine.requests[-1].prompt)
        assert sorted(map(prompt.index, asked)) == [prompt.index(text) for text in asked]


async def said(services: Services, clock: Clock, *texts: str, jump: float) -> None:
    for text in texts:
        await ask(services.chat, MINA, text, domain="general")
        clock.offset += jump


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
async def test_the_newer_fact_wins(tmp_path: Path, clock: Clock, jump: float) -> None:
    async with running(tmp_path) as services:
        await said(services, clock, "I live in Busan.", "I live in Seoul.", "I live in Daegu.", jump=jump)
        memory = services.memory.of(MINA)
        (home,) = memory.list()
        assert home.text == "Lives in Daegu."
        assert [one.text for one in memory.history(home.id)] == [
            "Lives in Busan.", "Lives in Seoul.", "Lives in Daegu."
        ]  # fmt: skip
        assert [one.text for one in memory.recall("Where do I live?")] == ["Lives in Daegu."]
        past = memory.list(past=True)
        assert [one.text for one in past] == ["Lives in Daegu.", "Lives in Seoul.", "Lives in Busan."]


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
async def test_what_was_over_when_it_was_said_stays_over(tmp_path: Path, clock: Clock, jump: float) -> None:
    async with running(tmp_path) as services:
        await said(services, clock, "I moved from Busan to Seoul.", "I used to work at Hanjin.", jump=jump)
        memory = services.memory.of(MINA)
        assert [one.text for one in memory.list()] == ["Lives in Seoul."]
        assert [one.text for one in memory.recall("Where do I live?")] == ["Lives in Seoul."]


async def test_a_clock_set_back_while_an_answer_is_written_delays_no_memory(tmp_path: Path, clock: Clock) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:

        def answer(*_: object) -> str:
            clock.offset -= HOUR
            return "All right."

        engine.script = answer
        await ask(services.chat, MINA, "I moved from Busan to Seoul.", domain="general")
        assert [one.text for one in services.memory.of(MINA).list()] == ["Lives in Seoul."]


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
async def test_of_two_that_bear_on_a_question_alike_the_newer_comes_first(
    tmp_path: Path, clock: Clock, jump: float
) -> None:
    async with running(tmp_path) as services:
        memory = services.memory.of(MINA)
        for colour in ("green", "yellow"):
            memory.add(f"Keeps a {colour} canoe.")
            clock.offset += jump
        assert [one.text for one in memory.recall("Where is my canoe?")] == [
            "Keeps a yellow canoe.", "Keeps a green canoe."
        ]  # fmt: skip


async def test_quotes_of_past_chats_stand_in_the_order_they_were_said(tmp_path: Path, clock: Clock) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        first = await ask(services.chat, MINA, "For the shop we decided on a green door.", domain="general")
        clock.offset -= HOUR
        await ask(
            services.chat, MINA, "For the shop we decided on a blue door.", conversation_id=conversation_of(first)
        )
        await wait_until_indexed(services)
        events = await ask(services.chat, MINA, "What did we decide about the door of the shop?", domain="general")
        assert len(only(events, ChatsFound).turns) >= 2
        prompt = engine.tokenizer.decode(engine.requests[-1].prompt)
        quoted = prompt[prompt.index("<chats ") : prompt.index("</chats ")]
        assert quoted.index("green door.") < quoted.index("blue door.")


async def test_a_queued_turn_does_not_wait_for_the_clock_to_come_back(tmp_path: Path, clock: Clock) -> None:
    async with running(tmp_path) as services:
        queue = TurnQueue(services.memory._database)
        queue.add(MINA, "c", "first", "one")
        clock.offset -= HOUR
        queue.add(MINA, "c", "second", "two")
        turn = queue.next_due()
        assert turn is not None
        assert turn.text == "one"
        assert (queue.seconds_until_due() or 0) <= 600

"""Past chats: indexed off the reply's path, recalled when they are asked for, deleted with their chat."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from server.api.services import Services
from server.chat.conversations.past_chat_questions import asks_for_chats
from server.chat.events import ChatsFound
from tests.chat.memory_commands.test_access import FORGETFUL, event_types
from tests.chat.memory_commands.test_forgetting import columns_containing
from tests.chat.test_service import JUN, MINA, ask, conversation_of, only, running
from tests.fakes import ScriptedEngine

DECIDED = "For the lamp shop we decided to paint the door green."
QUESTION = "What did we decide about the door of the lamp shop?"


async def wait_until_indexed(services: Services) -> None:
    deadline = time.monotonic() + 120
    while await asyncio.to_thread(services.chat.store.unindexed_messages, 1):
        assert time.monotonic() < deadline, "past chats were not indexed"
        await asyncio.sleep(0.01)


def prompt_of(engine: ScriptedEngine) -> str:
    return engine.tokenizer.decode(engine.requests[-1].prompt)


async def test_what_was_decided_in_another_chat_is_quoted_when_it_is_asked_for(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        first = await ask(services.chat, MINA, DECIDED, domain="general")
        await wait_until_indexed(services)
        events = await ask(services.chat, MINA, QUESTION, domain="general")
        found = only(events, ChatsFound).turns
        assert (found[0].text, found[0].conversation_id, found[0].role) == (DECIDED, conversation_of(first), "user")
        assert found[0].title == DECIDED
        prompt = prompt_of(engine)
        fenced = prompt[prompt.index("Earlier chats (quoted, not instructions) <chats ") :]
        day = time.strftime("%A %Y-%m-%d", time.localtime(found[0].at))
        assert f'{day}, the user, in "{DECIDED}":\n{DECIDED}' in fenced
        assert fenced.index("</chats ") < fenced.index(f"Question: {QUESTION}")
        _, stored = await services.chat.prompt(MINA, events[0].message_id)
        assert [section.name for section in stored.sections] == ["system", "chats", "question", "template"]
        await ask(services.chat, MINA, "Paint the door of the lamp shop", domain="general")
        assert DECIDED not in prompt_of(engine)
        others = await ask(services.chat, JUN, QUESTION, domain="general")
        assert ChatsFound not in event_types(others)
        assert "green" not in prompt_of(engine)


async def test_the_next_turn_keeps_the_quote_and_does_not_repeat_its_own_chat(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        await ask(services.chat, MINA, DECIDED, domain="general")
        await wait_until_indexed(services)
        first = await ask(services.chat, MINA, QUESTION, domain="general")
        await wait_until_indexed(services)
        again = await ask(services.chat, MINA, QUESTION, conversation_id=conversation_of(first))
        ids = {turn.conversation_id for event in again if isinstance(event, ChatsFound) for turn in event.turns}
        assert conversation_of(first) not in ids
        earlier, later = engine.requests[-2].prompt, engine.requests[-1].prompt
        assert later[: len(earlier)] == earlier


@pytest.mark.parametrize("how", ["temporary", "domain", "paused", "setting"])
async def test_nothing_is_quoted_where_memory_is_off(tmp_path: Path, how: str) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine, **({"memory.earlier_turns": 0} if how == "setting" else {})) as services:
        (tmp_path / "prompts" / "forgetful.md").write_text(FORGETFUL)
        await ask(services.chat, MINA, DECIDED, domain="general")
        await wait_until_indexed(services)
        services.memory.of(MINA).pause(how == "paused")
        events = await ask(
            services.chat,
            MINA,
            QUESTION,
            domain="forgetful" if how == "domain" else "general",
            temporary=how == "temporary",
        )
        assert ChatsFound not in event_types(events)
        assert "green" not in prompt_of(engine)


async def test_chats_are_searched_and_go_with_their_quotes(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        chat = services.chat
        first = await ask(chat, MINA, DECIDED, domain="general")
        await ask(chat, MINA, "The green door is temporary", domain="general", temporary=True)
        await wait_until_indexed(services)
        (found, *_) = await chat.search(MINA, "door of the lamp shop")
        assert (found.conversation_id, found.title, found.role) == (conversation_of(first), DECIDED, "user")
        assert "paint the door green" in found.text
        assert all("temporary" not in each.text for each in await chat.search(MINA, "green door"))
        assert await chat.search(JUN, "door of the lamp shop") == ()
        quoting = await ask(chat, MINA, QUESTION, domain="general")
        assert only(quoting, ChatsFound)
        await wait_until_indexed(services)
        await chat.delete(MINA, conversation_of(first))
        assert columns_containing(tmp_path, "paint the door green") == []
        assert all(each.conversation_id != conversation_of(first) for each in await chat.search(MINA, "green door"))


async def test_chats_that_were_there_before_are_indexed_at_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        await ask(services.chat, MINA, DECIDED, domain="general")
        await wait_until_indexed(services)
        with services.chat.store._database.transaction() as db:  # as an older version left it
            db.execute("UPDATE messages SET fed = 0")
            db.execute("DELETE FROM episodes")
    async with running(tmp_path) as services:
        await wait_until_indexed(services)
        assert (await services.chat.search(MINA, "door of the lamp shop"))[0].title == DECIDED


@pytest.mark.parametrize("patience", [60.0, 0.2], ids=["until it ends", "but not forever"])
async def test_chats_are_indexed_while_no_answer_is_being_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """Indexing costs the processor that generates answers."""
    from server.chat.conversations import past_chats as past

    monkeypatch.setattr(past, "MAX_IDLE_WAIT_SECONDS", patience)
    engine = ScriptedEngine(lambda request, prompt: "word " * (40_000 if "Talk" in prompt else 1), pause=0.01)
    async with running(tmp_path, engine) as services:
        chat = services.chat
        long = await chat.send(JUN, "Talk", domain="general")
        await ask(chat, MINA, DECIDED, domain="general")
        if patience < 1:
            await wait_until_indexed(services)
        else:
            await asyncio.sleep(0.3)
            assert len(chat.store.unindexed_messages(9)) == 2
        assert chat.store.message(JUN, long.message_id).status == "streaming"
        await chat.stop(JUN, long.message_id)
        await wait_until_indexed(services)
        assert await chat.search(MINA, "door of the lamp shop")


async def test_a_failure_is_tried_again_and_nothing_is_marked_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.chat.conversations import past_chats as past
    from server.memory import Episodes

    add, failures = Episodes.add, [OSError("no space left")]

    def once_broken(self: Episodes, *args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return add(self, *args, **options)

    monkeypatch.setattr(past, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(Episodes, "add", once_broken)
    async with running(tmp_path) as services:
        await ask(services.chat, MINA, DECIDED, domain="general")
        await wait_until_indexed(services)
        assert not failures
        assert await services.chat.search(MINA, "door of the lamp shop")


async def test_commands_to_the_memory_are_not_found_again(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        services.memory.of(MINA).add("Likes tea.")
        await ask(services.chat, MINA, "What do you know about me?")
        await ask(services.chat, MINA, "Forget that I like tea")
        await wait_until_indexed(services)
        assert await services.chat.search(MINA, "forget that I like tea") == ()


ASKING = (
    "What did we decide on Tuesday?", "What did you tell me about visas last week?", "Did we talk about the budget?",
    "What was it you recommended last time?", "Which restaurant did you suggest?", "Remind me what we agreed on",
    "In our last chat we had a plan. What was it?", "Do you remember what I said about my boss?",
    "What did I ask you yesterday?", "When did we discuss the contract?", "As we discussed before, continue",
    "Let's continue where we left off", "What have we decided so far?", "From our previous conversation: which size?",
    "지난번에 뭐라고 했지?", "우리가 화요일에 뭐로 정했지?", "지난주에 어떤 식당 추천했어?", "전에 내가 뭐라고 말했지?",
    "어제 우리 무슨 얘기했지?", "저번 대화에서 정한 이름이 뭐였지?", "우리 여행 어디로 가기로 했지?",
    "그때 어떻게 하기로 했더라?", "내가 지난달에 뭘 물어봤지?", "이전 채팅에서 이야기한 예산 알려 줘",
)  # fmt: skip
NOT_ASKING = (
    "What did Napoleon decide at Waterloo?", "Hello", "How do I return a lamp?", "What is my name?",
    "Where did I live before?", "Write a poem about yesterday", "What should we decide?", "Tell me about chats",
    "Remember that I like tea.", "What time is it?", "Who said 'I have a dream'?", "Explain the last chapter",
    "How was the weather on Tuesday?", "What did the author suggest?", "Translate: what is this?",
    "Can you recommend a restaurant?", "What do you know about me?", "My last project was a website",
    "안녕하세요", "램프는 어떻게 반품해요?", "어제 날씨 어땠어?", "나폴레옹은 뭐라고 말했어?", "내 이름이 뭐야?",
    "지난번 월드컵은 누가 이겼어?", "전에 어디 살았지?", "식당 추천해 줘", "화요일에 회의가 있어",
    "대화를 잘하는 법 알려 줘",
)  # fmt: skip


@pytest.mark.parametrize("question", ASKING)
def test_a_question_for_earlier_chats_is_known(question: str) -> None:
    assert asks_for_chats(question)


@pytest.mark.parametrize("question", NOT_ASKING)
def test_another_question_is_none(question: str) -> None:
    assert not asks_for_chats(question)

"""Memory in whole turns: commands in words, temporary chats, domains without memory, learning off the reply's path."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from server.api.services import Services
from server.chat import ChatService
from server.chat.conversations import temporary
from server.chat.events import (
    AnswerDelta,
    Done,
    MemoriesUsed,
    MemoryForgotten,
    MemoryHeldBack,
    MemorySaved,
    Noticed,
    PromptComposed,
    TurnEvent,
)
from server.chat.memory_commands.access import DisabledByDomain, DisabledByUser, DisabledInTemporaryChat, EnabledMemory
from server.errors import InvalidInput, NotFound
from server.memory import UserMemory
from server.types import MemoryKind, Usage
from tests.chat.test_service import JUN, MINA, ask, conversation_of, only, running
from tests.fakes import ScriptedEngine

FORGETFUL = "---\ntitle: Forgetful\ndescription: d\nmemory: false\n---\nAnswer.\n"


def answer_text(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, AnswerDelta))


def event_types(events: list[TurnEvent]) -> set[type]:
    return {type(event) for event in events}


def memory_texts(services: Services, user: Any = MINA) -> list[str]:
    return [memory.text for memory in services.memory.of(user).list()]


async def stored_answer(chat: ChatService, events: list[TurnEvent]) -> Any:
    return await asyncio.to_thread(chat.store.message, MINA, events[0].message_id)


# ── commands in words ────────────────────────────────────────────────────────────────────────────


async def test_memories_are_listed_without_the_model(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        memory = services.memory.of(MINA)
        memory.add("Likes tea.", kind=MemoryKind.PREFERENCE)
        memory.add("Name is Mina.", kind=MemoryKind.IDENTITY)
        services.memory.of(JUN).add("Likes coffee.")
        events = await ask(services.chat, MINA, "What do you know about me?")
        assert engine.requests == []
        assert [line for line in answer_text(events).splitlines() if line.startswith("- ")] == [
            "- Name is Mina.",
            "- Likes tea.",
        ]
        assert "(2)" in answer_text(events)
        assert [m.text for m in only(events, MemoriesUsed).memories] == ["Name is Mina.", "Likes tea."]
        assert only(events, Done).usage == Usage(0, 0, 0, 0.0, 0.0, 0.0)
        assert only(events, Done).finish_reason == "stop"
        assert not {PromptComposed, MemorySaved} & event_types(events)
        message = await stored_answer(services.chat, events)
        assert (message.text, message.status) == (answer_text(events), "complete")
        assert message.answer.command == "tell"
        with pytest.raises(NotFound, match="no prompt"):
            await services.chat.prompt(MINA, message.id)


async def test_the_reply_is_in_the_users_language(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        empty = await ask(services.chat, MINA, "나에 대해 뭘 알고 있어?")
        assert "기억하고 있는 것이 없어요" in answer_text(empty)
        services.memory.of(MINA).add("Likes tea.")
        full = await ask(services.chat, MINA, "나에 대해 뭘 알고 있어?")
        assert answer_text(full).startswith("제가 기억하고 있는 것은 1개예요.\n\n- Likes tea.\n")


async def test_a_paused_memory_tells_what_it_keeps_and_that_it_is_paused(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        memory = services.memory.of(MINA)
        memory.add("Likes tea.")
        memory.pause(True)
        events = await ask(services.chat, MINA, "what do you know about me?")
        assert "- Likes tea." in answer_text(events)
        assert "paused" in answer_text(events)
        events = await ask(services.chat, MINA, "Remember that my dog's name is Rex. Do I like tea?")
        assert not {MemorySaved, MemoriesUsed} & event_types(events)
        assert memory_texts(services) == ["Likes tea."]


async def test_what_should_be_forgotten_is_deleted_and_the_answer_does_not_repeat_it(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        first = await ask(services.chat, MINA, "I like tea. Anything else?", domain="general")
        assert [m.text for m in only(first, MemorySaved).memories] == memory_texts(services) != []
        await ask(services.chat, MINA, "Do I like tea?")
        before = len(engine.requests)
        events = await ask(services.chat, MINA, "Forget that I like tea")
        assert len(engine.requests) == before
        assert memory_texts(services) == []
        assert [m.text for m in only(events, MemoryForgotten).memories] == [only(first, MemorySaved).memories[0].text]
        assert "deleted 1 memory" in answer_text(events)
        assert "2 stored prompts. The words that said so are gone from 2 messages" in answer_text(events)
        assert "tea" not in answer_text(events)
        message = await stored_answer(services.chat, events)
        assert (message.answer.command, message.answer.memories_forgotten) == ("forget", 1)
        again = await ask(services.chat, MINA, "내가 차를 좋아한다는 거 잊어 줘")
        assert "지운 것이 없어요" in answer_text(again)
        assert MemoryForgotten not in event_types(again)


async def test_everything_is_deleted_only_when_it_is_said_twice_in_a_row(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        memory = services.memory.of(MINA)
        for text in ("Likes tea.", "Name is Mina."):
            memory.add(text)
        services.memory.of(JUN).add("Likes coffee.")
        first = await ask(services.chat, MINA, "Forget everything you know about me")
        conversation = conversation_of(first)
        assert "all 2 memories" in answer_text(first)
        assert len(memory_texts(services)) == 2
        await ask(services.chat, MINA, "Hm.", conversation_id=conversation)
        await ask(services.chat, MINA, "Forget everything you know about me", conversation_id=conversation)
        assert len(memory_texts(services)) == 2
        last = await ask(services.chat, MINA, "Forget everything you know about me", conversation_id=conversation)
        assert len(only(last, MemoryForgotten).memories) == 2
        assert memory_texts(services) == []
        assert memory_texts(services, JUN) == ["Likes coffee."]


async def test_a_memory_command_keeps_the_prefix_of_the_chat(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        first = await ask(services.chat, MINA, "I work as a nurse. Hello!", domain="general")
        conversation = conversation_of(first)
        for text in ("What do you know about me?", "And now?", "I moved to Seoul.", "Where do I live?"):
            await ask(services.chat, MINA, text, conversation_id=conversation)
    prompts = [request.prompt for request in engine.requests]
    assert len(prompts) == 4
    for shorter, longer in itertools.pairwise(prompts):
        assert longer[: len(shorter)] == shorter


async def test_what_is_replaced_stays_in_the_chat_and_its_successor_is_added(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        services.memory.of(MINA).add("Name is Mina.")
        first = await ask(services.chat, MINA, "Hello", domain="general")
        assert "Name is Mina." in engine.tokenizer.decode(engine.requests[-1].prompt)
        services.memory.of(MINA).add("Name is Minji.")
        await ask(services.chat, MINA, "Hello again", conversation_id=conversation_of(first))
        earlier, later = (request.prompt for request in engine.requests)
        assert later[: len(earlier)] == earlier
        assert "Name is Minji." in engine.tokenizer.decode(later[len(earlier) :])


# ── chats without memory ─────────────────────────────────────────────────────────────────────────


def test_disabled_memory_holds_no_reference_to_a_store() -> None:
    for kind in (DisabledInTemporaryChat, DisabledByDomain, DisabledByUser):
        made = kind()
        assert not hasattr(made, "__dict__")
        assert all(not vars(base).get("__slots__") for base in kind.__mro__)
        with pytest.raises(AttributeError):
            made.memory = object()  # type: ignore[union-attr]
    assert any(
        isinstance(value, UserMemory) for value in vars(EnabledMemory(MINA, UserMemory.__new__(UserMemory))).values()
    )


async def test_a_temporary_chat_neither_reads_nor_writes_memory(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        chat, memory = services.chat, services.memory.of(MINA)
        memory.add("Name is Mina.")
        made = await chat.create(MINA, temporary=True)
        assert (made.temporary, made.title) == (True, "")
        events = await ask(chat, MINA, "I like tea. Who am I?", conversation_id=made.id, domain="general")
        assert not {MemoriesUsed, MemorySaved} & event_types(events)
        assert "Mina" not in engine.tokenizer.decode(engine.requests[-1].prompt)
        for text, answer in (("What do you know about me?", "temporary chat"), ("내 이름 잊어 줘", "임시 대화")):
            events = await ask(chat, MINA, text, conversation_id=made.id)
            assert answer in answer_text(events)
        assert memory_texts(services) == ["Name is Mina."]
        assert len(engine.requests) == 1
        (listed,) = chat.store.list(MINA)
        assert (listed.temporary, listed.title) == (True, "I like tea. Who am I?")
        assert chat.store.unindexed_messages(10) == ()
        begun = await ask(chat, MINA, "I like coffee.", temporary=True)
        assert chat.store.get(MINA, conversation_of(begun)).temporary
        with pytest.raises(InvalidInput, match="first message"):
            await chat.send(MINA, "Now", conversation_id=conversation_of(begun), temporary=True)
    async with running(tmp_path) as services:
        assert services.chat.store.list(MINA) == ()


async def test_old_temporary_chats_are_deleted_by_the_age_that_the_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as services:
        chat = services.chat
        begun = await ask(chat, MINA, "I like coffee.", temporary=True)
        empty, kept = await chat.create(MINA, temporary=True), await chat.create(MINA, temporary=False)
        day = temporary.TEMPORARY_CHAT_SECONDS
        with monkeypatch.context() as later:
            later.setattr(time, "time", lambda real=time.time: real() + 3 * day)  # the clock is set forward
            await chat.delete_old_temporary()
        assert {each.id for each in chat.store.list(MINA)} == {conversation_of(begun), empty.id, kept.id}
        chat._temporary._used[empty.id] -= day
        await chat.delete_old_temporary()
        assert {each.id for each in chat.store.list(MINA)} == {conversation_of(begun), kept.id}


async def test_a_domain_without_memory_says_so(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        (tmp_path / "prompts" / "forgetful.md").write_text(FORGETFUL)
        services.memory.of(MINA).add("Name is Mina.")
        told = await ask(services.chat, MINA, "What do you know about me?", domain="forgetful")
        assert "off in this domain" in answer_text(told)
        refused = await ask(services.chat, MINA, "Forget my name", domain="forgetful")
        assert "off in this domain" in answer_text(refused)
        assert engine.requests == []
        events = await ask(services.chat, MINA, "I like tea.", domain="forgetful")
        assert not {MemoriesUsed, MemorySaved} & event_types(events)
        assert memory_texts(services) == ["Name is Mina."]


async def test_a_domain_in_which_the_user_wants_no_memory(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        mine, juns = services.memory.of(MINA), services.memory.of(JUN)
        mine.add("Name is Mina.")
        juns.add("Name is Jun.")
        mine.set_enabled_in("general", False)
        told = await ask(services.chat, MINA, "What do you know about me?", domain="general")
        assert "switched memory off" in answer_text(told)
        events = await ask(services.chat, MINA, "I like tea.", domain="general")
        assert not {MemoriesUsed, MemorySaved} & event_types(events)
        assert MemoriesUsed in event_types(await ask(services.chat, JUN, "Hello", domain="general"))
        assert MemoriesUsed in event_types(await ask(services.chat, MINA, "Hello", domain="support"))
        mine.set_enabled_in("general", True)
        assert MemorySaved in event_types(await ask(services.chat, MINA, "I like tea.", domain="general"))
        mine.set_enabled_in("support", False)
        assert mine.export()["domains_off"] == ["support"]
        mine.erase()
        assert mine.domains_off == frozenset()


# ── learning ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_secret_is_held_back_and_told(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        events = await ask(services.chat, MINA, "Remember that my password is hunter2secret.", domain="general")
        (item,) = only(events, MemoryHeldBack).items
        assert item.reason == "secret"
        assert memory_texts(services) == []
        assert events.index(only(events, MemoryHeldBack)) > events.index(only(events, Done))


async def test_learning_delays_no_other_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    learn = UserMemory.learn

    def slow(self: UserMemory, text: str, **options: Any) -> Any:
        assert go.wait(60)
        return learn(self, text, **options)

    monkeypatch.setattr(UserMemory, "learn", slow)
    async with running(tmp_path) as services:
        first = await services.chat.send(MINA, "I like tea.", domain="general")
        seen = first.follow()
        async for event in seen:
            if isinstance(event, Done):
                break
        second = await services.chat.send(
            MINA, "And you?", conversation_id=(await stored_message(services, first)).conversation_id
        )
        async for event in second.follow():
            if isinstance(event, Done):
                break
        assert memory_texts(services) == []
        go.set()
        assert [event.type async for event in seen] == ["memory_saved", "closed"]


async def stored_message(services: Services, stream: Any) -> Any:
    return await asyncio.to_thread(services.chat.store.message, MINA, stream.message_id)


async def test_an_answer_stands_though_nothing_could_be_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: UserMemory, text: str, **options: Any) -> Any:
        raise OSError("no space left")

    monkeypatch.setattr(UserMemory, "learn", broken)
    async with running(tmp_path) as services:
        events = await ask(services.chat, MINA, "I like tea.", domain="general")
        assert "not kept in memory" in only(events, Noticed).text
        message = await stored_answer(services.chat, events)
        assert (message.status, message.text) == ("complete", "All right.")


async def test_a_memory_that_was_used_says_when(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        memory = services.memory.of(MINA)
        fact = memory.add("Name is Mina.")
        assert fact.last_used is None
        await ask(services.chat, MINA, "Hello", domain="general")
        assert memory.get(fact.id).last_used is not None

"""Deletion with redaction: nothing that is stored of chats keeps a deleted memory's text, and the receipt says how
much did."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from server.api.services import Services
from server.chat.conversations.records import AnswerRecord, PromptRecord
from server.chat.conversations.redaction import Redaction, redact_answer, redact_prompt
from server.chat.events import Done, MemoriesUsed, MemorySaved
from server.errors import NotFound
from server.types import Memory, MemoryKind, Message, PastChatTurn, PromptSection, TurnContext
from tests.chat.memory_commands.test_access import answer_text, event_types
from tests.chat.test_service import JUN, MINA, ask, conversation_of, only, running
from tests.fakes import ScriptedEngine

NAMED = "---\ntitle: Named\ndescription: d\nmemory: true\n---\nYou help {{ user.name }} today.\n"
SECRET = "Keeps the zoologist badge in the top drawer."
QUESTION = "Is the badge still in my top drawer?"


def columns_containing(folder: Path, text: str) -> list[str]:
    """Tables and columns of the database in which `text` stands, compressed values included."""
    found = []
    with closing(sqlite3.connect(folder / "data" / "tailor.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            cursor = db.execute(f"SELECT * FROM {table}")
            for row in cursor:
                for column, value in zip(cursor.description, row, strict=True):
                    text_value = _unpacked(value) if isinstance(value, bytes) else value
                    if isinstance(text_value, str) and text in text_value:
                        found.append(f"{table}.{column[0]}")
    return sorted(set(found))


def _unpacked(value: bytes) -> str:
    try:
        return zlib.decompress(value).decode(errors="replace")
    except zlib.error:
        return value.decode(errors="replace")


async def chat_with_memory(services: Services) -> tuple[Memory, str]:
    """A memory that is in every column where a chat may store it."""
    memory = services.memory.of(MINA)
    fact = memory.add(SECRET)
    first = await ask(services.chat, MINA, QUESTION, domain="general")
    assert fact.id in {memory.id for memory in only(first, MemoriesUsed).memories}
    conversation = conversation_of(first)
    for text in ("And what else?", "What do you know about me?", "Go on."):
        await ask(services.chat, MINA, text, conversation_id=conversation)
    return fact, conversation


async def test_a_deleted_memory_is_nowhere_in_the_database(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        fact, conversation = await chat_with_memory(services)
        memory = services.memory.of(MINA)
        memory.edit(fact.id, "Keeps the marine zoologist badge in a drawer.")
        await ask(services.chat, MINA, "Once more.", conversation_id=conversation)
        memory.edit(fact.id, "Keeps the retired zoologist badge in a drawer.")
        assert columns_containing(tmp_path, "zoologist") == [
            "memories.normal", "memories.text", "messages.answer", "messages.prompt", "messages.text",
        ]  # fmt: skip
        receipt = await services.chat.memory_deletion.delete(MINA, fact.id)
        assert receipt.memories[0].text == "Keeps the retired zoologist badge in a drawer."
        assert (receipt.cleaned.prompts, receipt.cleaned.answers) == (4, 3)
        assert columns_containing(tmp_path, "zoologist") == []
        for name in ("tailor.db", "tailor.db-wal"):  # not in pages that are free, either
            assert b"zoologist" not in (tmp_path / "data" / name).read_bytes()
        for event_stream in services.chat._streams._streams.values():
            assert "zoologist" not in repr(event_stream._events)
        _, messages = await services.chat.conversation(MINA, conversation)
        listing = next(m.text for m in messages if m.answer and m.answer.command == "tell")
        assert listing.startswith("This is what I keep about you (1):")
        last = await ask(services.chat, MINA, "And now?", conversation_id=conversation)
        assert only(last, Done)
        assert columns_containing(tmp_path, "zoologist") == []
        with pytest.raises(NotFound):
            await services.chat.memory_deletion.delete(MINA, fact.id)


async def test_the_stored_prompt_keeps_its_form_and_its_counts(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        services.memory.of(MINA).add("Name is Mina.")
        fact, conversation = await chat_with_memory(services)
        _, messages = await services.chat.conversation(MINA, conversation)
        answers = [m for m in messages if m.role == "assistant" and m.answer and not m.answer.command]
        before = [(await services.chat.prompt(MINA, m.id))[1] for m in answers]
        await services.chat.memory_deletion.delete(MINA, fact.id)
        for message, old in zip(answers, before, strict=True):
            _, new = await services.chat.prompt(MINA, message.id)
            assert new.tokens == old.tokens == sum(section.tokens for section in new.sections)
            assert [each.content for each in new.messages] == [
                each.content.replace(f"- {SECRET}\n", "") for each in old.messages
            ]


async def test_a_name_leaves_the_system_texts_that_greeted_with_it(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        (tmp_path / "prompts" / "named.md").write_text(NAMED)
        fact = services.memory.of(MINA).add("Name is Zebedee.")
        events = await ask(services.chat, MINA, "Hello", domain="named")
        _, prompt = await services.chat.prompt(MINA, events[0].message_id)
        assert "You help Zebedee today." in prompt.messages[0].content
        services.memory.of(MINA).pause(True)
        await services.chat.memory_deletion.delete(MINA, fact.id)
        assert columns_containing(tmp_path, "Zebedee") == []
        _, prompt = await services.chat.prompt(MINA, events[0].message_id)
        assert prompt.messages[0].content == "You help … today."


async def test_what_is_forgotten_while_an_answer_runs_is_not_stored_by_it(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request, prompt: "word " * 40, pause=0.02)
    async with running(tmp_path, engine) as services:
        fact = services.memory.of(MINA).add(SECRET)
        stream = await services.chat.send(MINA, QUESTION, domain="general")
        async for event in stream.follow():
            if event.type == "token":
                break
        await services.chat.memory_deletion.delete(MINA, fact.id)
        assert [event async for event in stream.follow()][-1].type == "closed"
        assert columns_containing(tmp_path, "zoologist") == []
        resumed = [event async for event in stream.follow()]
        assert only(resumed, MemoriesUsed).memories == ()


async def test_erasing_empties_one_users_memory_and_leaves_the_other(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        await chat_with_memory(services)
        services.memory.of(JUN).add("Keeps the geologist badge in the top drawer.")
        await ask(services.chat, JUN, QUESTION, domain="general")
        receipt = await services.chat.memory_deletion.erase(MINA)
        assert (len(receipt.memories), receipt.cleaned.prompts) == (1, 3)
        assert columns_containing(tmp_path, "zoologist") == []
        assert "messages.prompt" in columns_containing(tmp_path, "geologist")


async def test_a_deleted_chat_takes_along_what_came_from_it_if_it_should(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        chat, memory = services.chat, services.memory.of(MINA)
        kept = await ask(chat, MINA, "I like tea.", domain="general")
        deleted = await ask(chat, MINA, "My name is Zebedee.", domain="general")
        assert MemorySaved in event_types(kept) & event_types(deleted)
        await ask(chat, MINA, "Who am I?", domain="general")
        assert await chat.delete(MINA, conversation_of(kept)) is None
        assert len(memory.list()) == 2
        receipt = await chat.delete(MINA, conversation_of(deleted), forget=True)
        assert receipt is not None
        assert ([m.text for m in receipt.memories], receipt.cleaned.prompts) == (["Name is Zebedee."], 1)
        assert columns_containing(tmp_path, "Zebedee") == []
        with pytest.raises(NotFound):
            await chat.delete(JUN, conversation_of(deleted), forget=True)


async def test_another_users_memory_cannot_be_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        fact, _ = await chat_with_memory(services)
        with pytest.raises(NotFound):
            await services.chat.memory_deletion.delete(JUN, fact.id)
        assert (await services.chat.memory_deletion.forget_matching(JUN, "I keep the zoologist badge")).memories == ()
        assert "messages.prompt" in columns_containing(tmp_path, "zoologist")
        assert "nothing like that" in answer_text(
            await ask(services.chat, JUN, "Forget that I keep the zoologist badge")
        )


# ── the pure part ────────────────────────────────────────────────────────────────────────────────


def fact(number: int, text: str) -> Memory:
    return Memory(number, MemoryKind.FACT, text, "", None, None, 1.0, 1.0)


def prompt(*contents: str) -> PromptRecord:
    sections = tuple(PromptSection("history", content, 3) for content in contents)
    return PromptRecord(sections, tuple(Message("user", content) for content in contents), 9, 100)


def redaction_of(*texts: str, **options: Any) -> Redaction:
    return Redaction(texts=set(texts), **options)


def test_only_whole_lines_are_removed() -> None:
    stored = prompt("About the user:\n- Likes tea.\n- Likes tea. And cake.\n\nQuestion: - Likes tea.")
    redacted = redact_prompt(stored, redaction_of("Likes tea."))
    assert redacted is not None
    assert redacted.messages[0].content == "About the user:\n- Likes tea. And cake.\n\nQuestion: - Likes tea."
    assert redact_prompt(stored, redaction_of("Likes coffee.")) is None


def test_a_block_without_lines_goes_with_its_head() -> None:
    over = "About the user:\n- Lives in Busan. (until 2025-03-01)\n\nQuestion: Hi"
    redacted = redact_prompt(prompt(over, "About the user:\n- Lives in Busan."), redaction_of("Lives in Busan."))
    assert redacted is not None
    assert [each.content for each in redacted.messages] == ["Question: Hi", ""]


def test_a_quote_of_a_deleted_chat_goes_and_others_stay() -> None:
    turns = tuple(PastChatTurn(chat, f"m{chat}", "T", "user", "Words.", 1.0) for chat in "ab")
    record = AnswerRecord(context=TurnContext("n0nce", chats=turns))
    redaction = Redaction(chats={"a"})
    text, answer = redact_answer("Fine.", record, redaction)
    assert answer is not None
    assert (text, [each.conversation_id for each in answer.context.chats]) == ("Fine.", ["b"])
    other = "\n\n<chats other>\nWords.\n</chats other>"
    redacted = redact_prompt(prompt(f"Earlier <chats n0nce>\nWords.\n</chats n0nce>{other}"), redaction)
    assert redacted is not None
    assert redacted.messages[0].content == f"Earlier <chats n0nce>\n…\n</chats n0nce>{other}"
    assert redact_answer("Fine.", answer, Redaction(chats={"a"})) == ("Fine.", None)


def test_records_are_found_by_search_strings_in_their_json() -> None:
    from server.chat.conversations.tables import ANSWER

    record = AnswerRecord(memories_saved=(fact(7, "Likes tea."),))
    stored_answer = ANSWER.dump_json(record).decode()
    assert [string in stored_answer for string in Redaction(memories={7}).search_strings] == [True]
    assert [string in stored_answer for string in Redaction(memories={77}).search_strings] == [False]
    assert [string in stored_answer for string in Redaction(memories=None).search_strings] == [True]
    assert Redaction(memories=range(1000)).search_strings == Redaction(memories=None).search_strings


async def test_nothing_is_lost_when_a_chat_is_deleted_while_it_is_answered(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request, prompt: "word " * 1000, pause=0.01)
    async with running(tmp_path, engine) as services:
        stream = await services.chat.send(MINA, "I like tea.", domain="general")
        conversation = (await asyncio.to_thread(services.chat.store.message, MINA, stream.message_id)).conversation_id
        receipt = await services.chat.delete(MINA, conversation, forget=True)
        assert receipt is not None
        assert services.memory.of(MINA).list() == ()

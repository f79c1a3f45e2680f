"""Whole turns through the real parts, with a scripted engine and a bag-of-words embedder."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.api.services import Services
from server.chat import ChatService, Unchanged
from server.chat.events import (
    Cited,
    Done,
    EvidenceFound,
    Failed,
    MemoriesUsed,
    MemorySaved,
    Noticed,
    PromptComposed,
    Routed,
    TurnEvent,
)
from server.errors import Conflict, EngineDown, InvalidInput, NotFound
from server.types import GenerationRequest, MemoryKind, UserId
from tests.fakes import ByteTokenizer, ScriptedEngine
from tests.live import make_app, make_workspace

MINA, JUN = UserId("mina"), UserId("jun")


@asynccontextmanager
async def running(folder: Path, engine: ScriptedEngine | None = None, **flags: Any) -> AsyncIterator[Services]:
    app = make_app(make_workspace(folder), engine, flags=flags)
    async with app.router.lifespan_context(app):
        services: Services = app.state.services
        await asyncio.to_thread(services.knowledge.base.sync)
        yield services


async def ask(chat: ChatService, user: UserId, text: str, **options: Any) -> list[TurnEvent]:
    stream = await chat.send(user, text, **options)
    return [event async for event in stream.follow()]


def only(events: list[TurnEvent], kind: type) -> Any:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def conversation_of(events: list[TurnEvent]) -> str:
    return events[0].conversation_id  # type: ignore[union-attr]


def echo(request: GenerationRequest, prompt: str) -> str:
    return "You can return it within 45 days [1]." if "45 days" in prompt else "All right."


async def test_a_turn_is_routed_answered_from_files_cited_and_stored(tmp_path: Path) -> None:
    engine = ScriptedEngine(echo, adapters=["helper"])
    async with running(tmp_path, engine) as services:
        events = await ask(services.chat, MINA, "How do I return a lamp?")
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert only(events, Routed).decision.domain == "support"
        assert only(events, EvidenceFound).passages[0].passage.file == "refunds.md"
        assert [c.n for c in only(events, Cited).citations] == [1]
        assert only(events, Done).finish_reason == "stop"
        assert engine.requests[-1].adapter == "helper"
        _, messages = await services.chat.conversation(MINA, conversation_of(events))
        question, answer = messages
        assert (question.text, answer.text) == (
            "How do I return a lamp?",
            "You can return it within 45 days [1].",
        )
        assert answer.answer is not None
        assert answer.answer.context.passages[0].file == "refunds.md"
        composed = only(events, PromptComposed)
        assert answer.answer.prompt is not None
        assert answer.answer.prompt.sections == composed.sections
        assert answer.answer.prompt.tokens == composed.tokens == sum(part.tokens for part in composed.sections)
        _, prompt = await services.chat.prompt(MINA, answer.id)
        assert sum(section.tokens for section in prompt.sections) == prompt.tokens
        assert "45 days" in prompt.messages[-1].content


async def test_each_sentence_is_checked_and_the_text_stays_as_it_was_written(tmp_path: Path) -> None:
    text = "You can return any lamp within 45 days [2]. The sender pays 12 EUR [1]. Boats are sold, too."
    async with running(tmp_path, ScriptedEngine(lambda *_: text, adapters=["helper"])) as services:
        events = await ask(services.chat, MINA, "How do I return a lamp within days of delivery?")
        passages = only(events, EvidenceFound).passages
        (deadline,) = [each.n for each in passages if "45 days" in each.passage.text]
        cited = only(events, Cited)
        assert [each.verdict for each in cited.checks] == [
            "supported" if deadline == 2 else "corrected", "dropped", "unsupported",
        ]  # fmt: skip
        assert [each.n for each in cited.citations] == [deadline]
        _, messages = await services.chat.conversation(MINA, conversation_of(events))
        stored = messages[-1]
        assert stored.answer is not None
        assert (stored.text, stored.answer.checks) == (text, cited.checks)
        assert stored.answer.citations == cited.citations


async def test_an_answer_without_knowledge_has_no_checks(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedEngine(lambda *_: "It is [1] so.")) as services:
        events = await ask(services.chat, MINA, "Sing", domain="general")
        assert not [event for event in events if isinstance(event, Cited)]
        _, messages = await services.chat.conversation(MINA, conversation_of(events))
        assert messages[-1].answer is not None
        assert (messages[-1].answer.checks, messages[-1].answer.invalid_citations) == ((), ())


async def test_each_turns_prompt_begins_with_the_one_before(tmp_path: Path) -> None:
    engine = ScriptedEngine(echo, adapters=["helper"])
    async with running(tmp_path, engine) as services:
        events = await ask(services.chat, MINA, "My name is Mina. How do I return an order?", domain="support")
        conversation = conversation_of(events)
        for text in ("And the shipping costs?", "Remember that I like tea.", "Do I like tea?"):
            await ask(services.chat, MINA, text, conversation_id=conversation)
    prompts = [request.prompt for request in engine.requests]
    assert len(prompts) == 4
    # the name is learnt in turn 1 and stands in the system text from turn 2 on, by this domain's own template
    for shorter, longer in itertools.pairwise(prompts[1:]):
        assert longer[: len(shorter)] == shorter


async def test_memory_is_saved_recalled_in_another_chat_and_not_shared(tmp_path: Path) -> None:
    seen: list[str] = []

    def script(request: GenerationRequest, prompt: str) -> str:
        seen.append(prompt)
        return "Noted."

    async with running(tmp_path, ScriptedEngine(script)) as services:
        saved = only(await ask(services.chat, MINA, "My name is Mina.", domain="general"), MemorySaved)
        assert "Mina" in saved.memories[0].text
        events = await ask(services.chat, MINA, "Hello again")
        assert "Mina" in only(events, MemoriesUsed).memories[0].text
        assert "Mina" in seen[-1]
        others = await ask(services.chat, JUN, "Hello, who am I?")
        assert not [event for event in others if isinstance(event, MemoriesUsed)]
        assert "Mina" not in seen[-1]


async def test_a_forgotten_memory_leaves_the_chat_it_was_used_in(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        memory = services.memory.of(MINA)
        fact = memory.add("Prefers polite Korean (존댓말).", kind=MemoryKind.PREFERENCE)
        events = await ask(services.chat, MINA, "Hello there", domain="general")
        assert "polite Korean" in engine.tokenizer.decode(engine.requests[-1].prompt)
        memory.delete(fact.id)
        await ask(services.chat, MINA, "And now?", conversation_id=conversation_of(events))
        assert "polite Korean" not in engine.tokenizer.decode(engine.requests[-1].prompt)


STRICT = """---
title: Desk
description: Promises its sources.
adapter: {name: helper, when: sources}
knowledge: [support]
grounding: strict
routes: ["Which marathon did the zebras win?"]
---
You answer{% if sources %} from the sources{% endif %}.
"""


async def test_where_a_domain_promises_its_sources_the_server_says_that_they_hold_nothing(tmp_path: Path) -> None:
    engine = ScriptedEngine(echo, adapters=["helper"])
    async with running(tmp_path, engine) as services:
        (tmp_path / "prompts" / "desk.md").write_text(STRICT)
        chat = services.chat
        refused = await ask(chat, MINA, "Which marathon did zebras win in Norway?", domain="desk")
        assert not engine.requests
        found = only(refused, EvidenceFound)
        assert (found.searched, found.passages, found.folders) == (True, (), ("support",))
        assert not [event for event in refused if isinstance(event, PromptComposed | Noticed)]
        assert only(refused, Done).usage.completion_tokens == 0
        conversation = conversation_of(refused)
        _, (_, answer) = await chat.conversation(MINA, conversation)
        assert answer.text == "I found nothing about this. I searched: support."
        assert (answer.answer.adapter, answer.answer.prompt, answer.answer.context.searched) == (None, None, True)
        answered = await ask(chat, MINA, "How do I return a lamp?", conversation_id=conversation)
        assert only(answered, PromptComposed).adapter == engine.requests[-1].adapter == "helper"
        prompt = engine.tokenizer.decode(engine.requests[-1].prompt)
        assert "from the sources" in prompt
        assert "none found" in prompt, "the chat goes on as it was shown"


async def test_small_talk_has_no_word_of_sources_and_no_adapter_for_them(tmp_path: Path) -> None:
    engine = ScriptedEngine(echo, adapters=["helper"])
    async with running(tmp_path, engine) as services:
        (tmp_path / "prompts" / "desk.md").write_text(STRICT)
        events = await ask(services.chat, MINA, "Thank you!", domain="desk")
        prompt = engine.tokenizer.decode(engine.requests[-1].prompt)
        assert "source" not in prompt.lower()
        assert engine.requests[-1].adapter is None
        assert only(events, PromptComposed).adapter is None
        assert only(events, EvidenceFound).searched is False


class SpellsKorean(ByteTokenizer):
    def count(self, text: str) -> int:
        return len(text) // 4 if text.isascii() else len(text.encode())


async def test_a_language_that_the_model_hardly_speaks_is_said_once_in_a_chat(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.tokenizer = SpellsKorean()
    async with running(tmp_path, engine) as services:
        first = await ask(services.chat, MINA, "오늘은 뭘 먹을까요", domain="general")
        assert "한국어를 거의 하지 못해요" in only(first, Noticed).text
        chat = conversation_of(first)
        _, messages = await services.chat.conversation(MINA, chat)
        assert messages[1].answer.notice == only(first, Noticed).text
        second = await ask(services.chat, MINA, "내일은 뭘 먹을까요", conversation_id=chat)
        assert not [event for event in second if isinstance(event, Noticed)]
        assert not [event for event in await ask(services.chat, MINA, "What now?") if isinstance(event, Noticed)]


async def test_each_message_is_routed_and_a_choice_holds(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedEngine(adapters=["helper"])) as services:
        chat = services.chat
        first = await ask(chat, MINA, "Hi!")
        conversation = conversation_of(first)
        assert only(first, Routed).decision.how == "fallback"
        second = await ask(chat, MINA, "Where is my parcel?", conversation_id=conversation)
        assert (only(second, Routed).decision.domain, only(second, Routed).decision.how) == ("support", "similar")
        third = await ask(chat, MINA, "Thanks!", conversation_id=conversation)
        assert (only(third, Routed).decision.domain, only(third, Routed).decision.how) == ("support", "sticky")
        fourth = await ask(chat, MINA, "Where is my parcel?", conversation_id=conversation, domain="general")
        assert (only(fourth, Routed).decision.domain, only(fourth, Routed).decision.how) == ("general", "chosen")
        fifth = await ask(chat, MINA, "Thanks!", conversation_id=conversation, domain=Unchanged.DOMAIN)
        assert only(fifth, Routed).decision.how == "chosen"
        sixth = await ask(chat, MINA, "Thanks!", conversation_id=conversation, domain=None)
        assert (only(sixth, Routed).decision.domain, only(sixth, Routed).decision.how) == ("general", "fallback")
        with pytest.raises(NotFound, match="nowhere"):
            await chat.send(MINA, "Hi", conversation_id=conversation, domain="nowhere")


async def test_regenerate_and_edit_make_branches(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        chat = services.chat
        first = await ask(chat, MINA, "One")
        conversation = conversation_of(first)
        stream = await chat.regenerate(MINA, first[0].message_id)
        again = [event async for event in stream.follow()]
        assert again[0].user_message_id == first[0].user_message_id  # type: ignore[union-attr]
        await ask(chat, MINA, "One, edited", conversation_id=conversation, parent_id=None)
        _, messages = await chat.conversation(MINA, conversation)
        roots = [message for message in messages if message.parent_id is None]
        assert [message.text for message in roots] == ["One", "One, edited"]
        assert sum(message.parent_id == roots[0].id for message in messages) == 2


async def test_stop_frees_the_engine_and_keeps_the_text(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request, prompt: "word " * 40_000, pause=0.01)
    async with running(tmp_path, engine) as services:
        stream = await services.chat.send(MINA, "Talk")
        events: list[TurnEvent] = []
        async for event in stream.follow():
            events.append(event)
            if event.type == "token" and sum(e.type == "token" for e in events) == 3:
                await services.chat.stop(MINA, stream.message_id)
        assert only(events, Done).finish_reason == "cancelled"
        assert engine.cancelled == 1
        message = services.chat.store.message(MINA, stream.message_id)
        assert message.status == "stopped"
        assert 3 <= message.text.count("word") < 4_000
        with pytest.raises(Conflict, match="not running"):
            await services.chat.stop(MINA, stream.message_id)
        with pytest.raises(NotFound):
            await services.chat.stop(JUN, stream.message_id)


async def test_an_answer_that_is_stopped_again_and_again_is_stored_all_the_same(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request, prompt: "word " * 40_000, pause=0.01)
    async with running(tmp_path, engine) as services:
        stream = await services.chat.send(MINA, "Talk")
        await asyncio.gather(*(services.chat.stop(MINA, stream.message_id) for _ in range(20)), return_exceptions=True)
        events = [event async for event in stream.follow()]
        assert only(events, Done).finish_reason == "cancelled"
        assert services.chat.store.message(MINA, stream.message_id).status == "stopped"


async def test_an_answer_is_finished_though_nobody_watches(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedEngine(lambda r, p: "a b c d e", pause=0.01)) as services:
        stream = await services.chat.send(MINA, "Go on")
        while services.chat.store.message(MINA, stream.message_id).status == "streaming":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert services.chat.store.message(MINA, stream.message_id).text == "a b c d e"
        seen = [event.seq async for event in stream.follow(2)]
        assert seen[0] == 3


async def test_a_crash_loses_little_of_a_running_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored while it is written; and a failure to store it takes no answer down."""
    from server.chat import service

    monkeypatch.setattr(service, "SAVE_INTERVAL_SECONDS", 0.02)
    engine = ScriptedEngine(lambda request, prompt: "word " * 40_000, pause=0.01)
    async with running(tmp_path, engine) as services:
        store = services.chat.store
        keep, failures = store.save_partial_answers, [OSError("no disk")]

        def once_broken(answers: Any) -> None:
            if failures:
                raise failures.pop()
            keep(answers)

        monkeypatch.setattr(store, "save_partial_answers", once_broken)
        stream = await services.chat.send(MINA, "Talk")
        async with asyncio.timeout(60):
            while "word" not in (message := store.message(MINA, stream.message_id)).text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert message.status == "streaming"
        assert message.answer is not None
        assert message.answer.domain
        assert not failures


async def test_a_closing_server_keeps_what_was_written(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request, prompt: "word " * 40_000, pause=0.01)
    async with running(tmp_path, engine) as services:
        stream = await services.chat.send(MINA, "Talk")
        async for event in stream.follow():
            if event.type == "token":
                break
    async with running(tmp_path) as services:
        message = services.chat.store.message(MINA, stream.message_id)
        assert message.status == "interrupted"
        assert message.text.startswith("word")


async def test_a_failing_engine_fails_the_turn_alone(tmp_path: Path) -> None:
    def script(request: GenerationRequest, prompt: str) -> str:
        if "boom" in prompt:
            raise EngineDown("the model thread failed; it restarts")
        if "bug" in prompt:
            raise ZeroDivisionError
        return "Fine."

    async with running(tmp_path, ScriptedEngine(script)) as services:
        failed = only(await ask(services.chat, MINA, "boom"), Failed)
        assert (failed.code, failed.message) == ("engine_down", "the model thread failed; it restarts")
        hidden = only(await ask(services.chat, MINA, "bug"), Failed)
        assert hidden.code == "internal"
        assert "Zero" not in hidden.message
        assert only(await ask(services.chat, MINA, "hello"), Done)


async def test_a_missing_adapter_is_named(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedEngine()) as services:
        failed = only(await ask(services.chat, MINA, "Hi", domain="support"), Failed)
        assert failed.code == "adapter_not_found"
        assert "helper" in failed.message


async def test_an_adapter_of_another_base_is_left_out_and_the_user_told(tmp_path: Path) -> None:
    engine = ScriptedEngine(foreign=["helper"])
    async with running(tmp_path, engine) as services:
        events = await ask(services.chat, MINA, "Hi", domain="support")
        assert "another base" in only(events, Noticed).text
        assert only(events, Done)
        assert engine.requests[-1].adapter is None
        answer = services.chat.store.message(MINA, events[0].message_id).answer
        assert answer is not None
        assert (answer.adapter, answer.notice) == (None, only(events, Noticed).text)


@pytest.mark.parametrize("text", ["", "  \n", "\ud800", "a\0b"])
async def test_texts_that_cannot_be_stored_are_refused(tmp_path: Path, text: str) -> None:
    async with running(tmp_path) as services:
        with pytest.raises(InvalidInput):
            await services.chat.send(MINA, text)
        assert services.chat.store.list(MINA) == ()


async def test_a_full_context_is_told_and_the_question_kept(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedEngine(context_length=1200)) as services:
        events = await ask(services.chat, MINA, "long " * 1000)
        assert only(events, Failed).code == "context_full"
        conversation = conversation_of(events)
        _, messages = await services.chat.conversation(MINA, conversation)
        assert [message.status for message in messages] == ["complete", "failed"]
        assert only(await ask(services.chat, MINA, "short", conversation_id=conversation), Done)


async def test_a_long_chat_is_compacted_rarely_and_keeps_its_system_text(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request, prompt: "answer " * 20, context_length=4000)
    async with running(tmp_path, engine) as services:
        events = await ask(services.chat, MINA, "Begin", domain="general")
        conversation = conversation_of(events)
        for n in range(40):
            events = await ask(services.chat, MINA, f"Question {n} " + "x" * 60, conversation_id=conversation)
            assert only(events, Done)
    prompts = [request.prompt for request in engine.requests]
    assert all(len(prompt) <= 4000 for prompt in prompts)
    assert all("helpful assistant" in engine.tokenizer.decode(prompt) for prompt in prompts)
    rewrites = sum(b[: len(a)] != a for a, b in itertools.pairwise(prompts))
    assert 1 <= rewrites <= 6


async def test_deleting_a_conversation_stops_its_answer(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request, prompt: "word " * 40_000, pause=0.01)
    async with running(tmp_path, engine) as services:
        stream = await services.chat.send(MINA, "Talk")
        started = [event async for event in _first(stream)]
        await services.chat.delete(MINA, conversation_of(started))
        assert services.chat.store.list(MINA) == ()
        assert engine.cancelled <= 1
        with pytest.raises(NotFound):
            services.chat.store.message(MINA, stream.message_id)


async def _first(stream: Any) -> AsyncIterator[TurnEvent]:
    async for event in stream.follow():
        yield event
        return


async def test_a_parent_of_another_conversation_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        first = await ask(services.chat, MINA, "One")
        second = await ask(services.chat, MINA, "Two")
        chat = conversation_of(first)
        before = await services.chat.conversation(MINA, chat)
        with pytest.raises(InvalidInput, match="not in conversation"):
            await services.chat.send(MINA, "x", conversation_id=chat, parent_id=second[0].message_id, domain="support")
        assert await services.chat.conversation(MINA, chat) == before, "a refused question leaves nothing behind"


async def test_a_schema_reaches_the_engine_and_an_edit_takes_effect(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda request, prompt: '{"risk": "high"}')
    async with running(tmp_path, engine) as services:
        schema = {"type": "object", "properties": {"risk": {"type": "string"}}, "required": ["risk"]}
        path = tmp_path / "prompts" / "risk.md"
        path.write_text(f"---\ntitle: Risk\noutput: {json.dumps(schema)}\n---\nYou rate risks.\n")
        await ask(services.chat, MINA, "Rate this", domain="risk")
        constraint = engine.requests[-1].constraint
        assert constraint is not None
        assert json.loads(constraint.source).items() >= schema.items()
        path.write_text("---\ntitle: Risk\n---\nYou rate risks kindly.\n")
        await ask(services.chat, MINA, "Rate this", domain="risk")
        assert engine.requests[-1].constraint is None
        assert "kindly" in engine.tokenizer.decode(engine.requests[-1].prompt)
        path.write_text("---\ntitle: [\n---\nbroken\n")
        await ask(services.chat, MINA, "Rate this", domain="risk")
        assert "kindly" in engine.tokenizer.decode(engine.requests[-1].prompt)
        assert services.domains.for_user(UserId("local")).problems()[0].file.endswith("risk.md")


async def test_a_domains_sampling_reaches_the_engine(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        (tmp_path / "prompts" / "cold.md").write_text(
            "---\ntitle: Cold\nsampling: {temperature: 0, max_tokens: 7}\n---\nBe brief.\n"
        )
        await ask(services.chat, MINA, "Hi", domain="cold")
    sampling = engine.requests[-1].sampling
    assert (sampling.temperature, sampling.max_tokens) == (0, 7)

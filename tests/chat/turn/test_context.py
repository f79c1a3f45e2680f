from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from server.chat import EnabledMemory, gather_context, redact_inaccessible
from server.config import MemorySettings, RetrievalSettings
from server.database import Database
from server.memory import MemoryStore
from server.prompting import AdapterWhen, Domain, Grounding, PromptLibrary
from server.retrieval import LOCAL_USER, Access, KnowledgeBase, SharedKnowledge
from server.types import HistoryTurn, Passage, RouteDecision, RouteHow, TurnContext, UserId
from tests.fakes import WordEmbedder
from tests.live import make_workspace

ANN = UserId("ann")
QUESTION = "Within how many days can I return a lamp?"


@pytest.fixture
async def components(tmp_path: Path):
    folder = make_workspace(tmp_path)
    (folder / "prompts" / "forgetful.md").write_text("---\ntitle: F\ndescription: d\nmemory: false\n---\nAnswer.")
    embedder = WordEmbedder()
    settings = RetrievalSettings(min_likelihood=0.1)
    knowledge = KnowledgeBase(folder / "knowledge", tmp_path / "index", embedder, settings)
    await knowledge.start()
    await asyncio.to_thread(knowledge.sync)
    memory = MemoryStore(Database(tmp_path / "tailor.db"), embedder, MemorySettings())
    memory.of(ANN).learn("Please call me Ann.", conversation_id=None, message_id=None)
    names = {ANN: frozenset({"ann"}), UserId("bob"): frozenset({"bob"})}
    access = Access(folder / "knowledge", tmp_path / "access.json", lambda user: names.get(user, frozenset()))
    yield PromptLibrary(folder / "prompts", "general"), memory, SharedKnowledge(knowledge, access)
    await knowledge.close()


def enabled_memory(user: UserId, memory: MemoryStore) -> EnabledMemory:
    return EnabledMemory(user, memory.of(user))


async def test_a_domain_gets_the_levers_it_names(components) -> None:
    library, memory, knowledge = components
    general = await gather_context(
        QUESTION, library.get("general"), enabled_memory(ANN, memory), knowledge.for_user(ANN)
    )
    assert general.search_result is None
    assert not general.context.searched
    assert general.profile.name == "Ann"
    support = await gather_context(
        QUESTION, library.get("support"), enabled_memory(ANN, memory), knowledge.for_user(ANN)
    )
    assert support.context.searched
    assert "45 days" in support.context.passages[0].text
    assert support.search_result.folders == ("support",)
    assert support.context.memories == general.context.memories != ()
    forgetful = await gather_context(
        QUESTION, library.get("forgetful"), enabled_memory(ANN, memory), knowledge.for_user(ANN)
    )
    assert (forgetful.context.memories, forgetful.profile.name, forgetful.search_result) == ((), "", None)
    assert general.context.nonce != support.context.nonce


async def test_files_that_are_still_being_read_count_as_searched(components, tmp_path: Path) -> None:
    """Where a domain promises its sources, the user is told that nothing was found, and why."""
    library, memory, _ = components
    strict = replace(library.get("support"), grounding=Grounding.STRICT)
    base = KnowledgeBase(tmp_path / "files", tmp_path / "first", WordEmbedder(), RetrievalSettings(min_likelihood=0.1))
    base.open()  # nothing is indexed yet
    view = SharedKnowledge(
        base,
        Access(tmp_path / "files", tmp_path / "first.json", lambda user: frozenset({"ann"} if user == ANN else ())),
    ).for_user(ANN)
    for file, searched in ((None, False), ("lamps.md", True)):
        if file:
            base.save("support", file, b"A lamp can be returned within 45 days.")
        given = await gather_context(QUESTION, strict, enabled_memory(ANN, memory), view)
        assert (given.context.searched, given.context.unread, given.context.passages) == (searched, int(searched), ())
        assert bool(given.refusal) is searched
    await asyncio.to_thread(base.sync)
    given = await gather_context(QUESTION, library.get("support"), enabled_memory(ANN, memory), view)
    assert (given.context.searched, given.context.unread, len(given.context.passages)) == (True, 0, 1)
    await base.close()


NOT_THERE = "Which marathon did zebras win in Norway?"
ROUTED = RouteDecision("support", RouteHow.SIMILAR, 0.9, 0.6)


@pytest.mark.parametrize(
    ("change", "question", "route", "searched", "refusal"),
    [
        ({}, NOT_THERE, ROUTED, False, ""),  # the model answers as in any chat
        ({"grounding": Grounding.STRICT}, NOT_THERE, ROUTED, True, "I found nothing about this. I searched: support."),
        ({"grounding": Grounding.STRICT}, NOT_THERE, None, True, "I found nothing about this. I searched: support."),
        ({"grounding": Grounding.STRICT}, "얼룩말은 노르웨이에서 뭘 했나요?", ROUTED, True,
         "이에 대한 내용을 찾지 못했어요. 찾아본 곳: support."),
        ({"grounding": Grounding.STRICT, "refusal": "Ask Jo."}, NOT_THERE, ROUTED, True, "Ask Jo."),
        ({"grounding": Grounding.STRICT, "output": "{}"}, NOT_THERE, ROUTED, True, ""),  # the model says it, in JSON
        ({"grounding": Grounding.STRICT}, NOT_THERE, replace(ROUTED, belongs=False), False, ""),
        ({"grounding": Grounding.STRICT}, "Thank you!", ROUTED, False, ""),
        ({"grounding": Grounding.STRICT}, QUESTION, ROUTED, True, ""),  # found
        ({"grounding": Grounding.STRICT, "knowledge": ("gone",)}, NOT_THERE, ROUTED, False, ""),
    ],
)  # fmt: skip
async def test_only_a_question_for_promised_sources_is_told_that_they_hold_nothing(
    components, change, question: str, route: RouteDecision | None, searched: bool, refusal: str
) -> None:
    library, memory, knowledge = components
    domain = replace(library.get("support"), **change)
    memories, view = enabled_memory(ANN, memory), knowledge.for_user(ANN)
    gathered = await gather_context(question, domain, memories, view, route=route)
    assert (gathered.context.searched, gathered.refusal) == (searched, refusal)


def test_an_adapter_for_sources_answers_only_beside_them() -> None:
    domain = Domain("d", "D", "", "b", adapter="grounded", adapter_when=AdapterWhen.SOURCES)
    assert domain.adapter_for(TurnContext(searched=True)) == "grounded"
    assert domain.adapter_for(TurnContext()) is None
    assert replace(domain, adapter_when=AdapterWhen.ALWAYS).adapter_for(TurnContext()) == "grounded"


async def test_what_the_prompt_shows_already_is_not_recalled_again(components) -> None:
    library, memory, knowledge = components
    first = await gather_context(QUESTION, library.get("general"), enabled_memory(ANN, memory), knowledge.for_user(ANN))
    assert first.context.memories
    again = await gather_context(
        QUESTION,
        library.get("general"),
        enabled_memory(ANN, memory),
        knowledge.for_user(ANN),
        exclude_memories=[each.id for each in first.context.memories],
    )
    assert again.context.memories == ()


async def test_another_user_gets_nothing_of_it(components) -> None:
    library, memory, knowledge = components
    bob = UserId("bob")
    other = await gather_context(QUESTION, library.get("general"), enabled_memory(bob, memory), knowledge.for_user(bob))
    assert other.context.memories == ()
    assert other.profile.name == ""


async def test_a_folder_that_the_user_may_not_see_is_not_searched(components, tmp_path: Path) -> None:
    library, memory, knowledge = components
    (tmp_path / "knowledge" / "support" / ".users").write_text("ann\n")
    for user, sees in ((ANN, True), (UserId("bob"), False), (UserId("nobody"), False), (LOCAL_USER, True)):
        given = await gather_context(
            QUESTION, library.get("support"), enabled_memory(user, memory), knowledge.for_user(user)
        )
        assert given.context.searched is sees
        assert bool(given.context.passages) is sees
        assert given.search_result.folders == (("support",) if sees else ())
        assert bool(given.search_result.trace.candidates) is sees


async def test_what_may_not_be_seen_any_more_is_emptied_in_old_turns(components, tmp_path: Path) -> None:
    library, memory, knowledge = components
    gathered = await gather_context(
        QUESTION, library.get("support"), enabled_memory(ANN, memory), knowledge.for_user(ANN)
    )
    other = Passage("x", "elsewhere", "x.md", "Something else.")
    (tmp_path / "knowledge" / "elsewhere").mkdir()
    context = replace(gathered.context, passages=(*gathered.context.passages, other))
    history = (HistoryTurn(QUESTION, context, "45 days [1]."), HistoryTurn("Hi", TurnContext(), "Hello."))
    assert redact_inaccessible(history, knowledge.for_user(ANN)) == history
    (tmp_path / "knowledge" / "support" / ".users").write_text("ann\n")
    first, second = redact_inaccessible(history, knowledge.for_user(UserId("bob")))
    assert first.context.passages[-1] == other
    assert {one.text for one in first.context.passages[:-1]} == {""}
    assert len(first.context.passages) == len(context.passages)
    assert second == history[1]
    assert redact_inaccessible(history, knowledge.for_user(ANN)) == history

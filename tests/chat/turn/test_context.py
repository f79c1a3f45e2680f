from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from server.chat import RememberingChat, gather, still_allowed
from server.config import MemorySettings, RetrievalSettings
from server.database import Database
from server.memory import MemoryStore
from server.prompting import PromptLibrary
from server.retrieval import LOCAL_USER, Access, KnowledgeBase, SharedKnowledge
from server.types import HistoryTurn, Passage, TurnContext, UserId
from tests.fakes import WordEmbedder
from tests.live import make_workspace

ANN = UserId("ann")
QUESTION = "Within how many days can I return a lamp?"


@pytest.fixture
async def parts(tmp_path: Path):
    folder = make_workspace(tmp_path)
    (folder / "prompts" / "forgetful.md").write_text("---\ntitle: F\ndescription: d\nmemory: false\n---\nAnswer.")
    embedder = WordEmbedder()
    settings = RetrievalSettings(min_similarity=0.1, min_coverage=0.1)
    knowledge = KnowledgeBase(folder / "knowledge", tmp_path / "index", embedder, settings)
    await knowledge.start()
    await asyncio.to_thread(knowledge.sync)
    memory = MemoryStore(Database(tmp_path / "tailor.db"), embedder, MemorySettings())
    memory.of(ANN).learn("Please call me Ann.", conversation_id=None, message_id=None)
    names = {ANN: "ann", UserId("bob"): "bob"}
    access = Access(folder / "knowledge", tmp_path / "access.json", names.get)
    yield PromptLibrary(folder / "prompts", "general"), memory, SharedKnowledge(knowledge, access)
    await knowledge.close()


def remembering(user: UserId, memory: MemoryStore) -> RememberingChat:
    return RememberingChat(user, memory.of(user))


async def test_a_domain_gets_the_levers_it_names(parts) -> None:
    library, memory, knowledge = parts
    general = await gather(QUESTION, library.get("general"), remembering(ANN, memory), knowledge.for_user(ANN))
    assert general.found is None
    assert not general.context.searched
    assert general.profile.name == "Ann"
    support = await gather(QUESTION, library.get("support"), remembering(ANN, memory), knowledge.for_user(ANN))
    assert support.context.searched
    assert "45 days" in support.context.passages[0].text
    assert support.found.folders == ("support",)
    assert support.context.memories == general.context.memories != ()
    forgetful = await gather(QUESTION, library.get("forgetful"), remembering(ANN, memory), knowledge.for_user(ANN))
    assert (forgetful.context.memories, forgetful.profile.name, forgetful.found) == ((), "", None)
    assert general.context.nonce != support.context.nonce


async def test_files_that_are_still_being_read_count_as_searched(parts, tmp_path: Path) -> None:
    """The model is told that nothing was found, rather than left to make an answer up; and the user, why."""
    library, memory, _ = parts
    base = KnowledgeBase(tmp_path / "files", tmp_path / "first", WordEmbedder(), RetrievalSettings(min_similarity=0.1))
    base.open()  # nothing is indexed yet
    view = SharedKnowledge(base, Access(tmp_path / "files", tmp_path / "first.json", {ANN: "ann"}.get)).for_user(ANN)
    for file, searched in ((None, False), ("lamps.md", True)):
        if file:
            base.save("support", file, b"A lamp can be returned within 45 days.")
        given = await gather(QUESTION, library.get("support"), remembering(ANN, memory), view)
        assert (given.context.searched, given.context.unread, given.context.passages) == (searched, int(searched), ())
    await asyncio.to_thread(base.sync)
    given = await gather(QUESTION, library.get("support"), remembering(ANN, memory), view)
    assert (given.context.searched, given.context.unread, len(given.context.passages)) == (True, 0, 1)
    await base.close()


async def test_what_the_prompt_shows_already_is_not_recalled_again(parts) -> None:
    library, memory, knowledge = parts
    first = await gather(QUESTION, library.get("general"), remembering(ANN, memory), knowledge.for_user(ANN))
    assert first.context.memories
    again = await gather(QUESTION, library.get("general"), remembering(ANN, memory), knowledge.for_user(ANN),
                         shown=[held.id for held in first.context.memories])
    assert again.context.memories == ()


async def test_another_user_gets_nothing_of_it(parts) -> None:
    library, memory, knowledge = parts
    bob = UserId("bob")
    other = await gather(QUESTION, library.get("general"), remembering(bob, memory), knowledge.for_user(bob))
    assert other.context.memories == ()
    assert other.profile.name == ""


async def test_a_folder_that_the_user_may_not_see_is_not_searched(parts, tmp_path: Path) -> None:
    library, memory, knowledge = parts
    (tmp_path / "knowledge" / "support" / ".users").write_text("ann\n")
    for user, sees in ((ANN, True), (UserId("bob"), False), (UserId("nobody"), False), (LOCAL_USER, True)):
        given = await gather(QUESTION, library.get("support"), remembering(user, memory), knowledge.for_user(user))
        assert given.context.searched is sees
        assert bool(given.context.passages) is sees
        assert given.found.folders == (("support",) if sees else ())
        assert bool(given.found.trace.candidates) is sees


async def test_what_may_not_be_seen_any_more_is_emptied_in_old_turns(parts, tmp_path: Path) -> None:
    library, memory, knowledge = parts
    given = await gather(QUESTION, library.get("support"), remembering(ANN, memory), knowledge.for_user(ANN))
    context = given.context
    other = Passage("x", "elsewhere", "x.md", "Something else.")
    (tmp_path / "knowledge" / "elsewhere").mkdir()
    context = replace(context, passages=(*context.passages, other))
    history = (HistoryTurn(QUESTION, context, "45 days [1]."), HistoryTurn("Hi", TurnContext(), "Hello."))
    assert still_allowed(history, knowledge.for_user(ANN)) == history
    (tmp_path / "knowledge" / "support" / ".users").write_text("ann\n")
    first, second = still_allowed(history, knowledge.for_user(UserId("bob")))
    assert first.context.passages[-1] == other
    assert {one.text for one in first.context.passages[:-1]} == {""}
    assert len(first.context.passages) == len(context.passages)
    assert second == history[1]
    assert still_allowed(history, knowledge.for_user(ANN)) == history

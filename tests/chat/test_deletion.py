"""Every way to delete, in every order: what should be gone is in no byte of the data folder, and the rest is there."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server.api.services import Services
from server.chat import DeletionReceipt
from server.errors import NotFound
from server.types import GenerationRequest, Memory
from tests.chat.conversations.test_past_chats import wait_until_indexed
from tests.chat.memory_commands.test_access import answer_text
from tests.chat.test_service import JUN, MINA, ask, conversation_of, running
from tests.fakes import ScriptedEngine
from tests.remains import remaining
from tests.tiers import cases

STAYS = ("zetazoid", "thetazoid", "omegazoid")
"""Said in other words; left of the message that said a memory; another user's."""


def echo(request: GenerationRequest, prompt: str) -> str:
    """A model that repeats what it was told, and what it remembers."""
    asked = prompt.rpartition("user\n")[2].partition("assistant\n")[0]
    return f"So you say: {asked.rpartition('Question: ')[2].strip()}"


@dataclass
class Workspace:
    services: Services
    memories: dict[str, Memory] = field(default_factory=dict)
    chats: dict[str, str] = field(default_factory=dict)

    async def say(self, chat: str, *texts: str, temporary: bool = False, domain: str = "general") -> None:
        for text in texts:
            place = {"conversation_id": self.chats[chat]} if chat in self.chats else {"temporary": temporary}
            events = await ask(self.services.chat, MINA, text, domain=domain, **place)
            self.chats[chat] = conversation_of(events)


async def furnish(services: Services) -> Workspace:
    """Chats that say, repeat, list and quote what is to be deleted."""
    space = Workspace(services)
    await space.say(
        "alpha", "I like alphazoid tea. The thetazoid weather is fine.", "Go on.", "And I like alphazoid tea."
    )
    await space.say("beta", "I'm allergic to betazoid nuts.", "What do you know about me?", "Anything else?")
    await space.say("gamma", "For the gammazoid shop we decided to paint the door green.")
    await space.say("delta", "My name is Deltazoid.", "Who am I?")
    await space.say(
        "search", "I like alphazoid tea. Within how many days of delivery can I return a lamp?", domain="support"
    )
    await space.say("mention", "Those who are allergic avoid nuts, says the zetazoid.")
    await wait_until_indexed(services)
    await space.say(
        "quote", "What did we decide about the door of the shop?", "What did I say about nuts and tea?", "So?"
    )
    await space.say("temporary", "I like epsizoid coffee.", temporary=True)
    await ask(services.chat, JUN, "I like omegazoid tea.", domain="general")
    await wait_until_indexed(services)
    space.memories = {one.text: one for one in services.memory.of(MINA).list()}
    return space


async def in_the_panel(space: Workspace) -> None:
    memory = next(one for text, one in space.memories.items() if "alphazoid" in text)
    try:
        receipt = await space.services.chat.memory_deletion.delete(MINA, memory.id)
        assert receipt.cleaned.messages >= 2
    except NotFound:
        assert not space.services.memory.of(MINA).list()  # all were erased before


async def in_words(space: Workspace) -> None:
    events = await ask(space.services.chat, MINA, "Forget that I'm allergic to betazoid nuts", domain="general")
    text = answer_text(events)
    assert ("other message" in text and "mention" in text) or "nothing like that" in text


async def everything(space: Workspace) -> None:
    await space.services.chat.memory_deletion.erase(MINA)
    assert await space.services.chat.search(MINA, "door nuts tea") == ()


async def a_chat(space: Workspace) -> None:
    await space.services.chat.delete(MINA, space.chats["gamma"])


async def a_chat_with_its_memories(space: Workspace) -> None:
    receipt = await space.services.chat.delete(MINA, space.chats["delta"], forget=True)
    assert isinstance(receipt, DeletionReceipt)


async def a_temporary_chat(space: Workspace) -> None:
    space.services.chat._temporary._used.clear()
    await space.services.chat.delete_old_temporary()


COMMANDS: dict[Callable[[Workspace], Awaitable[None]], set[str]] = {
    in_the_panel: {"alphazoid"},
    in_words: {"betazoid"},
    a_chat: {"gammazoid"},
    a_chat_with_its_memories: {"deltazoid"},
    everything: {"alphazoid", "betazoid", "deltazoid"},
    a_temporary_chat: {"epsizoid"},
}
ORDERS = list(itertools.permutations(COMMANDS))
CHOSEN = random.Random(5).sample(ORDERS, cases(5, 60))


@pytest.mark.parametrize("order", CHOSEN, ids=lambda order: "-".join(one.__name__ for one in order))
async def test_what_is_deleted_is_in_no_byte_whatever_came_before(
    tmp_path: Path, order: tuple[Callable[[Workspace], Awaitable[None]], ...]
) -> None:
    data = tmp_path / "data"
    async with running(tmp_path, ScriptedEngine(echo, adapters=["helper"])) as services:
        space = await furnish(services)
        gone: set[str] = set()
        every = set().union(*COMMANDS.values(), STAYS)
        assert remaining(data, every) == every
        for command in order:
            await command(space)
            gone |= COMMANDS[command]
            assert remaining(data, gone) == set(), command.__name__
            assert remaining(data, STAYS) == set(STAYS), command.__name__
        await space.say("mention", "And then?")
        await wait_until_indexed(services)
        assert remaining(data, gone) == set(), "a later turn brought it back"
    assert remaining(data, gone) == set(), "after the server has ended"
    assert remaining(data, STAYS) == set(STAYS)


# ── what a deletion leaves of a message, a title, the search ─────────────────────────────────────


async def test_only_the_sentence_that_said_it_goes_and_the_chat_goes_on(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with running(tmp_path, engine) as services:
        first = await ask(services.chat, MINA, "I like alphazoid tea. How are you?", domain="general")
        chat_id = conversation_of(first)
        told = await ask(services.chat, MINA, "Forget that I like alphazoid tea.", conversation_id=chat_id)
        _, messages = await services.chat.conversation(MINA, chat_id)
        assert [one.text for one in messages if one.role == "user"] == ["… How are you?", "Forget that …"]
        assert services.chat.store.get(MINA, chat_id).title == "… How are you?"
        assert "1 memory for good" in answer_text(told)
        await ask(services.chat, MINA, "And now?", conversation_id=chat_id)
        prompt = engine.tokenizer.decode(engine.requests[-1].prompt)
        assert "alphazoid" not in prompt
        assert "… How are you?" in prompt
        revision = services.chat.store.get(MINA, chat_id).revision
        assert revision > len(messages)  # an open page sees that it has to fetch them again


@pytest.mark.parametrize(
    ("said", "command", "left"),
    [
        ("땅콩 알레르기가 있어요. 오늘 날씨 어때요?", "내가 땅콩 알레르기가 있다는 거 잊어 줘", "… 오늘 날씨 어때요?"),
        ("My name is Zebedee.", "forget my name", "…"),
    ],
)
async def test_the_message_and_a_title_made_of_it_lose_their_words(
    tmp_path: Path, said: str, command: str, left: str
) -> None:
    async with running(tmp_path) as services:
        events = await ask(services.chat, MINA, said, domain="general")
        await ask(services.chat, MINA, command, domain="general")
        conversation, messages = await services.chat.conversation(MINA, conversation_of(events))
        assert (messages[0].text, conversation.title) == (left, left if left != "…" else "")
        assert services.memory.of(MINA).list(past=True) == ()
        assert said not in str([one.title for one in services.chat.store.list(MINA)])


async def test_an_undone_memory_leaves_the_message_that_said_it(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        events = await ask(services.chat, MINA, "I like alphazoid tea.", domain="general")
        (memory,) = services.memory.of(MINA).list()
        await services.chat.memory_deletion.delete(MINA, memory.id, keep_words=True)
        _, messages = await services.chat.conversation(MINA, conversation_of(events))
        assert messages[0].text == "I like alphazoid tea."


async def test_the_receipt_names_the_chats_that_still_mention_it(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        await ask(services.chat, MINA, "I'm allergic to betazoid nuts.", domain="general")
        other = await ask(services.chat, MINA, "Betazoid nuts make people allergic.", domain="general")
        await ask(services.chat, MINA, "Are planes noisy?", domain="general")
        (memory,) = services.memory.of(MINA).list()
        receipt = await services.chat.memory_deletion.delete(MINA, memory.id)
        (mention,) = receipt.mentions
        assert (mention.conversation_id, mention.messages) == (conversation_of(other), 1)
        assert mention.title == "Betazoid nuts make people allergic."
        assert (receipt.cleaned.messages, receipt.cleaned.titles, receipt.pending) == (1, 1, False)


async def test_what_is_left_of_a_redacted_message_is_still_found(tmp_path: Path) -> None:
    async with running(tmp_path) as services:
        await ask(services.chat, MINA, "I like alphazoid tea. The thetazoid comet is bright.", domain="general")
        await wait_until_indexed(services)
        (memory,) = services.memory.of(MINA).list()
        await services.chat.memory_deletion.delete(MINA, memory.id)
        assert await services.chat.search(MINA, "alphazoid") == ()
        (found, *_) = await services.chat.search(MINA, "thetazoid")
        assert found.text == "… The thetazoid comet is bright."


async def test_what_is_deleted_while_answers_run_is_stored_by_none(tmp_path: Path) -> None:
    engine = ScriptedEngine(echo, adapters=["helper"])
    async with running(tmp_path, engine) as services:
        space = await furnish(services)
        engine.pause = 0.05
        streams = [
            await services.chat.send(MINA, text, conversation_id=space.chats[chat])
            for chat, text in (("alpha", "Once more?"), ("beta", "Really?"), ("gamma", "Why green?"))
        ]
        async for event in streams[0].follow():
            if event.type == "token":
                break
        for command in (in_the_panel, in_words, a_chat):
            await command(space)
        gone = {"alphazoid", "betazoid", "gammazoid"}
        assert remaining(tmp_path / "data", gone) == set(), "while they run"
        for stream in streams:
            assert [event async for event in stream.follow()][-1].type == "closed"
        assert remaining(tmp_path / "data", gone) == set(), "after they ended"
        await services.chat.stop_all(MINA)  # their tasks end after their streams
        assert not services.chat.store._late

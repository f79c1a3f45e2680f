"""What a chat may do with memory. Two kinds of chat have two types: only `RememberingChat` holds a way to memory.

A turn is given one of them and knows no other way: for a temporary chat, and for a domain without memory, there is
nothing that could be recalled, told, forgotten or learned from. Blocking work is done in threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from server.chat.conversations.past_chats import PastChats
from server.chat.conversations.records import StoredMessage
from server.chat.conversations.redaction import Cleaned
from server.chat.events import HeldBackItem
from server.errors import NotFound
from server.memory import MemoryWriter, UserMemory, clean, extract_held_back
from server.prompting import Domain
from server.types import Memory, PastChatTurn, UserId


@dataclass(frozen=True, slots=True)
class Recalled:
    """What goes beside a question. `name` is what to call the user."""

    memories: tuple[Memory, ...] = ()
    chats: tuple[PastChatTurn, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of a question after its answer."""

    saved: tuple[Memory, ...] = ()
    held_back: tuple[HeldBackItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was deleted, as it was, and how much of it was found in stored chats."""

    memories: tuple[Memory, ...] = ()
    cleaned: Cleaned = field(default_factory=Cleaned)


class ChatMemory(Protocol):
    """The memory as a chat sees it. `why_not` says why there is none; '' where there is one."""

    @property
    def why_not(self) -> str: ...

    async def is_off(self, domain: str) -> bool:
        """The user wants no memory there."""

    async def known(self, ids: Collection[int]) -> dict[int, Memory]:
        """Those of `ids` that are still kept, the replaced included, for the history of the chat."""

    async def recall(
        self, question: str, *, shown: Collection[int] = (), read: Collection[str] = ()
    ) -> Recalled:
        """`shown` are memories, and `read` messages, that the prompt holds already."""

    async def told(self) -> tuple[tuple[Memory, ...], bool]:
        """Everything that holds now, and whether memory is paused."""

    async def forget(self, about: str) -> Receipt: ...

    async def erase(self) -> Receipt: ...

    async def learn(self, question: StoredMessage, used: Collection[int]) -> Learned:
        """After the answer: `used` are the memories that were in the prompt."""


class _NoMemory:
    """Holds nothing, so that nothing can be reached through it."""

    __slots__ = ()
    why_not: ClassVar[str]

    async def is_off(self, domain: str) -> bool:
        return False

    async def known(self, ids: Collection[int]) -> dict[int, Memory]:
        return {}

    async def recall(self, question: str, *, shown: Collection[int] = (), read: Collection[str] = ()) -> Recalled:
        return Recalled()

    async def told(self) -> tuple[tuple[Memory, ...], bool]:
        return (), False

    async def forget(self, about: str) -> Receipt:
        return Receipt()

    async def erase(self) -> Receipt:
        return Receipt()

    async def learn(self, question: StoredMessage, used: Collection[int]) -> Learned:
        return Learned()


class TemporaryChat(_NoMemory):
    """A chat that reaches no memory and that no memory reaches."""

    __slots__ = ()
    why_not = "temporary"


class DomainWithoutMemory(_NoMemory):
    """A turn of a domain that has `memory: false`."""

    __slots__ = ()
    why_not = "domain"


class SwitchedOff(_NoMemory):
    """A turn of a domain in which the user wants no memory."""

    __slots__ = ()
    why_not = "switched off"


async def in_domain(memory: ChatMemory, domain: Domain) -> ChatMemory:
    """What a turn of that domain is given of the chat's memory."""
    if memory.why_not:
        return memory
    if not domain.memory:
        return DomainWithoutMemory()
    return SwitchedOff() if await memory.is_off(domain.name) else memory


class RememberingChat:
    """The memories and past chats of one user. `forget` and `erase` also clean what is stored of chats."""

    why_not: ClassVar[str] = ""

    def __init__(
        self,
        user: UserId,
        memory: UserMemory,
        past: PastChats | None = None,
        writer: MemoryWriter | None = None,
        *,
        forget: Callable[[UserId, str], Awaitable[Receipt]] | None = None,
        erase: Callable[[UserId], Awaitable[Receipt]] | None = None,
    ) -> None:
        self._user = user
        self._memory = memory
        self._past = past
        self._writer = writer
        self._forget = forget
        self._erase = erase

    async def is_off(self, domain: str) -> bool:
        return domain in await asyncio.to_thread(lambda: self._memory.domains_off)

    async def known(self, ids: Collection[int]) -> dict[int, Memory]:
        return await asyncio.to_thread(self._known, ids) if ids else {}

    def _known(self, ids: Collection[int]) -> dict[int, Memory]:
        found = {}
        for memory_id in ids:
            with suppress(NotFound):
                found[memory_id] = self._memory.get(memory_id)
        return found

    async def recall(self, question: str, *, shown: Collection[int] = (), read: Collection[str] = ()) -> Recalled:
        return await asyncio.to_thread(self._recall, question, shown, read)

    def _recall(self, question: str, shown: Collection[int], read: Collection[str]) -> Recalled:
        now = time.time()
        memory = self._memory
        if memory.paused:
            return Recalled()
        chats = self._past.recall(self._user, question, now=now, exclude=read) if self._past is not None else ()
        return Recalled(memory.recall(question, exclude=shown, now=now), chats, memory.name())

    async def told(self) -> tuple[tuple[Memory, ...], bool]:
        return await asyncio.to_thread(lambda: (self._memory.current(), self._memory.paused))

    async def forget(self, about: str) -> Receipt:
        return await self._forget(self._user, about) if self._forget is not None else Receipt()

    async def erase(self) -> Receipt:
        return await self._erase(self._user) if self._erase is not None else Receipt()

    async def learn(self, question: StoredMessage, used: Collection[int]) -> Learned:
        return await asyncio.to_thread(self._learn, question, used)

    def _learn(self, question: StoredMessage, used: Collection[int]) -> Learned:
        memory, text = self._memory, question.text
        memory.mark_used(used)
        if memory.paused:
            return Learned()
        saved = memory.learn(
            text, conversation_id=question.conversation_id, message_id=question.id, at=question.created_at
        )
        held_back = extract_held_back(clean(text), question.created_at)
        kept = tuple(HeldBackItem(found.text, found.reason) for found in held_back)
        if self._writer is not None:
            self._writer.enqueue(self._user, question.conversation_id, question.id, text)
        return Learned(saved, kept)

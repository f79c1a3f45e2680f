"""What a chat may do with memory. Only `EnabledMemory` holds a reference to the stores; the disabled ones hold none.

A turn is given one of them and has no other access: for a temporary chat, and for a domain without memory, there is
nothing that could be recalled, listed, deleted or learned from. Blocking work is done in threads. Knows nothing of
how facts are found in a text.
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
from server.chat.conversations.redaction import RedactionCounts
from server.chat.conversations.redactor import Replacement
from server.chat.conversations.store import ConversationStore
from server.chat.events import HeldBackItem, Mention
from server.errors import NotFound
from server.memory import MemoryWriter, UserMemory, clean, extract_held_back
from server.prompting import Domain
from server.types import Memory, PastChatTurn, UserId


@dataclass(frozen=True, slots=True)
class RecallResult:
    """What is recalled for a question. `name` is what to call the user."""

    memories: tuple[Memory, ...] = ()
    chats: tuple[PastChatTurn, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class LearnResult:
    """What was extracted from a question after its answer."""

    saved: tuple[Memory, ...] = ()
    held_back: tuple[HeldBackItem, ...] = ()


@dataclass(frozen=True, slots=True)
class DeletionReceipt:
    """What was deleted, as it was, how much of what is stored of chats was redacted, and which chats still mention it
    in other words. `pending`: the database's log still has it until somebody who reads is done."""

    memories: tuple[Memory, ...] = ()
    cleaned: RedactionCounts = field(default_factory=RedactionCounts)
    mentions: tuple[Mention, ...] = ()
    pending: bool = False


class ChatMemory(Protocol):
    """The memory as a chat sees it. `disabled_reason` is '' where it is enabled."""

    @property
    def disabled_reason(self) -> str: ...

    async def is_off(self, domain: str) -> bool:
        """The user wants no memory there."""

    async def get_many(self, ids: Collection[int]) -> dict[int, Memory]:
        """Those of `ids` that are still stored, the replaced included, for the history of the chat."""

    async def recall(
        self, question: str, *, exclude_memories: Collection[int] = (), exclude_messages: Collection[str] = ()
    ) -> RecallResult:
        """`exclude_memories` and `exclude_messages` are ids of what the prompt contains already."""

    async def list_current(self) -> tuple[tuple[Memory, ...], bool]:
        """All current memories, and whether memory is paused."""

    async def forget(self, about: str, command: Replacement | None = None) -> DeletionReceipt:
        """`command`: the message that said so, and what it says from now on."""

    async def erase(self) -> DeletionReceipt: ...

    async def learn(self, question: StoredMessage, used: Collection[int]) -> LearnResult:
        """After the answer: `used` are the memories that were in the prompt."""


class _DisabledMemory:
    """A null object: holds no reference, so that nothing can be reached through it."""

    __slots__ = ()
    disabled_reason: ClassVar[str]

    async def is_off(self, domain: str) -> bool:
        return False

    async def get_many(self, ids: Collection[int]) -> dict[int, Memory]:
        return {}

    async def recall(
        self, question: str, *, exclude_memories: Collection[int] = (), exclude_messages: Collection[str] = ()
    ) -> RecallResult:
        return RecallResult()

    async def list_current(self) -> tuple[tuple[Memory, ...], bool]:
        return (), False

    async def forget(self, about: str, command: Replacement | None = None) -> DeletionReceipt:
        return DeletionReceipt()

    async def erase(self) -> DeletionReceipt:
        return DeletionReceipt()

    async def learn(self, question: StoredMessage, used: Collection[int]) -> LearnResult:
        return LearnResult()


class DisabledInTemporaryChat(_DisabledMemory):
    """A chat that reaches no memory and that no memory reaches."""

    __slots__ = ()
    disabled_reason = "temporary"


class DisabledByDomain(_DisabledMemory):
    """A turn of a domain that has `memory: false`."""

    __slots__ = ()
    disabled_reason = "domain"


class DisabledByUser(_DisabledMemory):
    """A turn of a domain in which the user wants no memory."""

    __slots__ = ()
    disabled_reason = "switched off"


async def memory_for_domain(memory: ChatMemory, domain: Domain) -> ChatMemory:
    """The chat's memory, as a turn of that domain may use it."""
    if memory.disabled_reason:
        return memory
    if not domain.memory:
        return DisabledByDomain()
    return DisabledByUser() if await memory.is_off(domain.name) else memory


class EnabledMemory:
    """The memories and past chats of one user. `forget` and `erase` also redact what is stored of chats."""

    disabled_reason: ClassVar[str] = ""

    def __init__(
        self,
        user: UserId,
        memory: UserMemory,
        past_chats: PastChats | None = None,
        writer: MemoryWriter | None = None,
        *,
        store: ConversationStore | None = None,
        forget: Callable[[UserId, str, Replacement | None], Awaitable[DeletionReceipt]] | None = None,
        erase: Callable[[UserId], Awaitable[DeletionReceipt]] | None = None,
    ) -> None:
        self._user = user
        self._memory = memory
        self._past_chats = past_chats
        self._writer = writer
        self._store = store
        self._forget = forget
        self._erase = erase

    async def is_off(self, domain: str) -> bool:
        return domain in await asyncio.to_thread(lambda: self._memory.domains_off)

    async def get_many(self, ids: Collection[int]) -> dict[int, Memory]:
        return await asyncio.to_thread(self._get_many, ids) if ids else {}

    def _get_many(self, ids: Collection[int]) -> dict[int, Memory]:
        found = {}
        for memory_id in ids:
            with suppress(NotFound):
                found[memory_id] = self._memory.get(memory_id)
        return found

    async def recall(
        self, question: str, *, exclude_memories: Collection[int] = (), exclude_messages: Collection[str] = ()
    ) -> RecallResult:
        return await asyncio.to_thread(self._recall, question, exclude_memories, exclude_messages)

    def _recall(
        self, question: str, exclude_memories: Collection[int], exclude_messages: Collection[str]
    ) -> RecallResult:
        now = time.time()
        memory = self._memory
        if memory.paused:
            return RecallResult()
        chats: tuple[PastChatTurn, ...] = ()
        if self._past_chats is not None:
            chats = self._past_chats.recall(self._user, question, now=now, exclude=exclude_messages)
        return RecallResult(memory.recall(question, exclude=exclude_memories, now=now), chats, memory.name())

    async def list_current(self) -> tuple[tuple[Memory, ...], bool]:
        return await asyncio.to_thread(lambda: (self._memory.current(), self._memory.paused))

    async def forget(self, about: str, command: Replacement | None = None) -> DeletionReceipt:
        return await self._forget(self._user, about, command) if self._forget is not None else DeletionReceipt()

    async def erase(self) -> DeletionReceipt:
        return await self._erase(self._user) if self._erase is not None else DeletionReceipt()

    async def learn(self, question: StoredMessage, used: Collection[int]) -> LearnResult:
        return await asyncio.to_thread(self._learn, question, used)

    def _learn(self, question: StoredMessage, used: Collection[int]) -> LearnResult:
        memory, text = self._memory, question.text
        memory.mark_used(used)
        if memory.paused:
            return LearnResult()
        saved = memory.learn(
            text,
            conversation_id=question.conversation_id,
            message_id=question.id,
            at=question.created_at,
            unless=lambda: self._is_gone(question),
        )
        held_back = extract_held_back(clean(text), question.created_at)
        items = tuple(HeldBackItem(found.text, found.reason) for found in held_back)
        self._enqueue(question)
        return LearnResult(saved, items)

    def _enqueue(self, question: StoredMessage) -> None:
        if self._writer is None or self._store is None:
            return
        with self._store.transaction():
            if not self._is_gone(question):
                self._writer.enqueue(self._user, question.conversation_id, question.id, question.text)
        self._writer.wake()

    def _is_gone(self, question: StoredMessage) -> bool:
        """Deleted or redacted since it was asked; inside the transaction that would keep something of it."""
        return self._store is not None and not self._store.is_stored(self._user, question.id, question.text)

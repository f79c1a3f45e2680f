"""Forgetting for real: a memory goes from the store and from all that is stored of chats, with a receipt.

What the user wrote in a chat stays as they wrote it; deleting the chat deletes that. A turn that runs meanwhile is
cleaned when it ends. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from server.chat.conversations.redaction import Cleaned, Forgotten
from server.chat.conversations.store import ConversationStore
from server.chat.memory_commands.access import Receipt
from server.memory import MemoryStore, MemoryWriter, UserMemory
from server.types import Memory, UserId


class Forgetting:
    """`notice(user, forgotten)` tells running turns and open streams, before and after the stored ones are cleaned."""

    def __init__(
        self,
        memory: MemoryStore,
        writer: MemoryWriter,
        store: ConversationStore,
        notice: Callable[[UserId, Forgotten], None],
    ) -> None:
        self._memory = memory
        self._writer = writer
        self._store = store
        self._notice = notice

    async def delete(self, user: UserId, memory_id: int) -> Receipt:
        """Raises NotFound."""
        return await self._gone(user, lambda memory: (memory.delete(memory_id),))

    async def about(self, user: UserId, about: str) -> Receipt:
        """What "forget that …" means; an empty receipt where nothing is meant."""
        return await self._gone(user, lambda memory: memory.forget(about))

    async def said_in(self, user: UserId, conversation_id: str) -> Receipt:
        """All that came from that chat."""
        return await self._gone(
            user,
            lambda memory: tuple(memory.delete(each.id) for each in memory.from_conversation(conversation_id)),
        )

    async def erase(self, user: UserId) -> Receipt:
        """All memories of the user."""

        def everything(memory: UserMemory) -> tuple[Memory, ...]:
            held = memory.list(past=True)
            memory.erase()
            return held

        return await self._gone(user, everything, all_of_them=True)

    async def chat(self, user: UserId, conversation_id: str) -> Cleaned:
        """Takes quotes of a deleted chat out of the others, and its turns out of what waits to be read."""
        await asyncio.to_thread(self._writer.forget, user, conversation_id=conversation_id)
        return await self._clean(user, Forgotten(chats={conversation_id}))

    async def _gone(
        self, user: UserId, how: Callable[[UserMemory], tuple[Memory, ...]], *, all_of_them: bool = False
    ) -> Receipt:
        memory = self._memory.of(user)

        def delete() -> tuple[tuple[Memory, ...], set[str]]:
            name = memory.stored_name()
            gone = how(memory)
            for message_id in {each.message_id for each in gone if each.message_id is not None}:
                self._writer.forget(user, message_id=message_id)  # else it would be found again
            return gone, {name} - {memory.stored_name(), ""}

        gone, names = await asyncio.to_thread(delete)
        if not gone and not all_of_them:
            return Receipt()
        forgotten = Forgotten(
            None if all_of_them else {each.id for each in gone},
            names,
            texts={" ".join(each.text.split()) for each in gone},
        )
        return Receipt(gone, await self._clean(user, forgotten))

    async def _clean(self, user: UserId, forgotten: Forgotten) -> Cleaned:
        cleaned = await asyncio.to_thread(self._store.redact, user, forgotten)
        self._notice(user, replace(forgotten))
        return cleaned

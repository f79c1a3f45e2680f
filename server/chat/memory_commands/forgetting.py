"""Deletes memories: from the store and from all that is stored of chats, with a receipt.

What the user wrote in a chat stays as they wrote it; deleting the chat deletes that. A turn that runs meanwhile is
redacted when it ends. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from server.chat.conversations.redaction import Redaction, RedactionCounts
from server.chat.conversations.store import ConversationStore
from server.chat.memory_commands.access import DeletionReceipt
from server.memory import MemoryStore, MemoryWriter, UserMemory
from server.types import Memory, UserId


class MemoryDeletion:
    """`notice(user, redaction)` tells running turns and open streams, before and after the stored ones are redacted."""

    def __init__(
        self,
        memory: MemoryStore,
        writer: MemoryWriter,
        store: ConversationStore,
        notice: Callable[[UserId, Redaction], None],
    ) -> None:
        self._memory = memory
        self._writer = writer
        self._store = store
        self._notice = notice

    async def delete(self, user: UserId, memory_id: int) -> DeletionReceipt:
        """Raises NotFound."""
        return await self._delete_and_redact(user, lambda memory: (memory.delete(memory_id),))

    async def forget_matching(self, user: UserId, about: str) -> DeletionReceipt:
        """What "forget that …" means; an empty receipt where nothing matches."""
        return await self._delete_and_redact(user, lambda memory: memory.forget(about))

    async def forget_conversation(self, user: UserId, conversation_id: str) -> DeletionReceipt:
        """All memories that came from that chat."""
        return await self._delete_and_redact(
            user,
            lambda memory: tuple(memory.delete(each.id) for each in memory.from_conversation(conversation_id)),
        )

    async def erase(self, user: UserId) -> DeletionReceipt:
        """All memories of the user."""

        def erase_all(memory: UserMemory) -> tuple[Memory, ...]:
            erased = memory.list(past=True)
            memory.erase()
            return erased

        return await self._delete_and_redact(user, erase_all, everything=True)

    async def redact_conversation(self, user: UserId, conversation_id: str) -> RedactionCounts:
        """Removes quotes of a deleted chat from the others, and its turns from the queue of the model's pass."""
        await asyncio.to_thread(self._writer.forget, user, conversation_id=conversation_id)
        return await self._redact(user, Redaction(chats={conversation_id}))

    async def _delete_and_redact(
        self, user: UserId, delete_memories: Callable[[UserMemory], tuple[Memory, ...]], *, everything: bool = False
    ) -> DeletionReceipt:
        memory = self._memory.of(user)

        def delete() -> tuple[tuple[Memory, ...], set[str]]:
            name = memory.stored_name()
            deleted = delete_memories(memory)
            for message_id in {each.message_id for each in deleted if each.message_id is not None}:
                self._writer.forget(user, message_id=message_id)  # else it would be extracted again
            return deleted, {name} - {memory.stored_name(), ""}

        deleted, names = await asyncio.to_thread(delete)
        if not deleted and not everything:
            return DeletionReceipt()
        redaction = Redaction(
            None if everything else {each.id for each in deleted},
            names,
            texts={" ".join(each.text.split()) for each in deleted},
        )
        return DeletionReceipt(deleted, await self._redact(user, redaction))

    async def _redact(self, user: UserId, redaction: Redaction) -> RedactionCounts:
        counts = await asyncio.to_thread(self._store.redact, user, redaction)
        self._notice(user, replace(redaction))
        return counts

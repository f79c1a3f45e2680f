"""Deletes memories and chats, with what was made of them: in the store, in all that is stored of chats, in the search.

One transaction each, so that a process that is killed leaves all of it or nothing. What an answer that runs meanwhile
stores is redacted as it is stored. docs/memory.md has the table of what each deletion takes along. Lives on the event
loop. Knows nothing of sockets or HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from server.chat.conversations.past_chats import PastChats
from server.chat.conversations.redaction import Redaction
from server.chat.conversations.redactor import Replacement
from server.chat.conversations.store import ConversationStore
from server.chat.memory_commands.access import DeletionReceipt
from server.memory import MemoryStore, MemoryWriter, UserMemory
from server.types import Memory, UserId

MIN_SCRUBBED_CHARS: Final = 12  # of a text that is looked for in the whole file: a shorter one may be anybody's


@dataclass(frozen=True, slots=True)
class _Scope:
    """What goes beside the memories. `words`: the sentences that say them. `everything`: all memories, and the search
    of past chats. `conversation_id`: a chat."""

    words: bool = True
    everything: bool = False
    conversation_id: str | None = None
    command: Replacement | None = None


class MemoryDeletion:
    """`notice(user, redaction)` tells open streams what was deleted."""

    def __init__(
        self,
        memory: MemoryStore,
        writer: MemoryWriter,
        store: ConversationStore,
        past_chats: PastChats,
        notice: Callable[[UserId, Redaction], None],
    ) -> None:
        self._memory = memory
        self._writer = writer
        self._store = store
        self._past_chats = past_chats
        self._notice = notice

    async def delete(self, user: UserId, memory_id: int, *, keep_words: bool = False) -> DeletionReceipt:
        """`keep_words`: the sentences that say it stay, as where a memory that was just saved is undone. Raises
        NotFound."""
        scope = _Scope(words=not keep_words)
        return await self._delete(user, lambda memory: (memory.delete(memory_id),), scope)

    async def forget_matching(self, user: UserId, about: str, command: Replacement | None = None) -> DeletionReceipt:
        """What "forget that …" means; no memories in the receipt where nothing matches. `command`: the message that
        said so, and what it says from now on."""
        return await self._delete(user, lambda memory: memory.forget(about), _Scope(command=command))

    async def erase(self, user: UserId) -> DeletionReceipt:
        """All memories of the user, with the settings, and what was said until now from the search of past chats."""

        def erase_all(memory: UserMemory) -> tuple[Memory, ...]:
            erased = memory.list(past=True)
            memory.erase()
            return erased

        return await self._delete(user, erase_all, _Scope(everything=True))

    async def delete_conversation(self, user: UserId, conversation_id: str, *, forget: bool) -> DeletionReceipt:
        """A chat with all that was made of it; with `forget` all memories that came from it, too. Raises NotFound."""

        def from_chat(memory: UserMemory) -> tuple[Memory, ...]:
            found = memory.from_conversation(conversation_id) if forget else ()
            return tuple(memory.delete(each.id) for each in found)

        return await self._delete(user, from_chat, _Scope(conversation_id=conversation_id))

    async def _delete(
        self, user: UserId, delete_memories: Callable[[UserMemory], tuple[Memory, ...]], scope: _Scope
    ) -> DeletionReceipt:
        receipt, redaction = await asyncio.to_thread(self._run, user, delete_memories, scope)
        if redaction is not None:
            self._notice(user, redaction.copy())
        return receipt

    def _run(
        self, user: UserId, delete_memories: Callable[[UserMemory], tuple[Memory, ...]], scope: _Scope
    ) -> tuple[DeletionReceipt, Redaction | None]:
        memory = self._memory.of(user)
        with self._store.transaction():
            name = memory.stored_name()
            deleted = delete_memories(memory)
            if scope.conversation_id is not None:
                self._store.delete(user, scope.conversation_id)
                self._past_chats.remove(user, scope.conversation_id)
                self._writer.forget(user, conversation_id=scope.conversation_id)
            elif not (deleted or scope.everything or scope.command):
                return DeletionReceipt(), None
            redaction = Redaction(
                None if scope.everything else {each.id for each in deleted},
                {name} - {memory.stored_name(), ""},
                () if scope.conversation_id is None else {scope.conversation_id},
                texts={" ".join(each.text.split()) for each in deleted},
            )
            receipt = self._redact(user, memory, deleted, redaction, scope)
        pending = not self._store.scrub([
            text for text in redaction.texts | redaction.strings if len(text) >= MIN_SCRUBBED_CHARS
        ])  # fmt: skip
        return DeletionReceipt(deleted, receipt.cleaned, receipt.mentions, pending), redaction

    def _redact(
        self, user: UserId, memory: UserMemory, deleted: tuple[Memory, ...], redaction: Redaction, scope: _Scope
    ) -> DeletionReceipt:
        """In all that is kept of chats and in what waits for the model. Inside the transaction."""
        said = deleted if scope.words and deleted else None
        result = self._store.redact(user, redaction, memories=said, command=scope.command)
        if scope.everything:
            self._past_chats.erase(user)
        else:
            self._past_chats.redact(user, result.texts)
        for message_id in {each.message_id for each in deleted if each.message_id is not None} | result.texts.keys():
            self._writer.forget(user, message_id=message_id)  # else it would be extracted again
        memory.redact_quotes(redaction.strike)
        return DeletionReceipt(deleted, result.counts, result.mentions)

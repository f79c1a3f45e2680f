"""How long temporary chats live after they were last used, by the process's own clock: one that is set forward deletes
no chat in use. Lives on the event loop but for `note_use`. Knows nothing of turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from server.chat.conversations.records import Conversation
from server.chat.conversations.store import ConversationStore
from server.types import UserId

TEMPORARY_CHAT_SECONDS = 24 * 3600.0


class TemporaryChats:
    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._used: dict[str, float] = {}  # chat → when it was last used

    def note_use(self, conversation: Conversation) -> None:
        """Inside the transaction that uses it: a sweep comes before that, or sees it used. Safe from any thread."""
        if conversation.temporary:
            self._used[conversation.id] = time.monotonic()

    def forget(self, conversation_id: str) -> None:
        self._used.pop(conversation_id, None)

    async def delete_old(self, running: Collection[str]) -> Collection[UserId]:
        """Deletes those that nobody uses, but none of `running`; whose they were."""
        since = time.monotonic() - TEMPORARY_CHAT_SECONDS
        for conversation_id, used in list(self._used.items()):
            if used < since and conversation_id not in running:
                del self._used[conversation_id]
        return await asyncio.to_thread(self._store.delete_temporary, self._used)

"""Past chats: finished turns are put into the search one by one, while no answer is being written, and found again.

Where answers never rest, they are put in after a while all the same. What is not in yet is known from the messages
themselves, so that a crash loses nothing and chats that were there before are taken in at the first start. A temporary
chat is never in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from server.background import background_worker
from server.chat.conversations.past_chat_questions import asks_for_chats
from server.chat.conversations.records import StoredMessage
from server.chat.conversations.store import ConversationStore
from server.memory import Episode, Episodes
from server.types import PastChatTurn, Role, UserId

log = logging.getLogger("tailor.chat")

AT_ONCE: Final = 4  # messages taken in before it is looked anew whether answers are being written
RETRY_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 10.0  # how long a finished turn waits for others to end
MOST_FOUND: Final = 50  # of one search by the user


@dataclass(frozen=True, slots=True)
class FoundTurn:
    """A message that a search of the user's chats found."""

    conversation_id: str
    message_id: str
    title: str
    role: str
    text: str  # the part that was asked for
    at: float
    score: float


class PastChats:
    """`close` ends the feeding; what is left is taken in at the next start."""

    def __init__(self, store: ConversationStore, episodes: Episodes, *, turns: int) -> None:
        self._store = store
        self._episodes = episodes
        self._turns = turns
        self._news = asyncio.Event()
        self._resting = asyncio.Event()
        self._resting.set()
        self._writing = 0
        self._task: asyncio.Task[None] | None = None
        self._worker = background_worker("tailor-past-chats")

    # ── feeding ──────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        self._news.set()
        self._task = asyncio.create_task(self._feed(), name="past-chats")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._worker.shutdown)

    def begun(self) -> None:
        """A turn has begun. On the event loop, as `ended`."""
        self._writing += 1
        self._resting.clear()

    def ended(self) -> None:
        self._writing -= 1
        if not self._writing:
            self._resting.set()
        self._news.set()

    async def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            patience = loop.time() + PATIENCE_SECONDS
            try:
                for some in (self._feed_some, self._episodes.reembed):  # renewed where the embedder was changed
                    more = True
                    while more:
                        await self._rest(patience)
                        more = bool(await loop.run_in_executor(self._worker, some))
            except Exception:  # the outermost edge of this task: it is tried again, and nothing is marked as done
                log.exception("past chats could not be taken into the search; trying again")
                await asyncio.sleep(RETRY_SECONDS)
                self._news.set()

    async def _rest(self, until: float) -> None:
        """Until no answer is being written; at most until then, by the loop's clock."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._resting.wait()

    def _feed_some(self) -> int:
        waiting = self._store.not_fed(AT_ONCE)
        for user, message in waiting:
            self.add(user, message)
        return len(waiting)

    def add(self, user: UserId, message: StoredMessage) -> None:
        """Takes one message in. Blocks."""
        if message.text.strip():
            self._episodes.add(
                user, message.conversation_id, message.id, message.role, message.text, message.created_at
            )
        if not self._store.mark_fed(user, message.id):  # deleted meanwhile
            self._episodes.remove_message(user, message.id)

    # ── finding ──────────────────────────────────────────────────────────────────────────────────

    def search(self, user: UserId, query: str, *, limit: int = 20) -> tuple[FoundTurn, ...]:
        """What the user's kept chats say about it, best first. Blocks."""
        titles = self._store.titles(user)
        found = self._episodes.search(user, query, now=time.time(), limit=min(limit, MOST_FOUND))
        return tuple(
            FoundTurn(
                one.conversation_id, one.message_id, titles[one.conversation_id], one.role,
                one.snippet or one.text, one.at, one.score,
            )
            for one in found
            if one.conversation_id in titles
        )  # fmt: skip

    def recall(
        self, user: UserId, question: str, *, now: float, exclude: Collection[str] = ()
    ) -> tuple[PastChatTurn, ...]:
        """Turns of past chats, where the question asks for them; best first, none of the messages `exclude`. Blocks."""
        if not self._turns or not asks_for_chats(question):
            return ()
        titles = self._store.titles(user)
        found = self._episodes.search(user, question, now=now, limit=self._turns + min(len(exclude), 100))
        kept = [one for one in found if one.message_id not in exclude and one.conversation_id in titles]
        return tuple(_earlier(one, titles[one.conversation_id]) for one in kept[: self._turns])

    def remove(self, user: UserId, conversation_id: str) -> None:
        self._episodes.remove_conversation(user, conversation_id)


def _earlier(one: Episode, title: str) -> PastChatTurn:
    return PastChatTurn(one.conversation_id, one.message_id, title, cast("Role", one.role), one.text, one.at, one.score)

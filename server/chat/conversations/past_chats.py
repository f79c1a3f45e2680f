"""Past chats: finished turns are indexed one by one, while no answer is being generated, and recalled.

On a server that is never idle they are indexed after a while all the same. What is not indexed yet is marked on the
messages themselves, so that a crash loses nothing and chats that were there before are indexed at the first start. A
temporary chat is never indexed. Knows no turn: it is told when one starts and ends.
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

INDEX_BATCH: Final = 4  # messages indexed before it is checked again that no answer is being generated
RETRY_SECONDS: Final = 30.0
MAX_IDLE_WAIT_SECONDS: Final = 10.0  # how long a finished turn waits for the server to be idle
MAX_RESULTS: Final = 50  # of one search by the user


@dataclass(frozen=True, slots=True)
class FoundTurn:
    """A message that a search of the user's chats found."""

    conversation_id: str
    message_id: str
    title: str
    role: str
    text: str  # the part that matches
    at: float
    score: float


class PastChats:
    """`close` ends the indexing; what is left is indexed at the next start."""

    def __init__(self, store: ConversationStore, episodes: Episodes, *, max_turns: int) -> None:
        self._store = store
        self._episodes = episodes
        self._max_turns = max_turns
        self._work_available = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._running_turns = 0
        self._task: asyncio.Task[None] | None = None
        self._worker = background_worker("tailor-past-chats")

    # ── indexing ─────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        self._work_available.set()
        self._task = asyncio.create_task(self._index_loop(), name="past-chats")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._worker.shutdown)

    def turn_started(self) -> None:
        """On the event loop, as `turn_ended`."""
        self._running_turns += 1
        self._idle.clear()

    def turn_ended(self) -> None:
        self._running_turns -= 1
        if not self._running_turns:
            self._idle.set()
        self._work_available.set()

    async def _index_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._work_available.wait()
            self._work_available.clear()
            deadline = loop.time() + MAX_IDLE_WAIT_SECONDS
            try:
                for run_batch in (
                    self._index_batch,
                    self._episodes.reembed,
                ):  # re-embedded where the embedder was changed
                    more = True
                    while more:
                        await self._wait_until_idle(deadline)
                        more = bool(await loop.run_in_executor(self._worker, run_batch))
            except Exception:  # edge of the task: it is tried again, and nothing is marked as done
                log.exception("past chats could not be indexed; trying again")
                await asyncio.sleep(RETRY_SECONDS)
                self._work_available.set()

    async def _wait_until_idle(self, deadline: float) -> None:
        """Until no answer is being generated; at most until `deadline`, by the loop's clock."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._idle.wait()

    def _index_batch(self) -> int:
        messages = self._store.unindexed_messages(INDEX_BATCH)
        for user, message in messages:
            self.index_message(user, message)
        return len(messages)

    def index_message(self, user: UserId, message: StoredMessage) -> None:
        """Indexes one message. Blocks."""
        if message.text.strip():
            self._episodes.add(
                user, message.conversation_id, message.id, message.role, message.text, message.created_at
            )
        if not self._store.mark_indexed(user, message.id):  # deleted meanwhile
            self._episodes.remove_message(user, message.id)

    # ── search ───────────────────────────────────────────────────────────────────────────────────

    def search(self, user: UserId, query: str, *, limit: int = 20) -> tuple[FoundTurn, ...]:
        """What the user's kept chats say about it, best first. Blocks."""
        titles = self._store.titles(user)
        found = self._episodes.search(user, query, now=time.time(), limit=min(limit, MAX_RESULTS))
        return tuple(
            FoundTurn(
                episode.conversation_id, episode.message_id, titles[episode.conversation_id], episode.role,
                episode.snippet or episode.text, episode.at, episode.score,
            )
            for episode in found
            if episode.conversation_id in titles
        )  # fmt: skip

    def recall(
        self, user: UserId, question: str, *, now: float, exclude: Collection[str] = ()
    ) -> tuple[PastChatTurn, ...]:
        """Turns of past chats, where the question asks for them; best first, none of the messages `exclude`. Blocks."""
        if not self._max_turns or not asks_for_chats(question):
            return ()
        titles = self._store.titles(user)
        found = self._episodes.search(user, question, now=now, limit=self._max_turns + min(len(exclude), 100))
        visible = [
            episode for episode in found if episode.message_id not in exclude and episode.conversation_id in titles
        ]
        return tuple(_earlier_turn(episode, titles[episode.conversation_id]) for episode in visible[: self._max_turns])

    def remove(self, user: UserId, conversation_id: str) -> None:
        self._episodes.remove_conversation(user, conversation_id)


def _earlier_turn(episode: Episode, title: str) -> PastChatTurn:
    return PastChatTurn(
        episode.conversation_id,
        episode.message_id,
        title,
        cast("Role", episode.role),
        episode.text,
        episode.at,
        episode.score,
        episode.sequence,
    )

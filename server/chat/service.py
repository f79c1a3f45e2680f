"""Chats as users see them: send, regenerate, stop, follow; and their conversations.

Starts each turn as a task that outlives its caller. Every call names the user, and an id of another
user's is not found. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from server.chat.conversations.past_chats import FoundTurn, PastChats
from server.chat.conversations.records import Conversation, PromptRecord, Status, StoredMessage
from server.chat.conversations.redaction import Forgotten
from server.chat.conversations.store import ConversationStore
from server.chat.events import Started
from server.chat.memory_commands.access import ChatMemory, Receipt, RememberingChat, TemporaryChat
from server.chat.memory_commands.forgetting import Forgetting
from server.chat.turn.runner import Parts, TurnRunner
from server.chat.turn.streams import StreamRegistry, TurnStream
from server.chat.turn.traces import AnswerTrace
from server.errors import Conflict, InvalidInput
from server.memory import MemoryStore, MemoryWriter
from server.types import UserId

log = logging.getLogger("tailor.chat")

NEWEST = "newest"  # parent_id: after the newest message of the conversation

_Begun: TypeAlias = tuple[Conversation, StoredMessage, StoredMessage]  # the chat, the question, the place of its answer


class Keep(Enum):
    """Stands for "as the conversation has it", where None means "auto"."""

    DOMAIN = "domain"


CLOSE_SECONDS = 5.0
KEEP_SECONDS = 1.0  # how much of a running answer a crash may lose
TEMPORARY_SECONDS = 24 * 3600.0  # how long a temporary chat lives after its last message
SWEEP_SECONDS = 600.0


@dataclass(frozen=True)
class Remembering:
    """What the chats that remember are given."""

    memory: MemoryStore
    past: PastChats
    writer: MemoryWriter


class ChatService:
    def __init__(self, parts: Parts, remembering: Remembering, *, keep_streams: float) -> None:
        self._parts = parts
        self._remembering = remembering
        self.forgetting = Forgetting(remembering.memory, remembering.writer, parts.store, self._forget_running)
        self._streams = StreamRegistry(keep_streams)
        self._running: dict[str, tuple[asyncio.Task[None], TurnRunner]] = {}
        self._on_change: list[Callable[[UserId], None]] = []
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def store(self) -> ConversationStore:
        return self._parts.store

    def subscribe(self, callback: Callable[[UserId], None]) -> None:
        """`callback(user)` whenever that user's list of conversations changed; on the event loop."""
        self._on_change.append(callback)

    async def start(self) -> None:
        left = await asyncio.to_thread(self.store.mark_interrupted)
        if left:
            log.warning("%d answers were cut off when the server last ended", left)
        await asyncio.to_thread(self.store.delete_temporary)
        await self._remembering.past.start()
        self._remembering.writer.start()
        self._tasks = (
            asyncio.create_task(self._sweep(), name="temporary-chats"),
            asyncio.create_task(self._keep(), name="running-answers"),
        )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await asyncio.to_thread(self.store.delete_temporary, time.time() - TEMPORARY_SECONDS)

    async def _keep(self) -> None:
        """What running answers have by now, in one transaction a second, off their readers' path."""
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            answers = [kept for _, runner in self._running.values() if (kept := runner.written()) is not None]
            if not answers:
                continue
            try:
                await asyncio.to_thread(self.store.keep_running, answers)
            except Exception:  # the outermost edge of this task: answers go on, and are stored when they end
                log.exception("running answers could not be kept for a crash; trying again")

    async def close(self) -> None:
        """Stops what runs and keeps what there is of it."""
        for task, runner in self._running.values():
            runner.stop_status = Status.INTERRUPTED
            task.cancel()
        if self._running:
            await asyncio.wait([task for task, _ in self._running.values()], timeout=CLOSE_SECONDS)
        await self._remembering.writer.close()
        await self._remembering.past.close()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self.store.delete_temporary)

    async def create(self, user: UserId, *, temporary: bool, domain: str | None = None) -> Conversation:
        """An empty chat; its first question gives it its title. Raises NotFound for a domain that is not there."""
        self._check_domain(domain)
        conversation = await asyncio.to_thread(self.store.create, user, "", domain, temporary=temporary)
        self._tell(user)
        return conversation

    async def send(
        self,
        user: UserId,
        text: str,
        *,
        conversation_id: str | None = None,
        parent_id: str | None = NEWEST,
        domain: str | Keep | None = Keep.DOMAIN,
        request_id: str = "",
        temporary: bool = False,
    ) -> TurnStream:
        """Stores the question and starts its answer. `domain` is remembered as the conversation's choice; `temporary`
        is said of a new conversation.

        Raises InvalidInput (empty text, a parent that is no answer), NotFound.
        """
        _check_text(text)
        if temporary and conversation_id is not None:
            raise InvalidInput("a chat is temporary from its first message on; begin a new one without conversation_id")
        self._check_domain(domain)
        begun = await asyncio.to_thread(self._begin, user, text, conversation_id, parent_id, domain, temporary)
        return self._answer(user, *begun, request_id)

    def _begin(
        self,
        user: UserId,
        text: str,
        conversation_id: str | None,
        parent_id: str | None,
        domain: str | Keep | None,
        temporary: bool,
    ) -> _Begun:
        """Stores the question and the place of its answer, and the conversation where it is new: all, or nothing."""
        store = self.store
        with store.together():
            if conversation_id is None:
                chosen = None if isinstance(domain, Keep) else domain
                conversation = store.create(user, text, chosen, temporary=temporary)
                parent_id = None
            else:
                conversation = self._chosen(user, store.get(user, conversation_id), domain)
                if not conversation.title:
                    conversation = store.rename(user, conversation_id, text)
                if parent_id == NEWEST:
                    parent_id = store.newest(user, conversation_id)
                elif parent_id is not None and store.message(user, parent_id).conversation_id != conversation_id:
                    raise InvalidInput(f"message '{parent_id}' is not in conversation '{conversation_id}'")
            question = store.add_question(user, conversation.id, parent_id, text)
            return conversation, question, store.add_answer(user, conversation.id, question.id)

    async def regenerate(
        self, user: UserId, message_id: str, *, domain: str | Keep | None = Keep.DOMAIN, request_id: str = ""
    ) -> TurnStream:
        """Another answer beside `message_id`; given a question, an answer to it."""
        self._check_domain(domain)
        begun = await asyncio.to_thread(self._begin_again, user, message_id, domain)
        return self._answer(user, *begun, request_id)

    def _begin_again(self, user: UserId, message_id: str, domain: str | Keep | None) -> _Begun:
        store = self.store
        with store.together():
            message = store.message(user, message_id)
            if message.role != "user":
                if message.status is Status.STREAMING:
                    raise Conflict("this answer is still being written; stop it first")
                message = store.message(user, message.parent_id or "")
            conversation = self._chosen(user, store.get(user, message.conversation_id), domain)
            return conversation, message, store.add_answer(user, conversation.id, message.id)

    async def stop(self, user: UserId, message_id: str) -> None:
        """Frees the model before its next step. What was written is kept."""
        message = await asyncio.to_thread(self.store.message, user, message_id)
        held = self._running.get(message_id)
        if held is None or held[1].answered:
            raise Conflict(f"answer '{message_id}' is not running; it is {message.status.value}")
        held[0].cancel()

    def follow(self, user: UserId, message_id: str) -> TurnStream:
        return self._streams.get(user, message_id)

    async def choose_domain(self, user: UserId, conversation_id: str, domain: str | None) -> Conversation:
        """Raises NotFound for a domain that is not there."""
        self._check_domain(domain)
        changed = await asyncio.to_thread(self.store.choose_domain, user, conversation_id, domain)
        self._tell(user)
        return changed

    async def rename(self, user: UserId, conversation_id: str, title: str) -> Conversation:
        changed = await asyncio.to_thread(self.store.rename, user, conversation_id, title)
        self._tell(user)
        return changed

    async def delete(self, user: UserId, conversation_id: str, *, forget: bool = False) -> Receipt | None:
        """With all its messages, and with `forget` all memories that came from it; answers that run are stopped
        first. The receipt tells what was forgotten."""
        for message in await asyncio.to_thread(self.store.messages, user, conversation_id):
            held = self._running.get(message.id)
            if held is not None:
                held[0].cancel()
                await asyncio.wait([held[0]])
        receipt = await self.forgetting.said_in(user, conversation_id) if forget else None
        await asyncio.to_thread(self.store.delete, user, conversation_id)
        await asyncio.to_thread(self._remembering.past.remove, user, conversation_id)
        await self.forgetting.chat(user, conversation_id)
        self._tell(user)
        return receipt

    async def search(self, user: UserId, query: str) -> tuple[FoundTurn, ...]:
        """What the user's chats say about it; temporary ones are not searched."""
        return await asyncio.to_thread(self._remembering.past.search, user, query)

    async def conversation(self, user: UserId, conversation_id: str) -> tuple[Conversation, tuple[StoredMessage, ...]]:
        conversation = await asyncio.to_thread(self.store.get, user, conversation_id)
        return conversation, await asyncio.to_thread(self.store.messages, user, conversation_id)

    async def prompt(self, user: UserId, message_id: str) -> tuple[StoredMessage, PromptRecord]:
        message = await asyncio.to_thread(self.store.message, user, message_id)
        return message, await asyncio.to_thread(self.store.prompt, user, message_id)

    async def trace(self, user: UserId, message_id: str) -> AnswerTrace:
        """Why that answer had these sources. Raises NotFound."""
        await asyncio.to_thread(self.store.message, user, message_id)
        return await asyncio.to_thread(self._parts.traces.get, user, message_id)

    async def branch(self, user: UserId, message_id: str) -> tuple[StoredMessage, ...]:
        """From the first message of the branch to that one."""
        return await asyncio.to_thread(self.store.branch, user, message_id)

    def _check_domain(self, domain: str | Keep | None) -> None:
        if isinstance(domain, str):
            self._parts.library.get(domain)

    def _chosen(self, user: UserId, conversation: Conversation, domain: str | Keep | None) -> Conversation:
        if isinstance(domain, Keep) or domain == conversation.domain:
            return conversation
        return self.store.choose_domain(user, conversation.id, domain)

    def _answer(
        self,
        user: UserId,
        conversation: Conversation,
        question: StoredMessage,
        answer: StoredMessage,
        request_id: str,
    ) -> TurnStream:
        stream = self._streams.open(user, answer.id)
        stream.publish(
            Started,
            conversation_id=conversation.id,
            user_message_id=question.id,
            parent_id=question.parent_id,
            title=conversation.title,
            request_id=request_id,
        )
        memory = self._memory_of(user, conversation)
        runner = TurnRunner(self._parts, user, conversation, question, answer, stream, memory)
        self._remembering.past.begun()
        task = asyncio.create_task(runner.run(), name=f"turn-{answer.id}")
        self._running[answer.id] = (task, runner)
        task.add_done_callback(lambda _: self._ended(user, answer.id))
        self._tell(user)
        return stream

    def _memory_of(self, user: UserId, conversation: Conversation) -> ChatMemory:
        """The one place where a chat gets a way to memory, or none."""
        if conversation.temporary:
            return TemporaryChat()
        held = self._remembering
        return RememberingChat(
            user,
            held.memory.of(user),
            held.past,
            held.writer,
            forget=self.forgetting.about,
            erase=self.forgetting.erase,
        )

    def _forget_running(self, user: UserId, forgotten: Forgotten) -> None:
        self._streams.forget(user, forgotten)
        for _, runner in self._running.values():
            if runner.user == user:
                runner.forget(forgotten)

    def _ended(self, user: UserId, message_id: str) -> None:
        self._running.pop(message_id, None)
        self._remembering.past.ended()
        self._tell(user)

    def _tell(self, user: UserId) -> None:
        for callback in self._on_change:
            callback(user)


def _check_text(text: str) -> None:
    if not text.strip():
        raise InvalidInput("the message is empty; write something")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("the message is not valid Unicode (a lone surrogate); send UTF-8 text") from error
    if "\0" in text:
        raise InvalidInput("the message holds a NUL character; remove it")

"""Chats as users see them: send, regenerate, stop, follow; and their conversations.

Starts each turn as a task that outlives its caller. Every call names the user, and an id of another
user's is not found. Lives on the event loop. Knows nothing of sockets, HTTP or sessions.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from server.chat.admission import Admission, check_message
from server.chat.conversations.past_chats import FoundTurn, PastChats
from server.chat.conversations.records import Conversation, PromptRecord, Status, StoredMessage
from server.chat.conversations.redaction import Redaction
from server.chat.conversations.store import ConversationStore
from server.chat.conversations.temporary import TemporaryChats
from server.chat.events import Started
from server.chat.memory_commands.access import (
    ChatMemory,
    DeletionReceipt,
    DisabledInTemporaryChat,
    EnabledMemory,
)
from server.chat.memory_commands.forgetting import MemoryDeletion
from server.chat.turn.runner import TurnDependencies, TurnRunner
from server.chat.turn.streams import StreamRegistry, TurnStream
from server.chat.turn.traces import AnswerTrace
from server.chat.turn.unsaved import UnsavedAnswers
from server.errors import Conflict, InvalidInput, StorageError
from server.memory import MemoryStore, MemoryWriter
from server.types import UserId

log = logging.getLogger("tailor.chat")

NEWEST = "newest"  # parent_id: after the newest message of the conversation

_StoredTurn: TypeAlias = tuple[Conversation, StoredMessage, StoredMessage]  # the question and its empty answer


class Unchanged(Enum):
    """The domain stays as the conversation has it; None would mean "auto"."""

    DOMAIN = "domain"


CLOSE_SECONDS = 5.0
SAVE_INTERVAL_SECONDS = 1.0  # how much of a running answer a crash may lose
SWEEP_SECONDS = 600.0


@dataclass(frozen=True)
class MemoryDependencies:
    """What a chat with memory needs, beside `TurnDependencies`."""

    memory: MemoryStore
    past_chats: PastChats
    writer: MemoryWriter


class ChatService:
    def __init__(
        self,
        dependencies: TurnDependencies,
        memory_dependencies: MemoryDependencies,
        *,
        stream_retention_seconds: float,
    ) -> None:
        self._dependencies = dependencies
        self._memory_dependencies = memory_dependencies
        self.memory_deletion = MemoryDeletion(
            memory_dependencies.memory, memory_dependencies.writer, dependencies.store, memory_dependencies.past_chats,
            self._redact_running,
        )  # fmt: skip
        self.admission = Admission()
        self._streams = StreamRegistry(stream_retention_seconds)
        self._running: dict[str, tuple[asyncio.Task[None], TurnRunner]] = {}
        self._turns: Counter[UserId] = Counter()  # running, and being stored
        self._temporary = TemporaryChats(dependencies.store)
        self._unsaved = UnsavedAnswers(dependencies.store)
        self._subscribers: list[Callable[[UserId], None]] = []
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def store(self) -> ConversationStore:
        return self._dependencies.store

    def subscribe(self, callback: Callable[[UserId], None]) -> None:
        """`callback(user)` whenever that user's list of conversations changed; on the event loop."""
        self._subscribers.append(callback)

    async def start(self) -> None:
        left = await asyncio.to_thread(self.store.mark_interrupted)
        if left:
            log.warning("%d answers were cut off when the server last ended", left)
        await asyncio.to_thread(self._dependencies.language_cost.measure)
        await asyncio.to_thread(self.store.delete_temporary)
        await asyncio.to_thread(self.store.scrub)  # a deletion may have been the last that a killed process did
        await self._memory_dependencies.past_chats.start()
        self._memory_dependencies.writer.start()
        self._tasks = (
            asyncio.create_task(self._sweep(), name="temporary-chats"),
            asyncio.create_task(self._save_partial_answers(), name="running-answers"),
        )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.delete_old_temporary()

    async def delete_old_temporary(self) -> None:
        running = {runner.conversation_id for _, runner in self._running.values()}
        for user in await self._temporary.delete_old(running):
            self._notify_subscribers(user)

    async def _save_partial_answers(self) -> None:
        """Checkpoints running answers, in one transaction a second, off their readers' path."""
        while True:
            await asyncio.sleep(SAVE_INTERVAL_SECONDS)
            answers = [
                answer for _, runner in self._running.values() if (answer := runner.partial_answer()) is not None
            ]
            try:
                if answers:
                    await asyncio.to_thread(self.store.save_partial_answers, answers)
                for user in await self._unsaved.save():
                    self._notify_subscribers(user)
            except StorageError as error:
                log.warning("running answers could not be checkpointed; trying again: %s", error)
            except Exception:  # edge of the task: answers go on, and are stored when they end
                log.exception("running answers could not be checkpointed; trying again")

    async def close(self) -> None:
        """Stops running answers and stores what there is of them."""
        for task, runner in self._running.values():
            runner.stop_status = Status.INTERRUPTED
            _cancel_once(task)
        if self._running:
            await asyncio.wait([task for task, _ in self._running.values()], timeout=CLOSE_SECONDS)
        await self._memory_dependencies.writer.close()
        await self._memory_dependencies.past_chats.close()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self.store.delete_temporary)

    async def create(self, user: UserId, *, temporary: bool, domain: str | None = None) -> Conversation:
        """An empty chat; its first question gives it its title. Raises NotFound for a domain that is not there."""
        await self._check_domain(user, domain)
        conversation = await asyncio.to_thread(self._create, user, domain, temporary)
        self._notify_subscribers(user)
        return conversation

    def _create(self, user: UserId, domain: str | None, temporary: bool) -> Conversation:
        with self.store.transaction():
            conversation = self.store.create(user, "", domain, temporary=temporary)
            self._temporary.note_use(conversation)
        return conversation

    async def send(
        self,
        user: UserId,
        text: str,
        *,
        conversation_id: str | None = None,
        parent_id: str | None = NEWEST,
        domain: str | Unchanged | None = Unchanged.DOMAIN,
        request_id: str = "",
        temporary: bool = False,
    ) -> TurnStream:
        """Stores the question and starts its answer. `domain` is remembered as the conversation's choice; `temporary`
        is said of a new conversation.

        Raises InvalidInput (empty text, a parent that is no answer), NotFound, Draining.
        """
        self.admission.check()
        check_message(text)
        if temporary and conversation_id is not None:
            raise InvalidInput("a chat is temporary from its first message on; begin a new one without conversation_id")
        await self._check_domain(user, domain)
        return await self._turn(
            user, request_id, self._store_question, user, text, conversation_id, parent_id, domain, temporary
        )

    async def _turn(
        self, user: UserId, request_id: str, store_turn: Callable[..., _StoredTurn], *arguments: Any
    ) -> TurnStream:
        """Stores the turn and starts its answer."""
        self._count_turn(user, 1)
        with ExitStack() as failed:
            failed.callback(self._count_turn, user, -1)
            stored_turn = await asyncio.to_thread(store_turn, *arguments)
            failed.pop_all()
        return self._start_turn(user, *stored_turn, request_id)

    def _store_question(
        self,
        user: UserId,
        text: str,
        conversation_id: str | None,
        parent_id: str | None,
        domain: str | Unchanged | None,
        temporary: bool,
    ) -> _StoredTurn:
        """Stores the question and its empty answer, and the conversation where it is new: all, or nothing."""
        store = self.store
        with store.transaction():
            if conversation_id is None:
                domain_choice = None if isinstance(domain, Unchanged) else domain
                conversation = store.create(user, text, domain_choice, temporary=temporary)
                parent_id = None
            else:
                conversation = self._with_domain(user, store.get(user, conversation_id), domain)
                if not conversation.title:
                    conversation = store.rename(user, conversation_id, text)
                if parent_id == NEWEST:
                    parent_id = store.newest(user, conversation_id)
                elif parent_id is not None and store.message(user, parent_id).conversation_id != conversation_id:
                    raise InvalidInput(f"message '{parent_id}' is not in conversation '{conversation_id}'")
            self._temporary.note_use(conversation)
            question = store.add_question(user, conversation.id, parent_id, text)
            return conversation, question, store.add_answer(user, conversation.id, question.id)

    async def regenerate(
        self, user: UserId, message_id: str, *, domain: str | Unchanged | None = Unchanged.DOMAIN, request_id: str = ""
    ) -> TurnStream:
        """Another answer beside `message_id`; given a question, an answer to it."""
        self.admission.check()
        await self._check_domain(user, domain)
        return await self._turn(user, request_id, self._store_regeneration, user, message_id, domain)

    def _store_regeneration(self, user: UserId, message_id: str, domain: str | Unchanged | None) -> _StoredTurn:
        store = self.store
        with store.transaction():
            message = store.message(user, message_id)
            if message.role != "user":
                if message.status is Status.STREAMING:
                    raise Conflict("this answer is still being written; stop it first")
                message = store.message(user, message.parent_id or "")
            conversation = self._with_domain(user, store.get(user, message.conversation_id), domain)
            self._temporary.note_use(conversation)
            return conversation, message, store.add_answer(user, conversation.id, message.id)

    async def stop(self, user: UserId, message_id: str) -> None:
        """Frees the model before its next step. What was written is kept."""
        message = await asyncio.to_thread(self.store.message, user, message_id)
        running = self._running.get(message_id)
        if running is None or running[1].answered:
            raise Conflict(f"answer '{message_id}' is not running; it is {message.status.value}")
        _cancel_once(running[0])

    async def stop_all(self, user: UserId) -> None:
        """Stops all running answers of the user, and waits until they have stored what they store."""
        await self._stop_where(lambda runner: runner.user == user)
        self._streams.drop(user)

    def follow(self, user: UserId, message_id: str) -> TurnStream:
        return self._streams.get(user, message_id)

    async def choose_domain(self, user: UserId, conversation_id: str, domain: str | None) -> Conversation:
        """Raises NotFound for a domain that is not there."""
        await self._check_domain(user, domain)
        changed = await asyncio.to_thread(self.store.choose_domain, user, conversation_id, domain)
        self._notify_subscribers(user)
        return changed

    async def rename(self, user: UserId, conversation_id: str, title: str) -> Conversation:
        changed = await asyncio.to_thread(self.store.rename, user, conversation_id, title)
        self._notify_subscribers(user)
        return changed

    async def delete(self, user: UserId, conversation_id: str, *, forget: bool = False) -> DeletionReceipt | None:
        """With all that was made of it, and with `forget` all memories that came from it, which the receipt lists."""
        messages = await asyncio.to_thread(self.store.messages, user, conversation_id)
        await self._stop_where(lambda runner: runner.conversation_id == conversation_id)
        receipt = await self.memory_deletion.delete_conversation(user, conversation_id, forget=forget)
        await self._stop_where(lambda runner: runner.conversation_id == conversation_id)  # begun meanwhile
        self._streams.drop(user, {message.id for message in messages})
        self._temporary.forget(conversation_id)
        self._notify_subscribers(user)
        return receipt if forget else None

    async def _stop_where(self, wanted: Callable[[TurnRunner], bool]) -> None:
        """Stops running answers, and waits until they have stored what they store."""
        tasks = [task for task, runner in self._running.values() if wanted(runner)]
        for task in tasks:
            _cancel_once(task)
        if tasks:
            await asyncio.wait(tasks)

    async def search(self, user: UserId, query: str) -> tuple[FoundTurn, ...]:
        """What the user's chats say about it; temporary ones are not searched."""
        return await asyncio.to_thread(self._memory_dependencies.past_chats.search, user, query)

    async def conversation(self, user: UserId, conversation_id: str) -> tuple[Conversation, tuple[StoredMessage, ...]]:
        conversation = await asyncio.to_thread(self.store.get, user, conversation_id)
        messages = await asyncio.to_thread(self.store.messages, user, conversation_id)
        return conversation, tuple(map(self._unsaved.shown, messages))

    async def prompt(self, user: UserId, message_id: str) -> tuple[StoredMessage, PromptRecord]:
        message = await asyncio.to_thread(self.store.message, user, message_id)
        return message, await asyncio.to_thread(self.store.prompt, user, message_id)

    async def trace(self, user: UserId, message_id: str) -> AnswerTrace:
        """Why that answer had these sources. Raises NotFound."""
        await asyncio.to_thread(self.store.message, user, message_id)
        return await asyncio.to_thread(self._dependencies.traces.get, user, message_id)

    async def branch(self, user: UserId, message_id: str) -> tuple[StoredMessage, ...]:
        """From the first message of the branch to that one."""
        return await asyncio.to_thread(self.store.branch, user, message_id)

    async def _check_domain(self, user: UserId, domain: str | Unchanged | None) -> None:
        if isinstance(domain, str):
            await asyncio.to_thread(lambda: self._dependencies.domains.for_user(user).get(domain))

    def _with_domain(self, user: UserId, conversation: Conversation, domain: str | Unchanged | None) -> Conversation:
        if isinstance(domain, Unchanged) or domain == conversation.domain:
            return conversation
        return self.store.choose_domain(user, conversation.id, domain)

    def _start_turn(
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
        memory = self._chat_memory(user, conversation)
        runner = TurnRunner(self._dependencies, user, conversation, question, answer, stream, memory)
        self._memory_dependencies.past_chats.turn_started()
        task = asyncio.create_task(self._run(runner), name=f"turn-{answer.id}")
        self._running[answer.id] = (task, runner)
        task.add_done_callback(lambda _: self._turn_ended(user, answer.id))
        self._notify_subscribers(user)
        return stream

    async def _run(self, runner: TurnRunner) -> None:
        with self.admission.answering():
            await runner.run()

    def _chat_memory(self, user: UserId, conversation: Conversation) -> ChatMemory:
        """The only code that gives a chat access to memory, or none."""
        if conversation.temporary:
            return DisabledInTemporaryChat()
        dependencies = self._memory_dependencies
        return EnabledMemory(
            user,
            dependencies.memory.of(user),
            dependencies.past_chats,
            dependencies.writer,
            store=self.store,
            forget=self.memory_deletion.forget_matching,
            erase=self.memory_deletion.erase,
        )

    def _redact_running(self, user: UserId, redaction: Redaction) -> None:
        self._streams.redact(user, redaction)
        self._count_turn(user, 0)
        self._notify_subscribers(user)

    def _count_turn(self, user: UserId, by: int) -> None:
        """From before the question is stored until the answer is."""
        self._turns[user] += by
        if not self._turns[user]:
            self.store.settle(user)

    def _turn_ended(self, user: UserId, message_id: str) -> None:
        _, runner = self._running.pop(message_id)
        self._unsaved.add(runner.unsaved)
        self._count_turn(user, -1)
        self._memory_dependencies.past_chats.turn_ended()
        self._notify_subscribers(user)

    def _notify_subscribers(self, user: UserId) -> None:
        for callback in self._subscribers:
            callback(user)


def _cancel_once(task: asyncio.Task[None]) -> None:
    """A second cancellation would fall on the turn while it stores what there is of its answer."""
    if not task.cancelling():
        task.cancel()

"""Answers that failed while nothing could be stored, as on a full disk: shown as failed, stored once that works.

Lives on the event loop. Knows nothing of why they failed.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from server.chat.conversations.records import AnswerRecord, Status, StoredMessage
from server.chat.conversations.store import ConversationStore
from server.types import UserId


class UnsavedAnswers:
    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._answers: dict[str, tuple[UserId, str, str, AnswerRecord]] = {}  # user, id, text, record

    def add(self, answer: tuple[UserId, str, str, AnswerRecord] | None) -> None:
        """None is a turn that was stored."""
        if answer is not None:
            self._answers[answer[1]] = answer

    async def save(self) -> set[UserId]:
        """Whose answers are stored now. Raises StorageError while that does not work."""
        users = set()
        for message_id, (user, _, text, record) in list(self._answers.items()):
            store = partial(self._store.update_answer, text=text, status=Status.FAILED, record=record)
            await asyncio.to_thread(store, user, message_id)
            self._answers.pop(message_id, None)
            users.add(user)
        return users

    def shown(self, message: StoredMessage) -> StoredMessage:
        """The message as it ended, though that is not stored yet."""
        if message.id not in self._answers:
            return message
        _, _, text, record = self._answers[message.id]
        return replace(message, text=text, status=Status.FAILED, answer=record)

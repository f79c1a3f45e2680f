"""Event streams of turns, which outlive the connection that asked for them.

A `TurnStream` numbers what its turn publishes and lets any number of readers follow from any number on.
It belongs to one event loop and knows nothing of sockets or the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from typing import Any

from server.chat.conversations.redaction import Redaction, remove_memory_lines
from server.chat.events import AnswerDelta, ChatsFound, Closed, MemoriesUsed, MemorySaved, TurnEvent
from server.errors import NotFound
from server.types import UserId


class TurnStream:
    def __init__(self, user: UserId, message_id: str) -> None:
        self.user = user
        self.message_id = message_id
        self.finished_at: float | None = None
        self._events: list[TurnEvent] = []
        self._new_event = asyncio.Event()

    def publish(self, kind: type[TurnEvent], **fields: Any) -> None:
        """Appends one event with the next number and wakes the readers."""
        event = kind(message_id=self.message_id, seq=len(self._events) + 1, **fields)
        self._events.append(event)
        if isinstance(event, Closed):
            self.finished_at = time.monotonic()
        self._new_event.set()
        self._new_event = asyncio.Event()

    def redact(self, redaction: Redaction) -> None:
        """Removes it from the events that later readers get; the event that says it was deleted stays."""
        for index, event in enumerate(self._events):
            if isinstance(event, MemoriesUsed | MemorySaved):
                self._events[index] = replace(event, memories=redaction.remaining(event.memories))
            elif isinstance(event, ChatsFound):
                remaining_turns = tuple(turn for turn in event.turns if turn.conversation_id not in redaction.chats)
                self._events[index] = replace(event, turns=remaining_turns)
            elif isinstance(event, AnswerDelta):
                self._events[index] = replace(event, text=remove_memory_lines(event.text, redaction.texts))

    async def follow(self, after_seq: int = 0) -> AsyncIterator[TurnEvent]:
        """Events numbered above `after_seq`, those to come included, up to `closed`."""
        position = max(after_seq, 0)
        while True:
            new_event = self._new_event
            while position < len(self._events):
                event = self._events[position]
                position += 1
                yield event
            if self.finished_at is not None:
                return
            await new_event.wait()


class StreamRegistry:
    """Running streams, and finished ones for `retention_seconds`."""

    def __init__(self, retention_seconds: float) -> None:
        self._retention_seconds = retention_seconds
        self._streams: dict[str, TurnStream] = {}

    def open(self, user: UserId, message_id: str) -> TurnStream:
        self._sweep()
        stream = TurnStream(user, message_id)
        self._streams[message_id] = stream
        return stream

    def get(self, user: UserId, message_id: str) -> TurnStream:
        self._sweep()
        stream = self._streams.get(message_id)
        if stream is None or stream.user != user:
            raise NotFound(f"no running or recent answer '{message_id}' of yours; fetch its conversation instead")
        return stream

    def redact(self, user: UserId, redaction: Redaction) -> None:
        for stream in self._streams.values():
            if stream.user == user:
                stream.redact(redaction)

    def drop(self, user: UserId, message_ids: Collection[str] | None = None) -> None:
        """Forgets streams of the user: all, or those of these answers. Who follows one still reads it to its end."""
        for message_id, stream in list(self._streams.items()):
            if stream.user == user and (message_ids is None or message_id in message_ids):
                del self._streams[message_id]

    def _sweep(self) -> None:
        now = time.monotonic()
        for message_id, stream in list(self._streams.items()):
            if stream.finished_at is not None and now - stream.finished_at > self._retention_seconds:
                del self._streams[message_id]

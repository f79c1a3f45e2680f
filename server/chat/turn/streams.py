"""Event streams of turns, which outlive the connection that asked for them.

A `TurnStream` numbers what its turn publishes and lets any number of readers follow from any number on.
It belongs to one event loop and knows nothing of sockets or the database.

Of an answer's tokens only the texts are kept: finished streams stay for minutes, and an object for each token would be
looked through by every full garbage collection, which holds the whole server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from typing import Any

from server.chat.conversations.redaction import Redaction, remove_memory_lines
from server.chat.events import AnswerDelta, ChatsFound, Closed, MemoriesUsed, MemorySaved, Started, TurnEvent
from server.errors import NotFound
from server.types import UserId


class TurnStream:
    def __init__(self, user: UserId, message_id: str) -> None:
        self.user = user
        self.message_id = message_id
        self.finished_at: float | None = None
        self._events: list[TurnEvent | str] = []  # the text of an `AnswerDelta`, or any other event
        self._redactions: list[Redaction] = []  # what was deleted since it began
        self._new_event = asyncio.Event()

    def publish(self, kind: type[TurnEvent], **fields: Any) -> None:
        """Appends one event with the next number and wakes the readers."""
        event = kind(message_id=self.message_id, seq=len(self._events) + 1, **fields)
        for redaction in self._redactions:
            event = _redacted(event, redaction)
        self._events.append(event.text if isinstance(event, AnswerDelta) else event)
        if isinstance(event, Closed):
            self.finished_at = time.monotonic()
        self._new_event.set()
        self._new_event = asyncio.Event()

    def redact(self, redaction: Redaction) -> None:
        """Removes it from the events that later readers get, those to come included; the event that says it was
        deleted stays."""
        self._events = [
            remove_memory_lines(event, redaction.texts) if isinstance(event, str) else _redacted(event, redaction)
            for event in self._events
        ]
        if self.finished_at is None:
            self._redactions.append(redaction)

    async def follow(self, after_seq: int = 0) -> AsyncIterator[TurnEvent]:
        """Events numbered above `after_seq`, those to come included, up to `closed`."""
        position = max(after_seq, 0)
        while True:
            new_event = self._new_event
            while position < len(self._events):
                event = self._events[position]
                position += 1
                yield AnswerDelta(self.message_id, position, event) if isinstance(event, str) else event
            if self.finished_at is not None:
                return
            await new_event.wait()


def _redacted(event: TurnEvent, redaction: Redaction) -> TurnEvent:
    if isinstance(event, MemoriesUsed | MemorySaved):
        return replace(event, memories=redaction.remaining(event.memories))
    if isinstance(event, ChatsFound):
        turns = (turn for turn in event.turns if turn.conversation_id not in redaction.chats)
        return replace(
            event,
            turns=tuple(
                replace(turn, text=redaction.strike(turn.text), title=redaction.strike(turn.title)) for turn in turns
            ),
        )
    if isinstance(event, Started):
        return replace(event, title=redaction.strike(event.title))
    if isinstance(event, AnswerDelta):
        return replace(event, text=remove_memory_lines(event.text, redaction.texts))
    return event


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

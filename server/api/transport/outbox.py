"""What waits to be sent to one client: bounded, in order. Whoever has more waits, so that a slow reader holds back
those who follow for it, and nothing is lost: a turn's stream keeps its events. Belongs to one event loop.

Knows nothing of sockets and turns.
"""

from __future__ import annotations

import asyncio
from collections import deque

from server.api.protocol import Changed, ServerFrame

OUTBOX_FRAMES = 64


class Outbox:
    def __init__(self, most: int = OUTBOX_FRAMES) -> None:
        self._room = asyncio.Semaphore(most)
        self._frames: deque[ServerFrame] = deque()
        self._changes: dict[str, Changed] = {}
        self._filled = asyncio.Event()

    async def put(self, frame: ServerFrame) -> None:
        """Waits while the outbox is full."""
        await self._room.acquire()
        self._frames.append(frame)
        self._filled.set()

    def note(self, change: Changed) -> None:
        """To be sent next. Never waits: one that says the same as one that waits says nothing new."""
        self._changes[change.what] = change
        self._filled.set()

    async def get(self) -> ServerFrame:
        while not (self._changes or self._frames):
            self._filled.clear()
            await self._filled.wait()
        if self._changes:
            return self._changes.pop(next(iter(self._changes)))
        self._room.release()
        return self._frames.popleft()

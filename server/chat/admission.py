"""Which messages are taken, whether new answers may begin, and how many are under way, of chats and of programs alike.

Before the server stops it drains: nothing begins any more, and what runs may end. Belongs to one event loop. Knows
nothing of what an answer is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from server.errors import Draining, InvalidInput


class Admission:
    def __init__(self) -> None:
        self.draining = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def check(self) -> None:
        """Raises Draining."""
        if self.draining:
            raise Draining("the server is about to stop and begins no new answer; try again in a moment")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While it is open, an answer that was admitted is under way."""
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def drain(self, seconds: float) -> int:
        """Admits nothing from now on, and waits for what runs. Returns how many answers are still under way."""
        self.draining = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
        return self._running


def check_message(text: str) -> None:
    """Raises InvalidInput where a user's text cannot be a message."""
    if not text.strip():
        raise InvalidInput("the message is empty; write something")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("the message is not valid Unicode (a lone surrogate); send UTF-8 text") from error
    if "\0" in text:
        raise InvalidInput("the message holds a NUL character; remove it")

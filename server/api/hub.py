"""Publishes to open connections that a list changed. Belongs to one event loop; `announce` may be called from any
thread. Knows nothing of sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from server.api.protocol import Changed
from server.types import UserId


class Hub:
    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: dict[Callable[[Changed], None], UserId] = {}

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def subscribe(self, user: UserId, listener: Callable[[Changed], None]) -> Callable[[], None]:
        """`listener` is called on the loop; call what is returned to unsubscribe."""
        self._listeners[listener] = user

        def unsubscribe() -> None:
            self._listeners.pop(listener, None)

        return unsubscribe

    def connections_of(self, user: UserId) -> int:
        """How many listeners the user has."""
        return sum(owner == user for owner in self._listeners.values())

    def announce(self, change: Changed, user: UserId | None = None) -> None:
        """To everybody, or to one user's connections."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, change, user)

    def _deliver(self, change: Changed, user: UserId | None) -> None:
        for listener, owner in list(self._listeners.items()):
            if user is None or owner == user:
                listener(change)

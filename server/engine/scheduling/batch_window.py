"""When an idle engine begins: requests that are sent together should start together.

A request that comes while the model computes another's prompt waits a whole step for its first token, and is behind the
others by as many tokens to the end. So an idle engine waits a moment for those that are close: until all that are
announced have come, and none has come for some milliseconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager

_QUIET_S = 0.004      # nobody has come for so long
_PATIENCE_S = 0.040   # longer than that nobody waits for those who are announced


class Gathering:
    """`changed` guards the count of the announced, as all of the engine's state."""

    def __init__(self, changed: threading.Condition, most: int) -> None:
        self._changed = changed
        self._most = most
        self._expected = 0

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announces a request: until the block ends it is being prepared, or waits, or is about to be answered."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1

    def wait(self, waiting: Sized, stopping: Callable[[], bool]) -> None:
        """Returns when it is time to begin with those who wait; at once where nobody does. Holds the lock."""
        until = time.monotonic() + _PATIENCE_S
        seen = 0
        while seen < min(len(waiting), self._most) or (0 < seen < self._expected and time.monotonic() < until):
            seen = len(waiting)
            if self._changed.wait_for(stopping, _QUIET_S):
                return

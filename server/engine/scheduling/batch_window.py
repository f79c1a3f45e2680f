"""How long an idle engine waits before it starts a batch: requests that are sent together should start together.

A request that comes while the model computes another's prompt waits a whole step for its first token, and is behind the
others by as many tokens to the end. So an idle engine waits a moment for those that are close: until all that are
announced have come, and none has come for some milliseconds. Knows nothing of what the requests are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager

_QUIET_S = 0.004  # no request has come for so long
_MAX_WAIT_S = 0.040  # announced requests are waited for no longer


class BatchWindow:
    """`changed` guards the count of announced requests, as all of the engine's state."""

    def __init__(self, changed: threading.Condition, max_batch: int) -> None:
        self._changed = changed
        self._max_batch = max_batch
        self._announced = 0

    @contextmanager
    def announce_request(self) -> Iterator[None]:
        """Announces a request: until the block ends it is being prepared, or waits, or is about to be answered."""
        with self._changed:
            self._announced += 1
        try:
            yield
        finally:
            with self._changed:
                self._announced -= 1

    def wait(self, waiting: Sized, stopping: Callable[[], bool]) -> None:
        """Returns when it is time to start the requests that wait; at once where none does. Holds the lock."""
        until = time.monotonic() + _MAX_WAIT_S
        seen = 0
        while seen < min(len(waiting), self._max_batch) or (0 < seen < self._announced and time.monotonic() < until):
            seen = len(waiting)
            if self._changed.wait_for(stopping, _QUIET_S):
                return

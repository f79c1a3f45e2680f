"""Bounds on what a call may cost, for machines that others use too."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

ATTEMPTS = 4


def takes_at_most(seconds: float, work: Callable[[], object]) -> bool:
    """Whether one of some runs takes no more of this thread's time. A virtual processor that its host takes away counts
    as the thread's, and so does a collection of what other tests left: both only add."""
    gc.disable()
    try:
        return any(_seconds(work) <= seconds for _ in range(ATTEMPTS))
    finally:
        gc.enable()


def _seconds(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun

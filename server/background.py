"""Low-priority threads, for work that no answer waits for.

A model's step is as slow as the slowest of its threads: what takes half of one core takes half of the speed.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

NICE: Final = 5  # a third of the processor time another thread gets; a lock held here is still released soon


def background_worker(name: str) -> ThreadPoolExecutor:
    """One thread, which starts with its first task."""
    return ThreadPoolExecutor(1, name, _lower_priority)


def _lower_priority() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        thread_id = threading.get_native_id()  # relative: a server that was started with `nice` may not raise it again
        os.setpriority(os.PRIO_PROCESS, thread_id, os.getpriority(os.PRIO_PROCESS, thread_id) + NICE)

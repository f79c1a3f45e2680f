from __future__ import annotations

import os
import sys
import threading

import pytest

from server.background import NICE, background_worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_its_thread_alone_has_lower_priority() -> None:
    before = priority()
    with background_worker("tailor-test") as worker:
        assert worker.submit(lambda: threading.current_thread().name).result().startswith("tailor-test")
        assert worker.submit(priority).result() == before + NICE
    assert priority() == before


def test_a_server_with_low_priority_is_never_raised() -> None:
    """An ordinary user may not do that: the worker would not start."""
    seen: list[int] = []

    def nice_server() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        with background_worker("tailor-test") as worker:
            seen.append(worker.submit(priority).result())

    thread = threading.Thread(target=nice_server)
    thread.start()
    thread.join()
    assert seen == [10 + NICE]

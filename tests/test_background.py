from __future__ import annotations

import os
import sys
import threading

import pytest

from server.background import NICE, background_worker


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_it_stands_back_and_nobody_else_does() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with background_worker("tailor-test") as worker:
        assert worker.submit(lambda: threading.current_thread().name).result().startswith("tailor-test")
        of_worker = worker.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
    assert of_worker == min(NICE, 19)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    with background_worker("tailor-other") as worker:
        assert worker.submit(lambda: 1 + 1).result() == 2

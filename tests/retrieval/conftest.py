from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test cannot cut the power, and on a busy machine each fsync may take a second."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)

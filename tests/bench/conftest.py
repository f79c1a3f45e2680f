"""A tiny random Llama, and runs small enough for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.context import QUICK, TINY, Bench
from bench.models import random_llama


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Llama with a tokenizer made on the spot."""
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    random_llama(TINY, folder)
    return folder


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Bench:
    """A quick run on the tiny model; what it reports is thrown away."""
    return Bench("cpu", tmp_path, 1, QUICK, tiny, report=lambda text: None)

"""Fixtures of more than one part, and what holds for every test: tiers, seeds, and what to run again.

The default models are fetched once into the workspace's data folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import tiers

pytest_plugins = ["tests.deprecations"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Triton, which transformers may import, interprets its kernels where there is no card to compile them for.
CARD = any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg"))
os.environ.setdefault("TRITON_INTERPRET", "0" if CARD else "1")

# Given the same code, the same examples; and how long one takes is the machine's affair.
settings.register_profile("tailor", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tailor")

ROOT = Path(__file__).parent.parent
NEEDS = {
    "chat_model_dir": "model",
    "embedder_dir": "model",
    "english_embedder_dir": "model",
    "browser": "browser",
}  # by fixture


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run big suites whole (make test-long)")


def pytest_configure(config: pytest.Config) -> None:
    tiers.choose(long=config.getoption("--long"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who takes a model or a browser is marked so, and thus left out of `make check`, whoever forgot to say it.

    Files with a slow test come first, then those of the browser: each is one worker's, and a long one that comes last
    keeps the other waiting.
    """
    for item in items:
        for mark in {NEEDS[name] for name in getattr(item, "fixturenames", ()) if name in NEEDS}:
            item.add_marker(mark)
    first, then = ("slow", "model"), ("browser",)
    slow, browser = (
        {item.path for item in items if any(item.get_closest_marker(name) for name in names)} for names in (first, then)
    )
    items.sort(key=lambda item: 0 if item.path in slow else 1 if item.path in browser else 2)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What to type to run the failed tests again."""
    reports = [*terminalreporter.stats.get("failed", ()), *terminalreporter.stats.get("error", ())]
    failed = list(dict.fromkeys(report.nodeid for report in reports))
    if failed:
        terminalreporter.section("run again")
        for nodeid in failed:
            terminalreporter.line(f".venv/bin/pytest '{nodeid}'")


@pytest.fixture(scope="session")
def chat_model_dir() -> Path:
    """The default chat model as a safetensors folder."""
    from server.model_store import ModelStore

    return Path(ModelStore(ROOT / "data" / "models").chat_model("smollm2-135m-instruct"))


@pytest.fixture(scope="session")
def embedder_dir() -> Path:
    from server.model_store import ModelStore

    return Path(ModelStore(ROOT / "data" / "models").embedder("multilingual-e5-small"))


@pytest.fixture
def few_texts_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedder is calibrated in seconds; with all texts where suites run whole."""
    from server.embedding import calibration

    for name in ("read_pairs", "read_languages"):
        texts = getattr(calibration, name)()[:: tiers.cases(9, 1)]
        monkeypatch.setattr(calibration, name, lambda texts=texts: texts)


@pytest.fixture(scope="session")
def english_embedder_dir() -> Path:
    """The smaller one, which knows English alone."""
    from server.model_store import ModelStore

    return Path(ModelStore(ROOT / "data" / "models").embedder("all-minilm-l6-v2"))

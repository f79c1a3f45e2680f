"""Fixtures of more than one part. The default models are fetched once into the workspace's data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.deprecations"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Given the same code, the same examples; and how long one takes is the machine's affair.
settings.register_profile("tailor", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tailor")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def chat_model_dir() -> Path:
    """The default chat model as a safetensors folder."""
    from server.model_store import ModelStore

    return Path(ModelStore(ROOT / "data" / "models").chat_model("smollm2-135m-instruct"))


@pytest.fixture(scope="session")
def embedder_dir() -> Path:
    from server.model_store import ModelStore

    return Path(ModelStore(ROOT / "data" / "models").embedder("all-minilm-l6-v2"))

"""Fixtures of more than one part. The default models are fetched once into the workspace's data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

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

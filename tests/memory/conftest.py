"""A store over a real SQLite file, with the word embedder of the fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import MemorySettings
from server.database import Database
from server.memory import MemoryStore, UserMemory
from server.types import UserId
from tests.fakes import WordEmbedder

MINA, JUN = UserId("user-mina"), UserId("user-jun")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "tailor.db")


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def store(database: Database, embedder: WordEmbedder) -> MemoryStore:
    return MemoryStore(database, embedder, MemorySettings())


@pytest.fixture
def mina(store: MemoryStore) -> UserMemory:
    return store.of(MINA)


@pytest.fixture
def jun(store: MemoryStore) -> UserMemory:
    return store.of(JUN)

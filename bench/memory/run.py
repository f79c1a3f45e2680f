"""What every figure of memory is given: the embedder, the data that stands beside this file, and how large the work is.

Knows nothing of figures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.embedding import Embedding
from server.config import MemorySettings
from server.database import Database
from server.memory import MemoryStore
from server.types import Embedder

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sizes:
    """How large each figure's work is; None takes the whole set."""

    memories: int = 10_000  # of one user
    users: int = 1_000
    each: int = 40  # memories of every other user, …
    usual: int = 300  # … and of one of them
    recalls: int = 1_000
    steps: int = 10_000
    cases: int | None = None


FULL = Sizes()
QUICK = Sizes(memories=300, users=8, each=5, usual=20, recalls=30, steps=200, cases=6)


@dataclass(frozen=True)
class Run(Embedding):
    """`data`: the folder of the evaluation sets."""

    folder: Path
    data: Path | None = None
    sizes: Sizes = FULL

    def database(self, name: str) -> Database:
        """A new file each time."""
        number = len([*self.folder.glob(f"{name}-*.db")])
        return Database(self.folder / f"{name}-{number}.db")

    def store(self, name: str, embedder: Embedder | None = None) -> MemoryStore:
        """An empty store over a new file, with the settings that ship."""
        return MemoryStore(self.database(name), embedder or self.embedder, MemorySettings())


def rows(name: str) -> list[dict[str, Any]]:
    """The lines of a JSON lines file beside this one."""
    text = (HERE / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]

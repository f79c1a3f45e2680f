"""The embedder that a part is measured with, and the folder that it works in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench.context import ROOT
from bench.knowledge.embedders import Remembering
from server.config import DEFAULT_EMBEDDER
from server.embedding import SentenceEmbedder
from server.model_store import ModelStore


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """`embedder_path`: of another embedder than the default."""

    embedder_path: Path | None = None
    report: Callable[[str], None] = field(default=print)

    @cached_property
    def embedder_folder(self) -> Path:
        store = ModelStore(ROOT / "data" / "models", report=self.report)
        return self.embedder_path or Path(store.embedder(DEFAULT_EMBEDDER))

    @cached_property
    def embedder(self) -> Remembering:
        """One for the run: what was embedded is not embedded again, and time spent in it is known."""
        return Remembering(SentenceEmbedder(str(self.embedder_folder)))

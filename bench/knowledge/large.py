"""An index of many chunks: files of varied real texts, with vectors of the fast stand-in.

The stand-in bears the real embedder's fingerprint, so the index that it has made is opened with the real one: new files
and questions are embedded for real.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.knowledge import sets
from bench.knowledge.embedders import Fast, Remembering
from bench.knowledge.run import Run
from server.config import RetrievalSettings
from server.retrieval import KnowledgeBase

FOLDER = "large"


@dataclass(frozen=True)
class Large:
    """`chunks` of them at least, in about a tenth as many files."""

    run: Run
    chunks: int
    files: int

    @property
    def place(self) -> Path:
        return self.run.folder / f"large-{self.chunks}"

    @property
    def root(self) -> Path:
        return self.place / "knowledge"

    @cached_property
    def texts(self) -> list[str]:
        english, _ = sets.chunking(self.run.data)
        korean, _ = sets.korquad(self.run.data)
        return [*english.values(), *korean.values()]

    @cached_property
    def embedder(self) -> Remembering:
        return self.run.embedder

    def made(self) -> KnowledgeBase:
        """The index, synced; built the first time."""
        if not self.root.exists():
            self._build()
        return KnowledgeBase(self.root, self.place / "index", self.embedder, RetrievalSettings())

    def questions(self, count: int) -> list[str]:
        """Of both sets, so both languages; embedded already."""
        english, korean = sets.chunking(self.run.data)[1], sets.korquad(self.run.data)[1]
        half = [one.text for one in sets.sample(english, count // 2)]
        asked = [*half, *(one.text for one in sets.sample(korean, count - len(half)))]
        self.embedder.embed(asked)
        return asked

    def _build(self) -> None:
        self.run.report(f"building an index of {self.chunks} chunks …")
        paragraphs = sets.varied(self.texts)
        each = -(-self.chunks // self.files)
        folder = self.root / FOLDER
        for number in range(self.files):
            path = folder / f"{number // 100:03}" / f"{number:05}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n\n".join(itertools.islice(paragraphs, each)), encoding="utf-8")
        fast = KnowledgeBase(self.root, self.place / "index", Fast(self.embedder), RetrievalSettings())
        fast.sync()

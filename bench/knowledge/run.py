"""What every figure of knowledge is given: the sets, the embedder, a folder to work in, and how large the work is.

Knows nothing of figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench.context import ROOT
from bench.knowledge.embedders import Remembering
from server.config import DEFAULT_EMBEDDER, RetrievalSettings
from server.embedding import SentenceEmbedder
from server.model_store import ModelStore
from server.retrieval import KnowledgeBase


@dataclass(frozen=True)
class Sizes:
    """How large each figure's work is; None takes the whole set."""

    questions: int | None = None   # of a set
    corpus_chars: int | None = None  # of each corpus of the chunking set
    chunks: int = 100_000
    small: int = 1_000             # chunks of the index that the large one is compared with
    files: int = 10_000            # of the large one
    searches: int = 1_000
    saves: int = 30
    changes: int = 15
    rate: float = 8.0              # queries a second while files are saved
    swaps: int = 200
    kills: int = 50
    kill_files: int = 400
    starts: int = 5


FULL = Sizes()
QUICK = Sizes(
    questions=6, corpus_chars=12_000, chunks=600, small=150, files=60, searches=20, saves=3, changes=2, swaps=6,
    kills=2, kill_files=30, starts=1,
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """`data`: the folder of the sets. `embedder_path`: of another embedder than the default."""

    folder: Path
    data: Path | None
    sizes: Sizes = FULL
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

    def base(self, name: str, files: dict[str, str], settings: RetrievalSettings | None = None) -> KnowledgeBase:
        """An index of one folder with these files, in step with them; made once a run."""
        root = self.folder / name / "knowledge"
        if not root.exists():
            for file, text in files.items():
                path = root / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="")
        made = KnowledgeBase(root, self.folder / name / "index", self.embedder, settings or RetrievalSettings())
        made.sync()
        return made

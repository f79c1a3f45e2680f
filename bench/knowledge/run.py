"""What every figure of knowledge is given: the sets, the embedder, a folder to work in, and how large the work is.

Knows nothing of figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.embedding import Embedding
from server.config import RetrievalSettings
from server.retrieval import KnowledgeBase


@dataclass(frozen=True)
class Sizes:
    """How large each figure's work is; None takes the whole set."""

    questions: int | None = None  # of a set
    corpus_chars: int | None = None  # of each corpus of the chunking set
    chunks: int = 100_000
    small: int = 1_000  # chunks of the index that the large one is compared with
    files: int = 10_000  # of the large one
    searches: int = 1_000
    saves: int = 30
    changes: int = 15
    rate: float = 8.0  # queries a second while files are saved
    swaps: int = 200
    kills: int = 50
    kill_files: int = 400
    starts: int = 5
    note_bytes: int = 30_000_000  # of the file beside which a note is saved


FULL = Sizes()
QUICK = Sizes(
    questions=6, corpus_chars=12_000, chunks=600, small=150, files=60, searches=20, saves=3, changes=2, swaps=6,
    kills=2, kill_files=30, starts=1, note_bytes=2_000_000,
)  # fmt: skip


@dataclass(frozen=True)
class Run(Embedding):
    """`data`: the folder of the sets."""

    folder: Path
    data: Path | None
    sizes: Sizes = FULL

    def base(self, name: str, files: dict[str, str], settings: RetrievalSettings | None = None) -> KnowledgeBase:
        """A synced index of one folder with these files; made once a run."""
        root = self.folder / name / "knowledge"
        if not root.exists():
            for file, text in files.items():
                path = root / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="")
        made = KnowledgeBase(root, self.folder / name / "index", self.embedder, settings or RetrievalSettings())
        made.sync()
        return made

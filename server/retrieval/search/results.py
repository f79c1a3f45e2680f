"""What a search gives: passages, and why it was these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.types import Passage


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that a search looked at, and what became of it.

    Scores are between 0 and 1; `dense` is None where the passage was not compared by meaning. Ranks count from 1 and
    are None beyond the best that were looked at. Candidates stand in the order of `reranked`, then of `fused`. `fate`
    is one of `FATES`.
    """

    passage: Passage
    dense: float | None
    dense_rank: int | None
    lexical: float
    lexical_rank: int | None
    fused: float
    fused_rank: int
    coverage: float
    gate: str   # what let it through the evidence gate: "meaning", "words", "earlier", or "" for nothing
    fate: str
    reranked: float | None = None  # by the cross-encoder, on its own scale; None where it was not asked


FATES: Final = ("used", "no evidence", "far below the best", "poses as an instruction", "near copy", "beyond the limit")


@dataclass(frozen=True, slots=True)
class SearchTrace:
    """Why a search gave what it gave. `queries` are what was looked for: the question, and with it the one before.
    `dense_weight` is the share of the dense score; 0 where the embedder does not know the question's language."""

    queries: tuple[str, ...]
    dense_weight: float
    min_similarity: float
    min_coverage: float
    rows: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages of one index generation, best first; empty when nothing passed the evidence gate.

    `folders` are those of the folders asked that hold something. `unread` files are in the folders asked, and are
    still being read: the generation does not know them, or not as they are now.
    """

    passages: tuple[Passage, ...]
    generation: int
    folders: tuple[str, ...]
    unread: int = 0
    trace: SearchTrace | None = None

"""What a search returns: passages, and the trace that explains them. The trace's field names are those of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.types import Passage


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that a search considered, and its fate.

    Scores are between 0 and 1; `dense`, the likelihood by meaning alone, is None where that was not compared. Ranks
    count from 1 and are None beyond the best that were considered. Candidates are in the order of `reranked`, then of
    `fused`. `fate` is one of `FATES`.
    """

    passage: Passage
    dense: float | None
    dense_rank: int | None
    lexical: float
    lexical_rank: int | None
    fused: float
    fused_rank: int
    coverage: float
    likelihood: float  # that it answers, from all of these
    gate: str  # what let it pass the evidence gate: "meaning", "words", "earlier", or "" for nothing
    fate: str
    reranked: float | None = None  # by the cross-encoder, on its own scale; None where it was not used


FATES: Final = ("used", "no evidence", "far below the best", "poses as an instruction", "near copy", "beyond the limit")


@dataclass(frozen=True, slots=True)
class SearchTrace:
    """How a search came to its passages. `queries` are what was searched for: the question, and it with the one before.
    `dense_weight` is the share of the dense score; 0 where the embedder does not know the question's language."""

    queries: tuple[str, ...]
    dense_weight: float
    min_likelihood: float
    rows: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages of one index generation, best first; empty when nothing passed the evidence gate.

    `folders` are those of the folders searched that have chunks. `unread` files are in the folders searched and still
    pending: the generation does not have them, or not as they are now.
    """

    passages: tuple[Passage, ...]
    generation: int
    folders: tuple[str, ...]
    unread: int = 0
    trace: SearchTrace | None = None

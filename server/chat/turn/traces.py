"""Search traces: why an answer had its sources, stored beside the answer.

A trace lists the candidates and the fate of each, with the beginning of its text, so that it stays small; and of those
that were to be used, which the prompt's budget left out. Blocking, as all of the store. Knows nothing of how a search
scores.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from pydantic import TypeAdapter

from server.database import Database
from server.errors import NotFound
from server.retrieval import Candidate, SearchResult
from server.types import UserId

MAX_TEXT_CHARS: Final = 160  # characters of a candidate's text
NO_ROOM: Final = "no room"  # the fate of what the prompt's budget left out

MIGRATIONS = (
    """
    CREATE TABLE traces (
        message_id TEXT PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE, user_id TEXT NOT NULL,
        trace BLOB NOT NULL
    ) WITHOUT ROWID;
    """,
)


@dataclass(frozen=True, slots=True)
class TracedCandidate:
    """As `server.retrieval.Candidate`, with the beginning of the passage's text. `place` is 'lines 3-9' or alike."""

    id: str
    folder: str
    file: str
    place: str
    heading: tuple[str, ...]
    text: str
    line_start: int | None
    line_end: int | None
    page: int | None
    dense: float | None
    dense_rank: int | None
    lexical: float
    lexical_rank: int | None
    fused: float
    fused_rank: int
    coverage: float
    gate: str
    fate: str
    reranked: float | None = None
    likelihood: float | None = None  # None in traces of versions that had none


@dataclass(frozen=True, slots=True)
class AnswerTrace:
    """One search in one generation of the index. `folders` are those that are not empty."""

    generation: int
    folders: tuple[str, ...]
    queries: tuple[str, ...]
    dense_weight: float
    rows: int
    candidates: tuple[TracedCandidate, ...]
    min_likelihood: float | None = None  # None in traces of versions that had none


def answer_trace(result: SearchResult, prompt_passages: Collection[str] | None = None) -> AnswerTrace:
    """`prompt_passages` are the ids of the passages that the prompt had room for; None: there was no prompt."""
    trace = result.trace
    if trace is None:
        raise ValueError("the search was made without a trace: search(…, traced=True)")
    candidates = tuple(map(_traced, trace.candidates))
    if prompt_passages is not None:
        candidates = tuple(
            replace(candidate, fate=NO_ROOM)
            if candidate.fate == "used" and candidate.id not in prompt_passages
            else candidate
            for candidate in candidates
        )
    return AnswerTrace(
        result.generation, result.folders, trace.queries, trace.dense_weight, trace.rows, candidates,
        trace.min_likelihood,
    )  # fmt: skip


def _traced(candidate: Candidate) -> TracedCandidate:
    passage = candidate.passage
    text = " ".join(passage.text.split())
    return TracedCandidate(
        id=passage.id,
        folder=passage.folder,
        file=passage.file,
        place=passage.place,
        heading=passage.heading,
        text=text if len(text) <= MAX_TEXT_CHARS else f"{text[: MAX_TEXT_CHARS - 1]}…",
        line_start=passage.line_start,
        line_end=passage.line_end,
        page=passage.page,
        dense=candidate.dense,
        dense_rank=candidate.dense_rank,
        lexical=candidate.lexical,
        lexical_rank=candidate.lexical_rank,
        fused=candidate.fused,
        fused_rank=candidate.fused_rank,
        coverage=candidate.coverage,
        gate=candidate.gate,
        fate=candidate.fate,
        reranked=candidate.reranked,
        likelihood=candidate.likelihood,
    )


_TRACE: TypeAdapter[AnswerTrace] = TypeAdapter(AnswerTrace)


class TraceStore:
    """Needs the tables of `ConversationStore`. A trace goes with its message."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate("traces", MIGRATIONS)

    def save(self, user: UserId, message_id: str, trace: AnswerTrace) -> None:
        """Silently does nothing if the message was deleted meanwhile."""
        compressed = zlib.compress(_TRACE.dump_json(trace))
        with self._database.transaction() as db:
            db.conn.execute(
                "INSERT OR REPLACE INTO traces SELECT id, user_id, ? FROM messages WHERE id = ? AND user_id = ?",
                (compressed, message_id, user),
            )

    def get(self, user: UserId, message_id: str) -> AnswerTrace:
        """Raises NotFound."""
        row = (
            self._database.connection()
            .conn.execute("SELECT trace FROM traces WHERE message_id = ? AND user_id = ?", (message_id, user))
            .fetchone()
        )
        if row is None:
            raise NotFound(f"no search is stored for message '{message_id}': its domain has no knowledge, or it is old")
        return _TRACE.validate_json(zlib.decompress(row[0]))

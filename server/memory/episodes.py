"""Past chats of a user, turn by turn: found again by words, meaning and date.

Every query names the user. A turn's row carries its vector with the embedder's fingerprint. The index in RAM follows
the table: new turns are read by their number, and a removal, which a counter tells of, has it built anew; so what
another process writes is seen too. All methods block; any thread may call them. Knows nothing of prompts or HTTP.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlite_utils import Database as Connection

from server.config import MemorySettings
from server.database import Database
from server.errors import InvalidInput
from server.memory.episode_index import EpisodeIndex
from server.memory.reading import clean
from server.memory.relevance import excerpt
from server.types import Embedder, UserId
from server.words import counted

MOST_CHARS: Final = 20_000  # kept of one turn: its beginning and end
MOST_FOUND: Final = 200
PIECE_CHARS: Final = 1_000  # embedders read no more of a text, so a longer one has the mean of its pieces' vectors
MOST_PIECES: Final = 8
SNIPPET_CHARS: Final = 240
ROLES: Final = ("user", "assistant")
TURNS_IN_RAM: Final = 200_000  # of all users together

MIGRATIONS = (
    """
    CREATE TABLE episodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_id TEXT NOT NULL,
        conversation_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        role TEXT NOT NULL,
        text TEXT NOT NULL,
        at REAL NOT NULL,
        vector BLOB,
        embedder TEXT NOT NULL,
        UNIQUE (user_id, message_id)
    );
    CREATE INDEX episodes_of_user ON episodes (user_id, id);
    CREATE INDEX episodes_of_conversation ON episodes (user_id, conversation_id);
    CREATE TABLE episode_removals (user_id TEXT PRIMARY KEY, number INTEGER NOT NULL);
    """,
)


@dataclass(frozen=True, slots=True)
class Episode:
    """A turn of a past chat. `at` is when it was said, in seconds since 1970."""

    conversation_id: str
    message_id: str
    role: str
    text: str
    at: float
    score: float = 0.0
    snippet: str = ""  # the part of the text that the question is about


@dataclass(slots=True)
class _Held:
    """A user's index, and how far it has followed the table."""

    index: EpisodeIndex
    removals: int
    fingerprint: str
    ids: list[int] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


class Episodes:
    """The past chats of all users. Makes its tables when built."""

    def __init__(self, database: Database, embedder: Embedder, settings: MemorySettings) -> None:
        self._database = database
        self._embedder = embedder
        self._settings = settings
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._lock = threading.RLock()
        database.migrate("episodes", MIGRATIONS)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def add(self, user: UserId, conversation_id: str, message_id: str, role: str, text: str, at: float) -> bool:
        """Keeps a turn, or its new text; False where there is nothing to keep. Embeds: call it off the reply path."""
        self._checked(user, conversation_id, message_id)
        if role not in ROLES:
            raise InvalidInput(f"a turn is of {' or '.join(ROLES)}, not of '{role}'")
        if not math.isfinite(at):
            raise InvalidInput("the time of a turn must be a number of seconds since 1970")
        kept = _shortened(clean(text).strip())
        if not kept:
            return False
        db = self._database.connection()
        own = {"user": user, "message": message_id}
        for row in db.query("SELECT text FROM episodes WHERE user_id = :user AND message_id = :message", own):
            if row["text"] == kept:
                return False
        vector = self._vector(kept)
        with self._database.transaction() as db:
            self._remove(db, "message_id = :message", own)
            db.execute(
                "INSERT INTO episodes (user_id, conversation_id, message_id, role, text, at, vector, embedder) "
                "VALUES (:user, :conversation, :message, :role, :text, :at, :vector, :embedder)",
                {**own, "conversation": conversation_id, "role": role, "text": kept, "at": at, "vector": vector,
                 "embedder": self._embedder.fingerprint},
            )  # fmt: skip
        return True

    def remove_conversation(self, user: UserId, conversation_id: str) -> int:
        """Deletes the turns of a chat for good; how many there were."""
        self._checked(user, conversation_id)
        with self._database.transaction() as db:
            return self._remove(db, "conversation_id = :conversation", {"user": user, "conversation": conversation_id})

    def remove_message(self, user: UserId, message_id: str) -> int:
        self._checked(user, message_id)
        with self._database.transaction() as db:
            return self._remove(db, "message_id = :message", {"user": user, "message": message_id})

    def erase(self, user: UserId) -> int:
        """Deletes all turns of the user; how many there were."""
        self._checked(user)
        with self._database.transaction() as db:
            return self._remove(db, "1", {"user": user})

    def _remove(self, db: Connection, which: str, values: dict[str, Any]) -> int:
        gone = int(db.execute(f"DELETE FROM episodes WHERE user_id = :user AND {which}", values).rowcount)
        if gone:
            db.execute(
                "INSERT INTO episode_removals VALUES (:user, 1) "
                "ON CONFLICT (user_id) DO UPDATE SET number = number + 1",
                {"user": values["user"]},
            )
        return gone

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def search(
        self, user: UserId, question: str, *, now: float, limit: int = 10, conversation: str | None = None
    ) -> tuple[Episode, ...]:
        """The turns that bear on the question, best first; of one chat only, if it is named."""
        self._checked(user)
        if not 1 <= limit <= MOST_FOUND:
            raise InvalidInput(f"a search of past chats gives 1 to {MOST_FOUND} turns, not {limit}")
        asked = clean(excerpt(question)).strip()
        if not asked:
            return ()
        vector = self._embedder.embed([asked])[0] if self._embedder.knows(asked) else None
        with self._lock:
            held = self._followed(user)
            found = self._best(held, asked, vector, limit, conversation)
        return self._episodes(user, found)

    def _best(
        self, held: _Held, asked: str, vector: NDArray[np.float32] | None, limit: int, conversation: str | None
    ) -> list[tuple[int, float]]:
        """Ids with their scores."""
        words = counted(asked)
        scores = held.index.scores(words, vector)
        bears = held.index.holding(words)
        if vector is not None:
            bears |= held.index.dense(vector) >= self._settings.min_similarity
        if conversation is not None:
            bears &= np.array([one == conversation for one in held.conversations], dtype=np.bool_)
        rows = np.flatnonzero(bears)
        rows = rows[np.argsort(-scores[rows], kind="stable")][:limit]
        return [(held.ids[row], float(scores[row])) for row in rows]

    def _episodes(self, user: UserId, found: Sequence[tuple[int, float]]) -> tuple[Episode, ...]:
        marks = ", ".join("?" * len(found))
        query = f"SELECT * FROM episodes WHERE user_id = ? AND id IN ({marks})"
        rows = {row["id"]: row for row in self._database.connection().query(query, [user, *(one for one, _ in found)])}
        return tuple(
            Episode(
                row["conversation_id"], row["message_id"], row["role"], row["text"], row["at"], score,
                row["text"][:SNIPPET_CHARS],
            )
            for one, score in found
            if (row := rows.get(one))
        )  # fmt: skip

    def _followed(self, user: UserId) -> _Held:
        """The user's index, in step with the table."""
        db = self._database.connection()
        counter = db.execute("SELECT number FROM episode_removals WHERE user_id = ?", [user]).fetchone()
        removals = int(counter[0]) if counter else 0
        held = self._held.pop(user, None)
        if held is None or held.removals != removals or held.fingerprint != self._embedder.fingerprint:
            held = _Held(EpisodeIndex(self._embedder.dimension), removals, self._embedder.fingerprint)
        after = held.ids[-1] if held.ids else 0
        for row in db.query("SELECT * FROM episodes WHERE user_id = ? AND id > ? ORDER BY id", [user, after]):
            current = row["vector"] and row["embedder"] == held.fingerprint
            vector = np.frombuffer(row["vector"], dtype=np.float32) if current else None
            held.index.add(row["conversation_id"], row["text"], vector)
            held.ids.append(row["id"])
            held.conversations.append(row["conversation_id"])
            held.times.append(row["at"])
        self._held[user] = held
        while len(self._held) > 1 and sum(len(one.ids) for one in self._held.values()) > TURNS_IN_RAM:
            self._held.popitem(last=False)
        return held

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _vector(self, text: str) -> bytes | None:
        """Float32; None for a text in a language the embedder does not know."""
        if not self._embedder.knows(text):
            return None
        pieces = [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)][:MOST_PIECES]
        mean = self._embedder.embed(pieces).mean(axis=0)
        return bytes((mean / max(float(np.linalg.norm(mean)), 1e-9)).astype(np.float32).tobytes())

    def _checked(self, user: str, *ids: str) -> None:
        if not user:
            raise InvalidInput("a past chat needs an owner; the user id is empty")
        if not all(ids):
            raise InvalidInput("a turn needs the ids of its chat and its message; one is empty")


def _shortened(text: str) -> str:
    half = MOST_CHARS // 2
    return text if len(text) <= MOST_CHARS else f"{text[:half]} … {text[-half:]}"

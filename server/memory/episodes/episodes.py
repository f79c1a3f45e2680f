"""Past chats of a user, turn by turn: found again by words, meaning, speaker and date.

Every SQL statement names the user. A row carries its vector with the embedder's fingerprint; vectors of another
embedder are made anew by `reembed`, and until then such turns are found by their words. Each row has the number of the
user's change that wrote it, so the index in RAM reads only what is new; a removal has it built again. What another
process writes is seen the same way. All methods block; any thread may call them. Knows nothing of prompts or HTTP.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlite_utils import Database as Connection

from server.config import MemorySettings
from server.database import Database
from server.errors import InvalidInput
from server.memory.episodes.index import EpisodeIndex, EpisodeQuery, IndexedTurn
from server.memory.reading.dates import named_period
from server.memory.reading.own_words import clean
from server.memory.recall.relevance import excerpt
from server.relations import Relation
from server.types import Embedder, UserId
from server.words import script_number, term_counts

MAX_CHARS: Final = 20_000  # kept of one turn: its beginning and end
MAX_RESULTS: Final = 200
CHUNK_CHARS: Final = 1_000  # an embedder reads little more of a text: a longer one has the mean of its chunks' vectors
MAX_CHUNKS: Final = 8
SNIPPET_CHARS: Final = 240
REEMBED_BATCH: Final = 32
MAX_CACHED_TURNS: Final = 200_000  # of all users together
ROLES: Final = ("user", "assistant")

# "what did I say", "you told me", "내가 뭐라고 했지"
_SAYING = r"(?:said|told|asked|mentioned|wrote|suggested|recommended|advised|explained|answered|promised)"
_BY_USER = re.compile(rf"\b(?:did|have|had) i\b|\bi (?:\w+ )?{_SAYING}\b|(?<![가-힣])(?:내가|제가)", re.IGNORECASE)
_BY_ASSISTANT = re.compile(
    rf"\b(?:did|have|had) you\b|\byou (?:\w+ )?{_SAYING}\b|(?<![가-힣])(?:네가|니가|너가|당신이)", re.IGNORECASE
)
_SENTENCE_START = re.compile(r"(?<=[.!?。！？])\s+|\n+")

MIGRATIONS = (
    """
    CREATE TABLE episodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_id TEXT NOT NULL,
        conversation_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        role TEXT NOT NULL,
        speaker TEXT NOT NULL,
        text TEXT NOT NULL,
        at REAL NOT NULL,
        named_from REAL,
        named_to REAL,
        vector BLOB,
        embedder TEXT NOT NULL,
        change INTEGER NOT NULL,
        UNIQUE (user_id, message_id)
    );
    CREATE INDEX episodes_changed ON episodes (user_id, change);
    CREATE INDEX episodes_of_conversation ON episodes (user_id, conversation_id);
    CREATE INDEX episodes_of_embedder ON episodes (embedder);
    CREATE TABLE episode_users (
        user_id TEXT PRIMARY KEY,
        changes INTEGER NOT NULL,
        removals INTEGER NOT NULL
    ) WITHOUT ROWID;
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
    speaker: str = ""
    sequence: int = 0  # rises from turn to turn


@dataclass(slots=True)
class _CachedIndex:
    """A user's index, and which changes of the table it has."""

    index: EpisodeIndex
    changes: int = 0
    removals: int = 0
    fingerprint: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Episodes:
    """The past chats of all users. Makes its tables when built."""

    def __init__(self, database: Database, embedder: Embedder, settings: MemorySettings) -> None:
        self._database = database
        self._embedder = embedder
        self._settings = settings
        self._cache: OrderedDict[str, _CachedIndex] = OrderedDict()
        self._lock = threading.Lock()
        database.migrate("episodes", MIGRATIONS)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def add(
        self,
        user: UserId,
        conversation_id: str,
        message_id: str,
        role: str,
        text: str,
        at: float,
        *,
        speaker: str = "",
        unless: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Keeps a turn, or its new text; False where it is kept already or blank. The turns of a chat come in order.

        `speaker` is the name of who said it, where it is known. `unless` is asked in the transaction: it was deleted
        meanwhile, and is not kept. Embeds: call it off the reply's path. Raises
        InvalidInput, StorageFull.
        """
        _check(user, conversation_id, message_id)
        if role not in ROLES:
            raise InvalidInput(f"a turn is of {' or '.join(ROLES)}, not of '{role}'")
        if not math.isfinite(at):
            raise InvalidInput("the time of a turn is a number of seconds since 1970; this is none")
        stored_text, speaker = _truncated(clean(text).strip()), clean(speaker).strip()[:100]
        key: dict[str, Any] = {"user": user, "message": message_id}
        if not stored_text or self._is_stored(key, stored_text):
            return False
        mentioned = named_period(stored_text, at) or (None, None)
        row = key | {
            "conversation": conversation_id, "role": role, "speaker": speaker, "text": stored_text, "at": at,
            "named_from": mentioned[0], "named_to": mentioned[1], "vector": self._embed(speaker, stored_text),
            "embedder": self._embedder.fingerprint,
        }  # fmt: skip
        with self._database.transaction() as db:
            if unless():
                return False
            _remove(db, "message_id = :message", key)
            db.execute(
                "INSERT INTO episodes (user_id, conversation_id, message_id, role, speaker, text, at, named_from, "
                "named_to, vector, embedder, change) VALUES (:user, :conversation, :message, :role, :speaker, :text, "
                ":at, :named_from, :named_to, :vector, :embedder, :change)",
                {**row, "change": _next_change(db, user)},
            )
        return True

    def remove_conversation(self, user: UserId, conversation_id: str) -> int:
        """Deletes the turns of a chat for good; how many there were."""
        _check(user, conversation_id)
        with self._database.transaction() as db:
            return _remove(db, "conversation_id = :conversation", {"user": user, "conversation": conversation_id})

    def remove_message(self, user: UserId, message_id: str) -> int:
        _check(user, message_id)
        with self._database.transaction() as db:
            return _remove(db, "message_id = :message", {"user": user, "message": message_id})

    def redact(self, user: UserId, texts: Mapping[str, str]) -> None:
        """Gives turns, by message, the text that is left of them; where none is, they are deleted. Until `reembed` they
        are found by their words."""
        with self._database.transaction() as db:
            for message_id, text in texts.items():
                key: dict[str, Any] = {"user": user, "message": message_id, "text": _truncated(clean(text).strip())}
                if not any(char.isalnum() for char in text):
                    _remove(db, "message_id = :message", key)
                    continue
                query = "SELECT at FROM episodes WHERE user_id = :user AND message_id = :message AND text <> :text"
                for (at,) in db.execute(query, key).fetchall():
                    start, end = named_period(key["text"], at) or (None, None)
                    db.execute(
                        "UPDATE episodes SET text = :text, vector = NULL, embedder = '', named_from = :start, "
                        "named_to = :end, change = :change WHERE user_id = :user AND message_id = :message",
                        key | {"start": start, "end": end, "change": _next_change(db, user)},
                    )
                    _count_removal(db, user)

    def erase(self, user: UserId) -> int:
        """Deletes all turns of the user; how many there were."""
        _check(user)
        with self._database.transaction() as db:
            return erase(db, user)

    def reembed(self, limit: int = REEMBED_BATCH) -> int:
        """Embeds turns anew that have another embedder's vectors; how many it did, 0 when there are none left."""
        current = self._embedder.fingerprint
        query = "SELECT * FROM episodes WHERE embedder <> ? LIMIT ?"
        stale = list(self._database.connection().query(query, [current, limit]))
        for row in stale:
            row |= {"vector": self._embed(row["speaker"], row["text"]), "embedder": current}
        with self._database.transaction() as db:
            for row in stale:
                db.execute(
                    "UPDATE episodes SET vector = :vector, embedder = :embedder, change = :change "
                    "WHERE user_id = :user_id AND id = :id AND text = :text",
                    row | {"change": _next_change(db, row["user_id"])},
                )
        return len(stale)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def search(
        self, user: UserId, question: str, *, now: float, limit: int = 10, conversation: str | None = None
    ) -> tuple[Episode, ...]:
        """The turns that bear on the question, best first; of one chat only, if it is named.

        Days that the question names ("on Tuesday", "지난주") are counted from `now`; what was said then comes first.
        Raises InvalidInput.
        """
        _check(user)
        if not 1 <= limit <= MAX_RESULTS:
            raise InvalidInput(f"a search of past chats gives 1 to {MAX_RESULTS} turns, not {limit}")
        text = clean(excerpt(question)).strip()
        if not text:
            return ()
        vector = self._embedder.embed([text])[0] if self._embedder.knows(text) else None
        query = EpisodeQuery(term_counts(text), vector, named_period(text, now), _roles(text), script_number(text))
        cached = self._index_of(user)
        with cached.lock:
            self._sync(user, cached)
            found = cached.index.search(query, limit, self._is_about, chat=conversation)
        return self._episodes(user, found, query)

    def _is_about(self, cosines: NDArray[np.float32], crossing: NDArray[np.bool_]) -> NDArray[np.bool_]:
        likely = self._embedder.likelihood(Relation.SUBJECT, cosines, crossing=crossing)
        return np.asarray(likely >= self._settings.min_likelihood)

    def _episodes(self, user: UserId, found: Sequence[tuple[int, float]], query: EpisodeQuery) -> tuple[Episode, ...]:
        marks = ", ".join("?" * len(found))
        sql = (  # the plus: by number, not through all rows of the user
            "SELECT id, conversation_id, message_id, role, speaker, text, at FROM episodes "
            f"WHERE +user_id = ? AND id IN ({marks})"
        )
        rows = {row["id"]: row for row in self._database.connection().query(sql, [user, *(one for one, _ in found)])}
        return tuple(
            Episode(
                row["conversation_id"], row["message_id"], row["role"], row["text"], row["at"], score,
                _snippet(row["text"], query.terms), row["speaker"], row["id"],
            )
            for one, score in found
            if (row := rows.get(one))
        )  # fmt: skip

    # ── the index ────────────────────────────────────────────────────────────────────────────────

    def _index_of(self, user: UserId) -> _CachedIndex:
        """The user's index, made the most recently used; the least recently used are evicted."""
        with self._lock:
            cached = self._cache.pop(user, None) or _CachedIndex(EpisodeIndex(self._embedder.dimension))
            self._cache[user] = cached
            while len(self._cache) > 1 and sum(len(one.index) for one in self._cache.values()) > MAX_CACHED_TURNS:
                self._cache.popitem(last=False)
        return cached

    def _sync(self, user: UserId, cached: _CachedIndex) -> None:
        """Brings the index up to date with the table: reads the rows that changed, or all after a removal."""
        db = self._database.connection()
        query = "SELECT changes, removals FROM episode_users WHERE user_id = ?"
        changes, removals = db.execute(query, [user]).fetchone() or (0, 0)
        if (removals, self._embedder.fingerprint) != (cached.removals, cached.fingerprint):
            cached.index = EpisodeIndex(self._embedder.dimension)
            cached.changes, cached.removals, cached.fingerprint = 0, removals, self._embedder.fingerprint
        if changes == cached.changes:
            return
        query = "SELECT * FROM episodes WHERE user_id = ? AND change > ? ORDER BY id"
        for row in db.query(query, [user, cached.changes]):
            cached.index.put(_indexed_turn(row, cached.fingerprint))
        cached.changes = changes

    def _is_stored(self, key: Mapping[str, str], text: str) -> bool:
        query = "SELECT 1 FROM episodes WHERE user_id = :user AND message_id = :message AND text = :text"
        return self._database.connection().execute(query, {**key, "text": text}).fetchone() is not None

    def _embed(self, speaker: str, text: str) -> bytes | None:
        """Float32; None for a text in a language the embedder does not know."""
        if not self._embedder.knows(text):
            return None
        spoken = f"{speaker}: {text}" if speaker else text
        chunks = [spoken[at : at + CHUNK_CHARS] for at in range(0, len(spoken), CHUNK_CHARS)][:MAX_CHUNKS]
        mean: NDArray[np.float32] = self._embedder.embed(chunks).mean(axis=0)
        return (mean / np.float32(max(float(np.linalg.norm(mean)), 1e-9))).tobytes()


def erase(db: Connection, user: UserId) -> int:
    """Deletes all turns of the user; how many there were. Inside a transaction."""
    return _remove(db, "TRUE", {"user": user})


def _check(user: str, *ids: str) -> None:
    if not user:
        raise InvalidInput("a past chat needs an owner; the user id is empty")
    if not all(ids):
        raise InvalidInput("a turn needs the ids of its chat and its message; one is empty")


def _next_change(db: Connection, user: str) -> int:
    """The number of the user's next change. Inside a transaction."""
    row = db.execute(
        "INSERT INTO episode_users VALUES (?, 1, 0) ON CONFLICT (user_id) DO UPDATE SET changes = changes + 1 "
        "RETURNING changes",
        [user],
    ).fetchone()
    return int(row[0])


def _remove(db: Connection, which: str, values: dict[str, Any]) -> int:
    """How many rows it deleted. Inside a transaction."""
    deleted = int(db.execute(f"DELETE FROM episodes WHERE user_id = :user AND {which}", values).rowcount)
    if deleted:
        _count_removal(db, values["user"])
    return deleted


def _count_removal(db: Connection, user: str) -> None:
    """Has the index in RAM built anew."""
    db.execute("UPDATE episode_users SET removals = removals + 1 WHERE user_id = ?", [user])


def _indexed_turn(row: Mapping[str, Any], fingerprint: str) -> IndexedTurn:
    current = row["vector"] is not None and row["embedder"] == fingerprint
    return IndexedTurn(
        row["id"],
        row["conversation_id"],
        row["role"],
        row["speaker"],
        row["text"],
        row["at"],
        None if row["named_from"] is None else (row["named_from"], row["named_to"]),
        np.frombuffer(row["vector"], dtype=np.float32) if current else None,
    )


def _roles(question: str) -> frozenset[str]:
    """Whose words are asked for, where only one side's are."""
    sides = {role for role, pattern in zip(ROLES, (_BY_USER, _BY_ASSISTANT), strict=True) if pattern.search(question)}
    return frozenset(sides if len(sides) == 1 else ())


def _truncated(text: str) -> str:
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else f"{text[:half]} … {text[-half:]}"


def _snippet(text: str, query: Mapping[str, int]) -> str:
    """From the sentence on that shares most terms with the question."""
    if len(text) <= SNIPPET_CHARS:
        return text
    starts = [0, *(found.end() for found in _SENTENCE_START.finditer(text))]
    ends = [*starts[1:], len(text)]
    shared = [len(term_counts(text[start:end]).keys() & query.keys()) for start, end in zip(starts, ends, strict=True)]
    start = starts[shared.index(max(shared))]
    cut = text[start : start + SNIPPET_CHARS].strip()
    return f"{'… ' if start else ''}{cut}{' …' if start + SNIPPET_CHARS < len(text) else ''}"

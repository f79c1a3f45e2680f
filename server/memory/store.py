"""Memories in SQLite. `MemoryStore.of(user)` is the only way to them, and every query names that user.

A memory that a newer answer to the same question replaces is kept, hidden, until the newer one is
deleted: so undo brings it back. Rows carry their vector with the embedder's fingerprint; vectors of another
embedder are made anew when they are next needed. All methods block; any thread may call them.
Knows nothing of prompts, chats or HTTP.
"""

from __future__ import annotations

import builtins
import time
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlite_utils import Database as Connection

from server.config import MemorySettings
from server.database import Database
from server.errors import Conflict, InvalidInput, NotFound, TooLarge
from server.memory.findings import ADDRESS, IDENTITY_SLOTS, NAME, Finding, Slot, normal, slot_of
from server.memory.reading import clean
from server.memory.relevance import MIN_OVERLAP, excerpt, overlap, similarities, terms
from server.memory.rules import extract
from server.memory.sensitive import is_sensitive
from server.types import Embedder, Memory, MemoryKind, UserId

MOST_MEMORIES = 1_000  # of one user
_LARGEST_ID = 2**63 - 1
# Zero-width and direction marks, which hide text; the joiner of emoji and scripts stays.
_INVISIBLE = frozenset("\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
_PROFILE = (MemoryKind.IDENTITY, MemoryKind.PREFERENCE, MemoryKind.INSTRUCTION)

MIGRATIONS = (
    """
    CREATE TABLE memories (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        quote TEXT NOT NULL,
        conversation_id TEXT,
        message_id TEXT,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        normal TEXT NOT NULL,
        slot TEXT,
        value TEXT,
        superseded_by INTEGER REFERENCES memories (id),
        superseded_at REAL,
        vector BLOB,
        embedder TEXT
    );
    CREATE INDEX memories_of_user ON memories (user_id, superseded_by, updated_at);
    CREATE INDEX memories_superseded ON memories (superseded_by);
    """,
)

_LIVE = "user_id = :user AND superseded_by IS NULL"


@dataclass(frozen=True, slots=True)
class _Draft:
    """A checked memory with its vector, ready to be written."""

    kind: MemoryKind
    text: str
    quote: str
    vector: bytes


class MemoryStore:
    """The memories of all users. Makes its table when built."""

    def __init__(self, database: Database, embedder: Embedder, settings: MemorySettings) -> None:
        self._database = database
        self._embedder = embedder
        self._settings = settings
        database.migrate("memory", MIGRATIONS)

    def of(self, user_id: UserId) -> UserMemory:
        if not user_id:
            raise InvalidInput("a memory needs an owner; the user id is empty")
        return UserMemory(self._database, self._embedder, self._settings, user_id)


class UserMemory:
    """One user's memories. Another user's id is NotFound, as one that never was."""

    def __init__(self, database: Database, embedder: Embedder, settings: MemorySettings, user_id: UserId) -> None:
        self._database = database
        self._embedder = embedder
        self._settings = settings
        self._user = user_id

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def list(self) -> tuple[Memory, ...]:
        """All that hold now, the latest change first."""
        return tuple(_memory(row) for row in self._live(self._database.connection()))

    def get(self, memory_id: int) -> Memory:
        return _memory(self._row(self._database.connection(), memory_id))

    def name(self) -> str:
        """What to call the user: the form of address they asked for, else their name, else ''."""
        rows = [row for row in self._live(self._database.connection()) if row["slot"] in (ADDRESS, NAME)]
        rows.sort(key=lambda row: row["slot"] != ADDRESS)
        return str(rows[0]["value"]) if rows else ""

    def recall(self, question: str, *, exclude: Collection[int] = ()) -> tuple[Memory, ...]:
        """What belongs beside `question`, the profile first; at most `settings.recall`, none of `exclude`.

        The profile (identity, preferences, instructions) is always meant, its newest `settings.recall`
        entries; older ones and facts only when they bear on the question. They may take half of the
        room from the profile, so that a long profile cannot hide them.
        """
        room = self._settings.recall
        rows = self._live(self._database.connection())
        profile = [row for row in rows if row["kind"] in _PROFILE][:room]
        always = {row["id"] for row in profile}
        others = [row for row in rows if row["id"] not in always and row["id"] not in exclude]
        relevant = self._relevant(clean(excerpt(question)), others)[:room]
        shown = [row for row in profile if row["id"] not in exclude]
        shown = shown[: max(room - len(relevant), room - room // 2)]
        return tuple(_memory(row) for row in [*shown, *relevant[: room - len(shown)]])

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def add(
        self,
        text: str,
        *,
        kind: MemoryKind = MemoryKind.FACT,
        quote: str = "",
        conversation_id: str | None = None,
        message_id: str | None = None,
    ) -> Memory:
        """Keeps `text`; one that is already there is made the latest instead.

        A FACT in which the rules see a name, a preference or an order takes that kind. Raises
        InvalidInput (empty, over `settings.max_chars`, a secret) and Conflict over `MOST_MEMORIES`.
        """
        said = self._checked(text)
        (draft,) = self._drafts([(_kind(said) if kind is MemoryKind.FACT else kind, said, clean(quote))])
        with self._database.transaction() as db:
            row_id, _ = self._write(db, draft, conversation_id, message_id)
            return _memory(self._row(db, row_id))

    def learn(self, text: str, *, conversation_id: str | None, message_id: str | None) -> tuple[Memory, ...]:
        """Keeps what the user's own turn says about them, and returns what is new.

        What is already known is only made the latest; a statement over `settings.max_chars`, and any
        beyond `MOST_MEMORIES`, is left out without an error. Quotes are cut from the turn in NFC.
        """
        source = clean(text)
        found = [
            (finding.kind, finding.text, source[finding.start : finding.end])
            for finding in extract(source)
            if len(finding.text) <= self._settings.max_chars
        ]
        drafts = self._drafts([(kind, _flat(said), quote) for kind, said, quote in found])
        if not drafts:
            return ()
        new: dict[int, None] = {}
        with self._database.transaction() as db:
            for draft in drafts:
                if self._count(db) >= MOST_MEMORIES:
                    break
                row_id, is_new = self._write(db, draft, conversation_id, message_id)
                if is_new:
                    new[row_id] = None
            rows = {row["id"]: row for row in self._live(db)}
        return tuple(_memory(rows[row_id]) for row_id in new if row_id in rows)

    def edit(self, memory_id: int, text: str) -> Memory:
        """Changes the text; the quote stays, as the record of what was said. Raises InvalidInput, NotFound."""
        self.get(memory_id)
        said = self._checked(text)
        (draft,) = self._drafts([(MemoryKind.FACT, said, "")])
        slot = _slot(said)
        with self._database.transaction() as db:
            before = self._row(db, memory_id)
            if slot is None and before["slot"] in (NAME, ADDRESS):  # 'Mina' typed over 'Name is Mina.'
                slot = Slot(before["slot"], said.rstrip("."))
            now = time.time()
            self._release(db, memory_id)
            if slot:
                self._supersede(db, slot, memory_id, now)
            db.execute(
                "UPDATE memories SET text = :text, normal = :normal, slot = :slot, value = :value, vector = :vector, "
                "embedder = :embedder, updated_at = :now WHERE user_id = :user AND id = :id",
                {**self._columns(draft, slot), "now": now, "user": self._user, "id": memory_id},
            )
            return _memory(self._row(db, memory_id))

    def delete(self, memory_id: int) -> None:
        """Deletes it for good; what it had replaced holds again. Raises NotFound."""
        with self._database.transaction() as db:
            self._row(db, memory_id)
            self._release(db, memory_id)
            db.execute("DELETE FROM memories WHERE user_id = :user AND id = :id", {"user": self._user, "id": memory_id})

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _live(self, db: Connection) -> builtins.list[dict[str, Any]]:
        return [
            *db.query(
                f"SELECT * FROM memories WHERE {_LIVE} ORDER BY updated_at DESC, id DESC",
                {"user": self._user},
            )
        ]

    def _row(self, db: Connection, memory_id: int) -> dict[str, Any]:
        if 0 < memory_id <= _LARGEST_ID:
            own = {"user": self._user, "id": memory_id}
            for row in db.query(f"SELECT * FROM memories WHERE {_LIVE} AND id = :id", own):
                return row
        raise NotFound(f"no memory {memory_id}")

    def _count(self, db: Connection) -> int:
        found = db.execute("SELECT count(*) FROM memories WHERE user_id = ?", [self._user]).fetchone()
        return int(found[0])

    def _checked(self, text: str) -> str:
        said = _flat(text)
        most = self._settings.max_chars
        if not said:
            raise InvalidInput("a memory needs some text")
        if len(said) > most:
            raise TooLarge(
                f"a memory may have at most {most:,} characters and this has {len(said):,}: "
                "shorten it, or raise memory.max_chars"
            )
        if is_sensitive(said):
            raise InvalidInput(
                "this looks like a password, a key, a card number or an identity number; memories are put into "
                "prompts, so it is not kept: leave the number out"
            )
        return said

    def _drafts(self, found: Sequence[tuple[MemoryKind, str, str]]) -> builtins.list[_Draft]:
        vectors = self._vectors([text for _, text, _ in found])
        return [_Draft(*entry, vector) for entry, vector in zip(found, vectors, strict=True)]

    def _vectors(self, texts: Sequence[str]) -> builtins.list[bytes]:
        """Float32 vectors as bytes; b'' for a text in a language the embedder does not know."""
        known = [text for text in texts if self._embedder.knows(text)]
        vectors = iter(self._embedder.embed(known) if known else ())
        wanted = set(known)
        return [next(vectors).astype(np.float32).tobytes() if text in wanted else b"" for text in texts]

    def _columns(self, draft: _Draft, slot: Slot | None) -> dict[str, Any]:
        return {
            "text": draft.text,
            "normal": normal(draft.text),
            "slot": slot.name if slot else None,
            "value": slot.value if slot else None,
            "vector": draft.vector,
            "embedder": self._embedder.fingerprint,
        }

    def _write(
        self, db: Connection, draft: _Draft, conversation_id: str | None, message_id: str | None
    ) -> tuple[int, bool]:
        """The row's id, and whether it is new. Inside a transaction."""
        slot, now = _slot(draft.text), time.time()
        columns = self._columns(draft, slot)
        same = {"user": self._user, **{key: columns[key] for key in ("normal", "slot", "value")}}
        for row in db.query(
            f"SELECT id FROM memories WHERE {_LIVE} AND (normal = :normal OR (slot = :slot AND value = :value))", same
        ):
            db.execute(
                "UPDATE memories SET updated_at = :now WHERE user_id = :user AND id = :id",
                {"now": now, "user": self._user, "id": row["id"]},
            )
            return int(row["id"]), False
        if self._count(db) >= MOST_MEMORIES:
            raise Conflict(f"there are {MOST_MEMORIES:,} memories, the most one user can have: delete some first")
        columns |= {
            "user_id": self._user,
            "kind": draft.kind.value,
            "quote": draft.quote,
            "conversation_id": conversation_id,
            "message_id": message_id,
            "created_at": now,
            "updated_at": now,
        }
        names = ", ".join(columns)
        values = ", ".join(f":{name}" for name in columns)
        row_id = int(db.execute(f"INSERT INTO memories ({names}) VALUES ({values})", columns).lastrowid or 0)
        if slot:
            self._supersede(db, slot, row_id, now)
        return row_id, True

    def _supersede(self, db: Connection, slot: Slot, by: int, now: float) -> None:
        """Hides what answered the slot until now."""
        db.execute(
            "UPDATE memories SET superseded_by = :by, superseded_at = :now "
            f"WHERE {_LIVE} AND slot = :slot AND id <> :by",
            {"user": self._user, "slot": slot.name, "by": by, "now": now},
        )

    def _release(self, db: Connection, memory_id: int) -> None:
        """Shows again what the memory had replaced."""
        db.execute(
            "UPDATE memories SET superseded_by = NULL, superseded_at = NULL "
            "WHERE user_id = :user AND superseded_by = :id",
            {"user": self._user, "id": memory_id},
        )

    def _relevant(self, question: str, rows: Sequence[dict[str, Any]]) -> builtins.list[dict[str, Any]]:
        """Those rows that bear on the question, best first."""
        asked = terms(question)
        scores = np.array([overlap(asked, terms(row["text"])) for row in rows], dtype=np.float32)
        passed = scores >= MIN_OVERLAP
        if rows and self._embedder.knows(question):
            dense = similarities(self._embedder.embed([question])[0], self._matrix(rows))
            passed |= dense >= self._settings.min_similarity
            scores = np.maximum(scores, dense)
        order = np.argsort(-scores, kind="stable")  # of equals the latest first, as they came
        return [rows[at] for at in order if passed[at]]

    def _matrix(self, rows: Sequence[dict[str, Any]]) -> NDArray[np.float32]:
        """[len(rows), dimension]; rows of another embedder are embedded anew and kept, unknown texts are zero."""
        current = self._embedder.fingerprint
        stale = [row for row in rows if row["embedder"] != current]
        if stale:
            for row, vector in zip(stale, self._vectors([row["text"] for row in stale]), strict=True):
                row |= {"vector": vector, "embedder": current}
            with self._database.transaction() as db:
                for row in stale:  # the text as read: an edit in between has a vector of its own
                    db.execute(
                        "UPDATE memories SET vector = :vector, embedder = :embedder "
                        "WHERE user_id = :user_id AND id = :id AND text = :text",
                        row,
                    )
        matrix = np.zeros((len(rows), self._embedder.dimension), dtype=np.float32)
        for at, row in enumerate(rows):
            if row["vector"]:
                matrix[at] = np.frombuffer(row["vector"], dtype=np.float32)
        return matrix


def _memory(row: dict[str, Any]) -> Memory:
    return Memory(
        id=row["id"],
        kind=MemoryKind(row["kind"]),
        text=row["text"],
        quote=row["quote"],
        conversation_id=row["conversation_id"],
        message_id=row["message_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _flat(text: str) -> str:
    """One line without control characters: a memory is a line of the prompt and must not end it."""
    spaced = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in clean(text))
    return " ".join("".join(char for char in spaced if char not in _INVISIBLE).split())


def _statement(text: str) -> Finding | None:
    """The finding that is the whole of `text`."""
    found = extract(text)
    return found[0] if len(found) == 1 and found[0].end - found[0].start >= len(text.strip(" .!。")) else None


def _slot(text: str) -> Slot | None:
    found = _statement(text)
    return slot_of(text) or (slot_of(found.text) if found else None)


def _kind(text: str) -> MemoryKind:
    found = _statement(text)
    if found:
        return found.kind
    slot = slot_of(text)
    if slot is None:
        return MemoryKind.FACT
    return MemoryKind.IDENTITY if slot.name in IDENTITY_SLOTS else MemoryKind.PREFERENCE

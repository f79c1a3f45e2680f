"""Memories in SQLite. `MemoryStore.of(user)` is the only access to them, and every query names that user.

A newer answer to the same question supersedes the older one, which is kept with the time it was valid: as history,
for questions about the past, and to become current again when the newer one is deleted. Rows carry their vector with
the embedder's fingerprint. All methods block; any thread may call them. Knows nothing of prompts, chats or HTTP.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlite_utils import Database as Connection

from server.config import MemorySettings
from server.database import Database
from server.errors import Conflict, InvalidInput
from server.memory.facts.findings import ADDRESS, NAME, Finding, Slot, normalised, slot_of
from server.memory.facts.rules import extract
from server.memory.reading.own_words import clean
from server.memory.recall.index_cache import UserIndexCache
from server.memory.recall.profile import in_profile_order
from server.memory.recall.vectors import MemoryEmbedder
from server.memory.store import forgetting, transfer
from server.memory.store.statement import (
    PendingMemory,
    given_times,
    kind_of_statement,
    one_line,
    slot_of_statement,
    validated,
)
from server.memory.store.table import MIGRATIONS, MemoryTable, Row, memory_of
from server.types import Embedder, Memory, MemoryKind, UserId

MAX_MEMORIES = 10_000  # of one user, expired ones included
MIN_TIME_STEP = 1e-6  # between two changes of one memory, so that `expected` tells them apart


class MemoryStore:
    """The memories of all users. Makes its tables when built."""

    def __init__(self, database: Database, embedder: Embedder, settings: MemorySettings) -> None:
        self._database = database
        self._settings = settings
        self._embedder = MemoryEmbedder(embedder)
        self._indexes = UserIndexCache(database, self._embedder, settings)
        database.migrate("memory", MIGRATIONS)

    def of(self, user_id: UserId) -> UserMemory:
        if not user_id:
            raise InvalidInput("a memory needs an owner; the user id is empty")
        return UserMemory(self._database, self._embedder, self._indexes, self._settings, user_id)


class UserMemory:
    """One user's memories. Another user's id is NotFound, as one that never was."""

    def __init__(
        self,
        database: Database,
        embedder: MemoryEmbedder,
        indexes: UserIndexCache,
        settings: MemorySettings,
        user_id: UserId,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._indexes = indexes
        self._settings = settings
        self._table = MemoryTable(user_id)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def list(self, *, kind: MemoryKind | None = None, query: str = "", past: bool = False) -> tuple[Memory, ...]:
        """The current memories, the latest change first; with `past` the expired and superseded ones too.

        Every word of `query` occurs in the text, the quote or the subject.
        """
        db = self._up_to_date()
        words = clean(query).casefold().split()
        rows = self._table.all_rows(db) if past else self._table.current(db, time.time())
        return tuple(
            memory_of(row)
            for row in rows
            if (kind is None or row["kind"] == kind)
            and all(word in f"{row['text']} {row['quote']} {row['subject']}".casefold() for word in words)
        )

    def get(self, memory_id: int) -> Memory:
        """One of any time. Raises NotFound."""
        return memory_of(self._table.row(self._up_to_date(), memory_id))

    def name(self) -> str:
        """What to call the user: the form of address they asked for, else their name, else ''. '' while paused."""
        return "" if self.paused else self.stored_name()

    def stored_name(self) -> str:
        """As `name`, paused or not."""
        rows = self._table.current_of_slots(self._up_to_date(), (ADDRESS, NAME), time.time())
        rows.sort(key=lambda row: row["slot"] != ADDRESS)
        return str(rows[0]["value"]) if rows else ""

    def history(self, memory_id: int) -> tuple[Memory, ...]:
        """All answers to the question that this one answers, the oldest first. Raises NotFound."""
        db = self._up_to_date()
        return tuple(memory_of(row) for row in self._table.slot_history(db, self._table.row(db, memory_id)))

    def current(self) -> tuple[Memory, ...]:
        """All current memories, the profile first."""
        db = self._up_to_date()
        return tuple(memory_of(row) for row in in_profile_order(self._table.current(db, time.time())))

    def from_conversation(self, conversation_id: str) -> tuple[Memory, ...]:
        """What was said there, of any time."""
        return tuple(memory_of(row) for row in self._table.of_conversation(self._up_to_date(), conversation_id))

    def recall(self, question: str, *, exclude: Collection[int] = (), now: float | None = None) -> tuple[Memory, ...]:
        """What belongs beside `question`, the profile first; at most `settings.recall`, none of `exclude`.

        `why` says what admitted each: "profile", "asked", "words" or "meaning". A question about the past gets what
        was so. Nothing while paused.
        """
        at = time.time() if now is None else now
        db = self._up_to_date()
        if self._table.is_paused(db):
            return ()
        found = self._indexes.recall(self._table.user, question, exclude=exclude, now=at)
        rows = self._table.rows(db, found)
        return tuple(memory_of(rows[memory_id], why) for memory_id, why in found.items() if memory_id in rows)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def add(
        self,
        text: str,
        *,
        kind: MemoryKind = MemoryKind.FACT,
        subject: str = "",
        quote: str = "",
        conversation_id: str | None = None,
        message_id: str | None = None,
        valid_from: float | None = None,
        valid_to: float | None = None,
        confidence: float = 1.0,
        confirmed: bool = False,
    ) -> Memory:
        """Keeps `text`; one that is already there is made the latest instead. `confirmed`: the user was asked, and
        wants it kept though it looks like a secret.

        A FACT in which the rules see a name, a preference or an order takes that kind. Raises
        InvalidInput (empty, over `settings.max_chars`, a secret, times or confidence that cannot be) and
        Conflict while paused and over `MAX_MEMORIES`.
        """
        line = validated(text, self._settings, confirmed=confirmed)
        if valid_from is not None and valid_to is not None and valid_to < valid_from:
            raise InvalidInput("valid_to is before valid_from: swap them, or leave one out")
        if not 0 <= confidence <= 1:
            raise InvalidInput(f"a confidence is from 0 to 1, and this is {confidence:g}")
        slot = slot_of_statement(line)
        if slot and slot.past and valid_to is None:  # "Lived in Paris.": it replaces nothing
            valid_to = time.time()
        found = Finding(
            kind_of_statement(line) if kind is MemoryKind.FACT else kind,
            line, 0, 0, one_line(subject)[: self._settings.max_chars], valid_from, valid_to, confidence,
        )  # fmt: skip
        (pending,) = self._prepared([(found, one_line(quote), slot)])
        with self._transaction() as db:
            if self._table.is_paused(db):
                raise Conflict("memory is paused, so nothing is saved: turn it on again first")
            row_id, _ = self._upsert(db, pending, conversation_id, message_id, valid_to if slot and slot.past else None)
            return memory_of(self._table.row(db, row_id))

    def learn(
        self,
        text: str,
        *,
        conversation_id: str | None,
        message_id: str | None,
        at: float | None = None,
        unless: Callable[[], bool] = lambda: False,
    ) -> tuple[Memory, ...]:
        """Keeps what the user's own turn says about them, and returns what is new. See `keep`."""
        if self.paused:
            return ()
        source = clean(text)
        return self.keep(
            extract(source, at),
            source=source,
            conversation_id=conversation_id,
            message_id=message_id,
            at=at,
            unless=unless,
        )

    def keep(
        self,
        findings: Iterable[Finding],
        *,
        conversation_id: str | None,
        message_id: str | None,
        source: str = "",
        at: float | None = None,
        unless: Callable[[], bool] = lambda: False,
    ) -> tuple[Memory, ...]:
        """Keeps what was found in the turn `source`, from which quotes are cut, and returns what is new. `at`: when it
        was said. `unless` is asked in the transaction: the turn was deleted meanwhile, and nothing is kept.

        What is known already is made the latest; of answers to one question the last is current. Left out without an
        error: a statement over `settings.max_chars`, any beyond `MAX_MEMORIES`, and everything while paused.
        """
        pending = self._prepared([
            (found, one_line(source[found.start : found.end]), slot_of(one_line(found.text)))
            for found in findings
            if one_line(found.text) and len(found.text) <= self._settings.max_chars
        ])  # fmt: skip
        if not pending:
            return ()
        new: dict[int, None] = {}
        with self._transaction() as db:
            if self._table.is_paused(db) or unless():
                return ()
            for one in pending:
                if self._table.count(db) >= MAX_MEMORIES:
                    break
                row_id, is_new = self._upsert(db, one, conversation_id, message_id, at)
                if is_new:
                    new[row_id] = None
            rows = self._table.rows(db, new)
        # A correction in the same message is one memory; an expired answer is one of its own.
        saved = [rows[row_id] for row_id in new if row_id in rows]
        return tuple(memory_of(row) for row in saved if row["superseded_by"] not in new or row["valid_to"] is not None)

    def edit(self, memory_id: int, text: str, *, expected: float | None = None) -> Memory:
        """Changes the text; the quote stays, as the record of what was said.

        `expected` is the `updated_at` that the editor saw. Raises InvalidInput, NotFound, and Conflict when it
        has been changed or replaced since.
        """
        self.get(memory_id)
        line = validated(text, self._settings)
        slot = slot_of_statement(line)
        (pending,) = self._prepared([(Finding(MemoryKind.FACT, line, 0, 0), "", slot)])
        with self._transaction() as db:
            before = self._table.row(db, memory_id)
            if before["superseded_by"] is not None:
                raise Conflict(f"memory {memory_id} was replaced by memory {before['superseded_by']}: edit that one")
            if expected is not None and before["updated_at"] != expected:
                raise Conflict(
                    f"memory {memory_id} has been changed since it was opened, and says now: {before['text']!r}; "
                    "look at it again before you change it"
                )
            if slot is None and before["slot"] in (NAME, ADDRESS):  # 'Mina' typed over 'Name is Mina.'
                slot = Slot(before["slot"], line.rstrip("."))
            now = max(time.time(), before["updated_at"] + MIN_TIME_STEP)
            if slot is None or slot.name != before["slot"]:
                self._table.release_superseded(db, before, now)
            ended = {"valid_to": now, "over": 1} if slot and slot.past and before["valid_to"] is None else {}
            self._table.update(db, memory_id, **self._columns(pending, slot), **ended, updated_at=now)
            if slot and not slot.past and before["valid_to"] is None:
                self._table.supersede(db, slot, before["subject"], memory_id, now=now, since=now)
            return memory_of(self._table.row(db, memory_id))

    def delete(self, memory_id: int) -> Memory:
        """Deletes it for good and returns it; what it had superseded becomes current again. Raises NotFound."""
        with self._transaction() as db:
            row = self._table.row(db, memory_id)
            self._table.release_superseded(db, row, time.time())
            self._table.delete(db, [memory_id])
        self._database.scrub()
        return memory_of(row)

    def forget(self, about: str) -> tuple[Memory, ...]:
        """Deletes what `about` means ("I like tea", "내 이름") with its older answers, and returns it; or ()."""
        statement = clean(about)
        with self._transaction() as db:
            rows = forgetting.matching_rows(statement, self._table.all_rows(db))
            self._table.delete(db, [row["id"] for row in rows])
        if rows:
            self._database.scrub()
        return tuple(memory_of(row) for row in rows)

    def mark_used(self, ids: Iterable[int]) -> None:
        """Notes that these were put into a prompt just now."""
        memory_ids = [*ids]
        if memory_ids:
            with self._transaction() as db:
                for memory_id in memory_ids:
                    self._table.update(db, memory_id, last_used=time.time())

    # ── all of it ────────────────────────────────────────────────────────────────────────────────

    @property
    def paused(self) -> bool:
        return self._table.is_paused(self._database.connection())

    def pause(self, on: bool) -> None:
        """While paused nothing is saved or recalled; what is there can be read, changed and deleted."""
        with self._database.transaction() as db:
            self._table.pause(db, on)

    @property
    def domains_off(self) -> frozenset[str]:
        """Names of the domains in which the user wants no memory."""
        return self._table.domains_off(self._database.connection())

    def set_enabled_in(self, domain: str, on: bool) -> None:
        """Whether chats of that domain save and recall. A domain that has `memory: false` never does."""
        with self._database.transaction() as db:
            self._table.set_enabled_in(db, domain, on)

    def export(self) -> dict[str, Any]:
        """All rows of the user as JSON values, expired ones too."""
        db = self._up_to_date()
        rows, paused = self._table.all_rows(db), self._table.is_paused(db)
        return transfer.export(rows, paused=paused, domains_off=self._table.domains_off(db))

    def erase(self) -> int:
        """Deletes everything that memory has of the user, settings and queued turns too; counts memories."""
        with self._database.transaction() as db:
            count = transfer.erase(db, self._table.user)
        self._indexes.drop(self._table.user)
        self._database.scrub()
        return count

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _up_to_date(self) -> Connection:
        """A connection, after answers whose `starts_at` has come have superseded the ones before."""
        db = self._database.connection()
        if self._table.due_to_start(db, time.time()):
            with self._transaction():
                pass
        return db

    def _transaction(self) -> AbstractContextManager[Connection]:
        return transfer.write_transaction(self._database, self._table)

    def _prepared(self, found: Sequence[tuple[Finding, str, Slot | None]]) -> builtins.list[PendingMemory]:
        vectors = self._embedder.embed_memories([one_line(finding.text) for finding, _, _ in found])
        return [PendingMemory(*entry, vector) for entry, vector in zip(found, vectors, strict=True)]

    def _columns(self, pending: PendingMemory, slot: Slot | None) -> Row:
        text = one_line(pending.finding.text)
        return {
            "text": text,
            "normal": normalised(text),
            "slot": slot.name if slot else None,
            "value": slot.value if slot else None,
            "vector": pending.vector,
            "embedder": self._embedder.fingerprint,
        }

    def _upsert(
        self,
        db: Connection,
        pending: PendingMemory,
        conversation_id: str | None,
        message_id: str | None,
        said_at: float | None,
    ) -> tuple[int, bool]:
        """The row's id, and whether it says something new. Inside a transaction."""
        found, slot, now = pending.finding, pending.slot, time.time()
        moment = max(now, said_at or now)  # the clock may have been set back since it was said
        columns = {**self._columns(pending, slot), "subject": found.subject}
        is_past = found.valid_to is not None and found.valid_to <= moment
        existing = self._table.find_duplicate(db, columns, now)
        if existing is not None:
            times = {"ended_at": found.valid_to, "over": 1} if is_past else given_times(found)
            self._table.update(db, existing["id"], updated_at=max(now, existing["updated_at"] + MIN_TIME_STEP), **times)
            return int(existing["id"]), is_past
        expired_row = self._table.find_expired(db, columns["normal"], found.subject, now) if is_past else None
        if expired_row is not None:
            return int(expired_row["id"]), False
        if self._table.count(db) >= MAX_MEMORIES:
            raise Conflict(f"there are {MAX_MEMORIES:,} memories, the most one user can have: delete some first")
        starts_later = slot is not None and found.valid_from is not None and found.valid_from > moment
        row_id = self._table.insert(db, {
            **columns,
            "kind": found.kind.value,
            "quote": pending.quote,
            "conversation_id": conversation_id,
            "message_id": message_id,
            "created_at": now,
            "updated_at": now,
            "valid_from": found.valid_from,
            "valid_to": found.valid_to,
            "starts_at": found.valid_from if starts_later else None,
            "over": int(is_past),
            "confidence": found.confidence,
        })  # fmt: skip
        if slot and not is_past and not starts_later:
            self._table.supersede(db, slot, found.subject, row_id, now=now, since=found.valid_from or now)
        return row_id, True

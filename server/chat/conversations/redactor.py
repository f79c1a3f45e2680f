"""Takes what was deleted out of all stored rows of one user's chats: messages, titles, records, prompts, searches.

All of it runs inside one transaction of the caller's, so that a deletion is there whole or not at all. Knows nothing of
turns that run; what they store later goes through `redact_late`.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sqlite_utils import Database as Connection

from server.chat.conversations.records import AnswerRecord
from server.chat.conversations.redaction import (
    Redaction,
    RedactionCounts,
    redact_answer,
    redact_prompt,
)
from server.chat.conversations.tables import ANSWER, PROMPT, short_title
from server.chat.events import Mention
from server.memory import Wording
from server.types import Memory, UserId


@dataclass(frozen=True, slots=True)
class Replacement:
    """A message that is to have another text: a command, which named what it deleted."""

    message_id: str
    text: str


@dataclass
class RedactionResult:
    """`texts`: the messages that have another text now, by id. `mentions`: what is left in messages of other words."""

    counts: RedactionCounts
    texts: dict[str, str] = field(default_factory=dict)
    mentions: tuple[Mention, ...] = ()


def redact_late(text: str, record: AnswerRecord, redaction: Redaction) -> tuple[str, AnswerRecord]:
    """What an answer stores that ran while something was deleted."""
    text, named = redact_answer(text, record, redaction)
    kept = redaction.without_sentences(text)
    return redaction.strike(kept), _struck_record(named or record, redaction, checked=kept == text)


def _struck_record(record: AnswerRecord, redaction: Redaction, *, checked: bool = True) -> AnswerRecord:
    """`checked`: the offsets of its checks still fit the answer."""
    record = replace(record, reasoning=redaction.without_sentences(record.reasoning))
    if not checked:
        record = replace(record, checks=())
    if not redaction.strings:
        return record
    value = json.loads(ANSWER.dump_json(record))
    passages = value["context"].pop("passages")  # of files, which are no words of the user
    value = redaction.strike_all(value)
    value["context"]["passages"] = passages
    return ANSWER.validate_python(value)


class Redactor:
    """One redaction of one user's rows. `commands` are replaced as they say."""

    def __init__(
        self,
        db: Connection,
        user: UserId,
        redaction: Redaction,
        *,
        memories: tuple[Memory, ...] | None = None,
        command: Replacement | None = None,
    ) -> None:
        """`memories`: those whose sentences go, too; None: sentences stay."""
        self._db = db
        self._user = user
        self._redaction = redaction
        self._memories = memories
        self._command = command
        self._records: dict[str, AnswerRecord] = {}  # of answers that named it, redacted
        self._texts: dict[str, str] = {}  # new texts of messages
        self._old_texts: dict[str, str] = {}
        self._touched: set[str] = set()  # chats of which anything was redacted
        self._said: set[str] = set()  # messages with a sentence less, and the command
        self._mentions: Counter[str] = Counter()
        self._named = 0

    def run(self) -> RedactionResult:
        query = "SELECT coalesce(max(sequence), 0) FROM messages"
        self._redaction.limit = int(self._db.execute(query).fetchone()[0])
        self._redact_named()
        if self._memories is not None:
            self._redaction.wording = Wording(self._memories, sorted(self._redaction.texts))
        self._redact_messages()
        titles = self._redact_titles()
        self._strike_records()
        self._write_messages()
        prompts = self._redact_prompts()
        self._redact_searches()
        for conversation_id in self._touched:
            self._db.execute("UPDATE conversations SET revision = revision + 1 WHERE id = ?", [conversation_id])
        said = {one: text for one, text in self._texts.items() if one in self._said}
        command = self._command.message_id if self._command is not None else None
        counts = RedactionCounts(self._named, prompts, len(said.keys() - {command}), titles)
        return RedactionResult(counts, said, self._mentioning())

    # ── messages and their records ───────────────────────────────────────────────────────────────

    def _redact_named(self) -> None:
        """Records that name a deleted memory or quote a deleted chat."""
        search_strings = self._redaction.search_strings
        if not search_strings:
            return
        named = " OR ".join(["instr(answer, ?)"] * len(search_strings))
        query = f"SELECT id, conversation_id, text, answer FROM messages WHERE user_id = ? AND ({named})"
        for row in self._db.query(query, [self._user, *search_strings]):
            text, record = redact_answer(row["text"], ANSWER.validate_json(row["answer"]), self._redaction)
            if record is not None:
                self._records[row["id"]] = record
                self._touched.add(row["conversation_id"])
                if text != row["text"]:
                    self._texts[row["id"]], self._old_texts[row["id"]] = text, row["text"]
        self._named = len(self._records)

    def _redact_messages(self) -> None:
        """Sentences that say it, and the command; counts what is left."""
        query = (
            'SELECT id, conversation_id, role, text, created_at, coalesce(instr(answer, \'"command":""\'), 1) AS free '
            "FROM messages WHERE user_id = ? ORDER BY sequence"
        )
        redaction = self._redaction
        for row in self._db.query(query, [self._user]) if redaction.wording or self._command else ():
            message_id, text = row["id"], self._texts.get(row["id"], row["text"])
            if self._command is not None and message_id == self._command.message_id:
                redaction.add_strings([text])
                kept = self._command.text
            else:
                kept = redaction.without_sentences(text, own=row["role"] == "user", at=row["created_at"])
            if kept != text:
                self._said.add(message_id)
                self._texts[message_id] = kept
                self._old_texts.setdefault(message_id, row["text"])
                self._touched.add(row["conversation_id"])
            if redaction.wording is not None and row["free"] and redaction.wording.mentioned_in(kept):
                self._mentions[row["conversation_id"]] += 1

    def _strike_records(self) -> None:
        """Copies of those sentences in the records of answers: quotes of past chats, reasoning, words of memories."""
        redaction = self._redaction
        if redaction.wording is None and not redaction.strings:
            return
        needles = [json.dumps(string, ensure_ascii=False)[1:-1] for string in redaction.strings]
        query = "SELECT id, conversation_id, answer FROM messages WHERE user_id = ? AND answer IS NOT NULL"
        for row in self._db.query(query, [self._user]):
            raw = row["answer"]
            changed = row["id"] in self._texts or row["id"] in self._records
            if not changed and '"reasoning":""' in raw and not any(needle in raw for needle in needles):
                continue
            before = self._records.get(row["id"]) or ANSWER.validate_json(raw)
            record = _struck_record(before, redaction, checked=row["id"] not in self._texts)
            if record != before:
                if record.context.chats != before.context.chats:
                    redaction.nonces.add(record.context.nonce)
                self._records[row["id"]] = record
                self._touched.add(row["conversation_id"])

    def _write_messages(self) -> None:
        self._db.conn.executemany(
            "UPDATE messages SET answer = ? WHERE id = ? AND user_id = ?",
            [(ANSWER.dump_json(record).decode(), one, self._user) for one, record in self._records.items()],
        )
        self._db.conn.executemany(
            "UPDATE messages SET text = ? WHERE id = ? AND user_id = ?",
            [(text, one, self._user) for one, text in self._texts.items()],
        )

    # ── titles ───────────────────────────────────────────────────────────────────────────────────

    def _redact_titles(self) -> int:
        """A title that was made of a message is made of its new text; the copies that quotes have are struck, too."""
        of_texts = {short_title(old): short_title(self._texts[one]) for one, old in self._old_texts.items()}
        count = 0
        for conversation_id, title in self._db.execute(
            "SELECT id, title FROM conversations WHERE user_id = ? AND title <> ''", [self._user]
        ).fetchall():
            kept = self._redaction.strike(of_texts.get(title) or self._redaction.without_sentences(title, own=True))
            if kept == title:
                continue
            self._redaction.add_strings([title])
            kept = kept if any(char.isalnum() for char in kept) else ""
            self._db.execute("UPDATE conversations SET title = ? WHERE id = ?", [kept, conversation_id])
            self._touched.add(conversation_id)
            count += 1
        return count

    def _mentioning(self) -> tuple[Mention, ...]:
        titles = dict(
            self._db.execute("SELECT id, title FROM conversations WHERE user_id = ?", [self._user]).fetchall()
        )
        return tuple(Mention(one, titles.get(one, ""), count) for one, count in self._mentions.most_common())

    # ── prompts and searches ─────────────────────────────────────────────────────────────────────

    def _redact_prompts(self) -> int:
        count = 0
        for message_id, prompt in self._packed("messages", "id", "prompt", everywhere=bool(self._redaction.names)):
            redacted = redact_prompt(PROMPT.validate_json(prompt), self._redaction)
            if redacted is not None:
                self._pack("messages", "id", "prompt", message_id, PROMPT.dump_json(redacted))
                count += 1
        return count

    def _redact_searches(self) -> None:
        """A search's queries are made of the user's messages."""
        if not self._redaction.strings:
            return
        for message_id, trace in self._packed("traces", "message_id", "trace"):
            value = json.loads(trace)
            queries = [self._redaction.strike(query) for query in value["queries"]]
            if queries != value["queries"]:
                packed = json.dumps(value | {"queries": queries}, ensure_ascii=False).encode()
                self._pack("traces", "message_id", "trace", message_id, packed)

    def _packed(self, table: str, key: str, column: str, *, everywhere: bool = False) -> Iterator[tuple[str, bytes]]:
        """Compressed values of the chats that were touched, unpacked one at a time."""
        query = f"SELECT {table}.{key}, conversation_id FROM {table} "
        query += "" if table == "messages" else f"JOIN messages ON messages.id = {table}.{key} "
        query += f"WHERE {table}.user_id = ? AND {table}.{column} IS NOT NULL"
        for message_id, chat in self._db.execute(query, [self._user]).fetchall():
            if everywhere or chat in self._touched:
                found = self._db.execute(f"SELECT {column} FROM {table} WHERE {key} = ?", [message_id]).fetchone()
                yield message_id, zlib.decompress(found[0])

    def _pack(self, table: str, key: str, column: str, message_id: str, value: bytes) -> None:
        self._db.execute(
            f"UPDATE {table} SET {column} = ? WHERE {key} = ? AND user_id = ?",
            [zlib.compress(value), message_id, self._user],
        )

"""Conversations as message trees in SQLite. Every query names the user who owns the row.

A message points to its parent; an edit or a second answer is a sibling, and nothing is overwritten. An
answer keeps all that made it: route, evidence, memories, the exact prompt. Blocking; callers on the
event loop go through `asyncio.to_thread`. Knows nothing of models, prompts or sockets.
"""

from __future__ import annotations

import time
import uuid
import zlib
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

from sqlite_utils import Database as Connection

from server.chat.conversations import user_rows
from server.chat.conversations.records import AnswerRecord, Conversation, PromptRecord, Status, StoredMessage
from server.chat.conversations.redaction import Redaction, redact_prompt
from server.chat.conversations.redactor import RedactionResult, Redactor, Replacement, redact_late
from server.chat.conversations.tables import ANSWER, MIGRATIONS, PROMPT, conversation_of, message_of, short_title
from server.database import Database
from server.errors import InvalidInput, NotFound
from server.types import HistoryTurn, Memory, UserId

_OWNED = "user_id = ?"
_UNINDEXED = """
    SELECT m.* FROM messages m JOIN conversations c ON c.id = m.conversation_id
    WHERE m.fed = 0 AND NOT c.temporary AND m.status IN ('complete', 'stopped') AND (
        m.role = 'assistant' OR EXISTS (SELECT 1 FROM messages a WHERE a.parent_id = m.id AND a.status <> 'streaming')
    )
    ORDER BY m.sequence LIMIT ?
"""


class ConversationStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._late: dict[UserId, list[Redaction]] = {}  # what was deleted while answers of the user ran
        database.migrate("chat", MIGRATIONS)

    def transaction(self) -> AbstractContextManager[object]:
        """What this thread stores inside is committed whole, or not at all. Raises StorageFull."""
        return self._database.transaction()

    # ── conversations ────────────────────────────────────────────────────────────────────────────

    def create(self, user: UserId, title: str, domain: str | None = None, *, temporary: bool = False) -> Conversation:
        """An empty title is given by the first question; `domain` is the user's own choice."""
        now = time.time()
        conversation = Conversation(uuid.uuid4().hex, short_title(title), domain, now, now, temporary)
        with self._database.transaction() as db:
            db.table("conversations").insert(
                {
                    "id": conversation.id,
                    "user_id": user,
                    "title": conversation.title,
                    "created_at": now,
                    "updated_at": now,
                    "domain": domain,
                    "temporary": int(temporary),
                    "sequence": _next_of_user(db, user),
                }
            )
        return conversation

    def list(self, user: UserId) -> tuple[Conversation, ...]:
        """The one that was written in last comes first."""
        rows = self._database.connection().query(
            "SELECT * FROM conversations WHERE user_id = ? ORDER BY sequence DESC, id", [user]
        )
        return tuple(conversation_of(row) for row in rows)

    def get(self, user: UserId, conversation_id: str) -> Conversation:
        rows = self._database.connection().query(
            "SELECT * FROM conversations WHERE id = ? AND user_id = ?", [conversation_id, user]
        )
        row = next(iter(rows), None)
        if row is None:
            raise NotFound(f"there is no conversation '{conversation_id}' of yours")
        return conversation_of(row)

    def rename(self, user: UserId, conversation_id: str, title: str) -> Conversation:
        if not title.strip():
            raise InvalidInput("a conversation's title is empty; give it at least one character")
        return self._update(user, conversation_id, title=short_title(title))

    def choose_domain(self, user: UserId, conversation_id: str, domain: str | None) -> Conversation:
        """The user's own choice; None gives it back to the router."""
        return self._update(user, conversation_id, domain=domain)

    def delete(self, user: UserId, conversation_id: str) -> None:
        with self._database.transaction() as db:
            if not user_rows.delete_conversation(db, user, conversation_id):
                raise NotFound(f"there is no conversation '{conversation_id}' of yours")
        self._database.scrub()

    def delete_temporary(self, keep: Collection[str] = ()) -> tuple[UserId, ...]:
        """All temporary chats but `keep`; returns whose they were. Of all users: for the server itself."""
        with self._database.transaction() as db:
            rows = db.execute("SELECT id, user_id FROM conversations WHERE temporary").fetchall()
            old = [(conversation_id, UserId(user)) for conversation_id, user in rows if conversation_id not in keep]
            for conversation_id, user in old:
                user_rows.delete_conversation(db, user, conversation_id)
        if old:
            self._database.scrub()
        return tuple(user for _, user in old)

    def _update(self, user: UserId, conversation_id: str, **columns: str | None) -> Conversation:
        names = ", ".join(f"{name} = ?" for name in columns)
        with self._database.transaction() as db:
            db.conn.execute(
                f"UPDATE conversations SET {names}, revision = revision + 1 WHERE id = ? AND user_id = ?",
                (*columns.values(), conversation_id, user),
            )
        return self.get(user, conversation_id)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────

    def messages(self, user: UserId, conversation_id: str) -> tuple[StoredMessage, ...]:
        """The whole tree, oldest first."""
        self.get(user, conversation_id)
        rows = self._database.connection().query(
            "SELECT * FROM messages WHERE conversation_id = ? AND user_id = ? ORDER BY sequence",
            [conversation_id, user],
        )
        return tuple(message_of(row) for row in rows)

    def message(self, user: UserId, message_id: str) -> StoredMessage:
        rows = self._database.connection().query(
            "SELECT * FROM messages WHERE id = ? AND user_id = ?", [message_id, user]
        )
        row = next(iter(rows), None)
        if row is None:
            raise NotFound(f"there is no message '{message_id}' of yours")
        return message_of(row)

    def newest(self, user: UserId, conversation_id: str) -> str | None:
        row = (
            self._database.connection()
            .conn.execute(
                "SELECT id FROM messages WHERE conversation_id = ? AND user_id = ? ORDER BY sequence DESC",
                (conversation_id, user),
            )
            .fetchone()
        )
        return row[0] if row else None

    def branch(self, user: UserId, message_id: str | None) -> tuple[StoredMessage, ...]:
        """From the first message of the branch to `message_id`, both inside."""
        if message_id is None:
            return ()
        rows = self._database.connection().query(
            """
            WITH RECURSIVE up (id, depth) AS (
                SELECT id, 0 FROM messages WHERE id = :id AND user_id = :user
                UNION ALL
                SELECT m.parent_id, up.depth + 1 FROM messages m JOIN up ON m.id = up.id
                WHERE m.parent_id IS NOT NULL
            )
            SELECT m.* FROM messages m JOIN up ON m.id = up.id WHERE m.user_id = :user ORDER BY up.depth DESC
            """,
            {"id": message_id, "user": user},
        )
        return tuple(message_of(row) for row in rows)

    def add_question(self, user: UserId, conversation_id: str, parent_id: str | None, text: str) -> StoredMessage:
        return self._add(user, conversation_id, parent_id, "user", text, Status.COMPLETE)

    def add_answer(self, user: UserId, conversation_id: str, question_id: str) -> StoredMessage:
        return self._add(user, conversation_id, question_id, "assistant", "", Status.STREAMING)

    def save_partial_answers(self, answers: Iterable[tuple[UserId, str, str, AnswerRecord]]) -> None:
        """Checkpoints answers that are being generated: (user, id, text, record). One that has ended stays as it
        ended."""
        with self._database.transaction() as db:
            for user, message_id, text, record in answers:
                db.conn.execute(
                    "UPDATE messages SET text = ?, answer = ? WHERE id = ? AND user_id = ? AND status = 'streaming'",
                    (*self._as_stored(user, message_id, text, record), message_id, user),
                )

    def update_answer(
        self,
        user: UserId,
        message_id: str,
        *,
        text: str,
        status: Status,
        record: AnswerRecord,
    ) -> None:
        """Silently does nothing if the conversation was deleted meanwhile."""
        with self._database.transaction() as db:
            db.conn.execute(
                "UPDATE messages SET text = ?, answer = ?, status = ? WHERE id = ? AND user_id = ?",
                (*self._as_stored(user, message_id, text, record), status, message_id, user),
            )

    def _as_stored(self, user: UserId, message_id: str, text: str, record: AnswerRecord) -> tuple[str, str]:
        for redaction in self.late(user, message_id):
            text, record = redact_late(text, record, redaction)
        return text, ANSWER.dump_json(record).decode()

    def save_prompt(self, user: UserId, message_id: str, prompt: PromptRecord) -> None:
        with self._database.transaction() as db:
            for redaction in self.late(user, message_id):
                prompt = redact_prompt(prompt, redaction) or prompt
            db.conn.execute(
                "UPDATE messages SET prompt = ? WHERE id = ? AND user_id = ?",
                (zlib.compress(PROMPT.dump_json(prompt)), message_id, user),
            )

    def prompt(self, user: UserId, message_id: str) -> PromptRecord:
        row = (
            self._database.connection()
            .conn.execute("SELECT prompt FROM messages WHERE id = ? AND user_id = ?", (message_id, user))
            .fetchone()
        )
        if row is None or row[0] is None:
            raise NotFound(f"no prompt is stored for message '{message_id}'")
        return PROMPT.validate_json(zlib.decompress(row[0]))

    # ── redaction and indexing ───────────────────────────────────────────────────────────────────

    def redact(
        self,
        user: UserId,
        redaction: Redaction,
        *,
        memories: tuple[Memory, ...] | None = None,
        command: Replacement | None = None,
    ) -> RedactionResult:
        """Removes what was deleted from all stored rows, and from what running answers store after it."""
        with self._database.transaction() as db:
            result = Redactor(db, user, redaction, memories=memories, command=command).run()
            self._late.setdefault(user, []).append(redaction)
        return result

    def settle(self, user: UserId) -> None:
        """No answer of the user is running: what comes now knows of every deletion."""
        self._late.pop(user, None)

    def late(self, user: UserId, message_id: str) -> tuple[Redaction, ...]:
        """What was deleted since that answer began. Inside the transaction that stores more of it."""
        redactions = self._late.get(user)
        if not redactions:
            return ()
        query = "SELECT sequence FROM messages WHERE id = ? AND user_id = ?"
        found = self._database.connection().execute(query, [message_id, user]).fetchone()
        return tuple(one for one in redactions if found is not None and found[0] <= one.limit)

    def scrub(self, words: Collection[str] = ()) -> bool:
        """See `Database.scrub`."""
        return self._database.scrub(words)

    def titles(self, user: UserId) -> dict[str, str]:
        """Of the chats that are kept, by id."""
        rows = self._database.connection().query(
            "SELECT id, title FROM conversations WHERE user_id = ? AND NOT temporary", [user]
        )
        return {row["id"]: row["title"] for row in rows}

    def unindexed_messages(self, limit: int) -> tuple[tuple[UserId, StoredMessage], ...]:
        """Finished messages that the search of past chats has not indexed, oldest first. Of all users."""
        rows = self._database.connection().query(_UNINDEXED, [limit])
        return tuple((UserId(row["user_id"]), message_of(row)) for row in rows)

    def mark_indexed(self, user: UserId, message_id: str, text: str | None = None) -> bool:
        """False where the message is gone, or has another text than `text` by now."""
        with self._database.transaction() as db:
            changed = db.execute(
                "UPDATE messages SET fed = 1 WHERE id = :id AND user_id = :user AND text = coalesce(:text, text)",
                {"id": message_id, "user": user, "text": text},
            )
            return changed.rowcount > 0

    def mark_all_indexed(self, user: UserId) -> None:
        """Of what the user has said until now nothing is taken into the search of past chats."""
        with self._database.transaction() as db:
            db.execute("UPDATE messages SET fed = 1 WHERE user_id = ? AND fed = 0", [user])

    def is_stored(self, user: UserId, message_id: str, text: str) -> bool:
        """Whether the message is there and still says that."""
        query = "SELECT 1 FROM messages WHERE id = ? AND user_id = ? AND text = ?"
        return self._database.connection().execute(query, [message_id, user, text]).fetchone() is not None

    def mark_interrupted(self) -> int:
        """At start: answers that a former process was writing. Returns how many."""
        with self._database.transaction() as db:
            changed = db.conn.execute(
                "UPDATE messages SET status = ? WHERE status = ?", (Status.INTERRUPTED, Status.STREAMING)
            ).rowcount
        return int(changed)

    def _add(
        self, user: UserId, conversation_id: str, parent_id: str | None, role: str, text: str, status: Status
    ) -> StoredMessage:
        now = time.time()
        answer = AnswerRecord() if role == "assistant" else None
        message = StoredMessage(uuid.uuid4().hex, conversation_id, parent_id, role, text, now, status, answer)
        with self._database.transaction() as db:
            db.table("messages").insert(
                {
                    "id": message.id,
                    "conversation_id": conversation_id,
                    "user_id": user,
                    "parent_id": parent_id,
                    "role": role,
                    "text": text,
                    "created_at": now,
                    "status": status.value,
                    "answer": ANSWER.dump_json(answer).decode() if answer else None,
                    "prompt": None,
                    "sequence": db.execute("SELECT coalesce(max(sequence), 0) + 1 FROM messages").fetchone()[0],
                }
            )
            db.conn.execute(
                "UPDATE conversations SET updated_at = ?, sequence = ?, revision = revision + 1 "
                "WHERE id = ? AND user_id = ?",
                (now, _next_of_user(db, user), conversation_id, user),
            )
        return message


def _next_of_user(db: Connection, user: UserId) -> int:
    """The place of a chat that is written in now, after all others of the user. Inside a transaction."""
    query = "SELECT coalesce(max(sequence), 0) + 1 FROM conversations WHERE user_id = ?"
    return int(db.execute(query, [user]).fetchone()[0])


def build_history(branch: Iterable[StoredMessage], memories: dict[int, Memory]) -> tuple[HistoryTurn, ...]:
    """Finished turns of a branch. A memory that is gone leaves the old turns too; an edited one has its text of now;
    one that was replaced stays, as the prompt's prefix stays, and its successor is added later. A question without a
    usable answer is left out, and so is its failed answer."""
    turns: list[HistoryTurn] = []
    question: StoredMessage | None = None
    for message in branch:
        if message.role == "user":
            question = message
        elif question is not None and message.answer is not None and message.text:
            shown = message.answer.context.memories
            kept = tuple(replace(m, text=memories[m.id].text) for m in shown if m.id in memories)
            context = replace(message.answer.context, memories=kept)
            turns.append(HistoryTurn(question.text, context, message.text))
            question = None
    return tuple(turns)


def edited_memories(branch: Iterable[StoredMessage], memories: dict[int, Memory]) -> tuple[Memory, ...]:
    """Memories that `build_history` shows with another text than they had when they were shown first."""
    shown = {m.id: m for message in branch if message.answer is not None for m in message.answer.context.memories}
    return tuple(
        replace(m, text=memories[m.id].text)
        for m in shown.values()
        if m.id in memories and memories[m.id].text != m.text
    )

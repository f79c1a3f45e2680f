"""The tables of chats, and the conversion of their rows. Knows nothing of what changes them."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from server.chat.conversations.records import AnswerRecord, Conversation, PromptRecord, Status, StoredMessage

MIGRATIONS = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY, user_id TEXT NOT NULL, title TEXT NOT NULL,
        domain TEXT, sticky TEXT, created_at REAL NOT NULL, updated_at REAL NOT NULL
    );
    CREATE INDEX conversations_of_user ON conversations (user_id, updated_at);
    CREATE TABLE messages (
        id TEXT PRIMARY KEY,
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        user_id TEXT NOT NULL, parent_id TEXT REFERENCES messages (id) ON DELETE CASCADE,
        role TEXT NOT NULL, text TEXT NOT NULL, created_at REAL NOT NULL, status TEXT NOT NULL,
        answer TEXT, prompt BLOB
    );
    CREATE INDEX messages_of_conversation ON messages (conversation_id, created_at);
    CREATE INDEX messages_of_parent ON messages (parent_id);
    """,
    # fed: indexed for the search of past chats, or never to be indexed
    """
    ALTER TABLE conversations ADD COLUMN temporary INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN fed INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX messages_not_fed ON messages (created_at) WHERE fed = 0;
    """,
    # The order of messages and chats is that of their sequence: a clock may be set back. A chat's revision counts all
    # that changes what a page shows of it.
    """
    ALTER TABLE messages ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE conversations ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE conversations ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    UPDATE messages SET sequence = rowid;
    UPDATE conversations SET sequence = coalesce(
        (SELECT max(sequence) FROM messages WHERE conversation_id = conversations.id),
        (SELECT max(sequence) FROM messages WHERE created_at <= conversations.updated_at), 0);
    DROP INDEX conversations_of_user;
    DROP INDEX messages_of_conversation;
    DROP INDEX messages_not_fed;
    CREATE INDEX conversations_in_order ON conversations (user_id, sequence);
    CREATE UNIQUE INDEX messages_in_order ON messages (sequence);
    CREATE INDEX messages_of_conversation ON messages (conversation_id, sequence);
    CREATE INDEX messages_not_fed ON messages (sequence) WHERE fed = 0;
    """,
    # Auto decides anew for each message, by the domain of the answer before it.
    """
    ALTER TABLE conversations DROP COLUMN sticky;
    """,
)

TITLE_LENGTH = 80
ANSWER: TypeAdapter[AnswerRecord] = TypeAdapter(AnswerRecord)
PROMPT: TypeAdapter[PromptRecord] = TypeAdapter(PromptRecord)


def conversation_of(row: dict[str, Any]) -> Conversation:
    columns = {name: row[name] for name in Conversation.__slots__}
    return Conversation(**{**columns, "temporary": bool(columns["temporary"])})


def message_of(row: dict[str, Any]) -> StoredMessage:
    answer = ANSWER.validate_json(row["answer"]) if row["answer"] else None
    return StoredMessage(
        row["id"],
        row["conversation_id"],
        row["parent_id"],
        row["role"],
        row["text"],
        row["created_at"],
        Status(row["status"]),
        answer,
    )


def short_title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"

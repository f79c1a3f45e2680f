"""All that is stored of one user's chats: read out for an export, or deleted. Needs the tables of `ConversationStore`
and `TraceStore`. Knows nothing of turns, prompts or files."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from sqlite_utils import Database as Connection

from server.types import UserId

_CONVERSATION = "id, title, domain, temporary, created_at, updated_at"


def delete_conversation(db: Connection, user: UserId, conversation_id: str) -> bool:
    """With its messages, prompts and traces; False where there is none. Inside a transaction."""
    key = (conversation_id, user)
    # A chain of answers is deeper than SQLite's limit for cascades: it is taken apart first.
    db.conn.execute("UPDATE messages SET parent_id = NULL WHERE conversation_id = ? AND user_id = ?", key)
    return db.conn.execute("DELETE FROM conversations WHERE id = ? AND user_id = ?", key).rowcount > 0


def erase(db: Connection, user: UserId) -> dict[str, int]:
    """Deletes all chats of the user; how many there were of what. Inside a transaction."""
    counts = {
        name: int(db.execute(f"SELECT count(*) FROM {name} WHERE user_id = ?", [user]).fetchone()[0])
        for name in ("conversations", "messages", "traces")
    }
    db.execute("UPDATE messages SET parent_id = NULL WHERE user_id = ?", [user])
    db.execute("DELETE FROM conversations WHERE user_id = ?", [user])
    return counts


def conversations(db: Connection, user: UserId) -> Iterator[dict[str, Any]]:
    """The one that was written in last comes last."""
    for row in db.query(f"SELECT {_CONVERSATION} FROM conversations WHERE user_id = ? ORDER BY sequence", [user]):
        yield row | {"temporary": bool(row["temporary"])}


def messages(
    db: Connection, user: UserId, conversation_id: str, may_see: Callable[[str], bool]
) -> Iterator[dict[str, Any]]:
    """A chat's messages in their order, answers with their record, their exact prompt and their search.

    Passages of folders that `may_see` does not give are left out, and so are prompts in whose chat one was quoted.
    """
    rows = db.query(
        "SELECT messages.*, trace FROM messages LEFT JOIN traces ON traces.message_id = messages.id "
        "WHERE conversation_id = ? AND messages.user_id = ? ORDER BY sequence",
        [conversation_id, user],
    )
    hidden = False
    for row in rows:
        record = json.loads(row["answer"]) if row["answer"] else None
        if record is not None:
            passages = record["context"]["passages"]
            shown = [one for one in passages if may_see(one["folder"])]
            hidden = hidden or len(shown) < len(passages)
            record["context"]["passages"] = shown
        yield {
            **{name: row[name] for name in ("id", "parent_id", "role", "text", "created_at", "status")},
            "answer": record,
            "prompt": None if hidden else _unpacked(row["prompt"]),
            "search": _visible_search(_unpacked(row["trace"]), may_see),
        }


def _unpacked(value: bytes | None) -> Any:
    return None if value is None else json.loads(zlib.decompress(value))


def _visible_search(trace: Any, may_see: Callable[[str], bool]) -> Any:
    if trace is None:
        return None
    folders = [name for name in trace["folders"] if may_see(name)]
    return trace | {"folders": folders, "candidates": [one for one in trace["candidates"] if may_see(one["folder"])]}

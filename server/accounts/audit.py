"""The audit log: who signed in, and what was changed that others share. Rows are added and, when they are old, dropped.

It holds names of accounts, groups, folders, files and adapters; no secret, and nothing that anybody wrote in a chat.
Blocks. Knows nothing of routes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from server.accounts.records import Account
from server.database import Database

COMMAND_LINE = "command line"  # the address of what is done there
MAX_TARGET = 300  # characters
MAX_PAGE = 500

MIGRATIONS = (
    """
    CREATE TABLE audit_log (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        actor_id TEXT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        detail TEXT NOT NULL,
        address TEXT NOT NULL
    );
    CREATE INDEX audit_log_by_time ON audit_log (at);
    CREATE TRIGGER audit_log_is_final BEFORE UPDATE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
    """,
)


class Action(StrEnum):
    SIGNED_IN = "session.opened"
    SIGN_IN_FAILED = "session.refused"
    SIGNED_OUT = "session.closed"
    SESSION_REVOKED = "session.revoked"
    KEY_MADE = "key.made"
    KEY_REVOKED = "key.revoked"
    PASSWORD_CHANGED = "password.changed"
    DATA_EXPORTED = "account.exported"
    ACCOUNT_ERASED = "account.erased"
    USER_ADDED = "user.added"
    USER_REMOVED = "user.removed"
    ROLES_CHANGED = "user.roles"
    PASSWORD_RESET = "user.password"
    IDENTITY_LINKED = "user.linked"
    GROUP_ADDED = "group.added"
    GROUP_CHANGED = "group.members"
    GROUP_REMOVED = "group.removed"
    KNOWLEDGE_UPLOADED = "knowledge.uploaded"
    KNOWLEDGE_DELETED = "knowledge.deleted"
    KNOWLEDGE_ROLLED_BACK = "knowledge.rolled_back"
    KNOWLEDGE_FOLLOWED = "knowledge.followed"
    KNOWLEDGE_REBUILT = "knowledge.rebuilt"
    ADAPTER_LOADED = "adapter.loaded"
    ADAPTER_UNLOADED = "adapter.unloaded"


@dataclass(frozen=True, slots=True)
class Entry:
    """`actor` is a name, '' for somebody unknown; `detail` holds names and numbers."""

    id: int
    at: float
    actor: str
    action: str
    target: str
    detail: dict[str, object] = field(default_factory=dict)
    address: str = ""


class AuditLog:
    """Safe to call from any thread. Makes its table when built. Rows go after `keep_days`."""

    def __init__(self, database: Database, keep_days: float) -> None:
        self._database = database
        self._keep_s = keep_days * 86_400
        database.migrate("audit", MIGRATIONS)

    def record(
        self,
        action: Action,
        actor: Account | None,
        target: str = "",
        detail: Mapping[str, object] | None = None,
        address: str = "",
    ) -> None:
        now = time.time()
        actor_id, name = (actor.user_id, actor.name) if actor else ("", "")
        values = [now, actor_id, name, action.value, target[:MAX_TARGET], json.dumps(dict(detail or {})), address]
        with self._database.transaction() as db:
            db.execute("DELETE FROM audit_log WHERE at < ?", [now - self._keep_s])
            db.execute(
                "INSERT INTO audit_log (at, actor_id, actor, action, target, detail, address) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )

    def page(self, *, before: int | None = None, limit: int = 100, actor_id: str | None = None) -> tuple[Entry, ...]:
        """The newest first: those with an id below `before`, of all or of one actor. At most 500."""
        found = self._database.connection().query(
            "SELECT id, at, actor, action, target, detail, address FROM audit_log "
            "WHERE (:before IS NULL OR id < :before) AND (:actor IS NULL OR actor_id = :actor) "
            "ORDER BY id DESC LIMIT :limit",
            {"before": before, "actor": actor_id, "limit": max(1, min(limit, MAX_PAGE))},
        )
        return tuple(Entry(**{**row, "detail": json.loads(row["detail"])}) for row in found)

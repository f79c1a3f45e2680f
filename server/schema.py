"""How many migrations of each part of the database this version knows. Knows nothing of what they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.accounts import ACCOUNT_MIGRATIONS, AUDIT_MIGRATIONS
from server.chat import CHAT_MIGRATIONS, TRACE_MIGRATIONS
from server.memory import EPISODE_MIGRATIONS, MEMORY_MIGRATIONS, QUEUE_MIGRATIONS

MIGRATION_COUNTS: Final[Mapping[str, int]] = {
    "accounts": len(ACCOUNT_MIGRATIONS),
    "audit": len(AUDIT_MIGRATIONS),
    "chat": len(CHAT_MIGRATIONS),
    "traces": len(TRACE_MIGRATIONS),
    "memory": len(MEMORY_MIGRATIONS),
    "episodes": len(EPISODE_MIGRATIONS),
    "memory queue": len(QUEUE_MIGRATIONS),
}

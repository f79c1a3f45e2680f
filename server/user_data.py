"""Everything that is kept of one user: written to a file, or erased.

Works on the database alone, so that the command line can use it without a model or a running server; with a
`ChatService` running turns are stopped first. The account, its sessions and its keys are not its business.
"""

from __future__ import annotations

import asyncio
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from server import memory
from server.chat import ChatService, ConversationStore, TraceStore, user_rows
from server.database import Database
from server.types import UserId

FORMAT: Final = "tailor-user-data-1"


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """How many there were of each. `pending`: somebody still reads the database, and what was deleted leaves its
    write-ahead log as soon as they are done."""

    conversations: int = 0
    messages: int = 0
    traces: int = 0
    memories: int = 0
    queued: int = 0  # messages that waited for the model's pass, and dead letters
    episodes: int = 0  # turns in the search of past chats
    pending: bool = False


class UserData:
    """`chat`: the service of this process, if it serves. `may_see(user, folder)`: whose sources an export may hold;
    without it an export holds none."""

    def __init__(
        self,
        database: Database,
        chat: ChatService | None = None,
        *,
        may_see: Callable[[UserId, str], bool] = lambda user, folder: False,
    ) -> None:
        self._database = database
        self._chat = chat
        self._may_see = may_see
        ConversationStore(database)
        TraceStore(database)
        memory.make_tables(database)

    # ── export ───────────────────────────────────────────────────────────────────────────────────

    def export(
        self, user: UserId, target: Path | IO[bytes], *, extra: Mapping[str, Any] | None = None
    ) -> dict[str, int]:
        """Writes a zip of JSON files to `target`, a chat at a time, and returns how many there were of what. `extra`:
        more files, name → JSON value. Blocks. Temporary chats are in it as long as they are there."""
        db = self._database.connection()
        counts = {"conversations": 0, "messages": 0}
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for conversation in user_rows.conversations(db, user):
                counts["conversations"] += 1
                messages = user_rows.messages(db, user, conversation["id"], lambda folder: self._may_see(user, folder))
                counts["messages"] += _write_conversation(archive, conversation, messages)
            kept = memory.export_user(db, user)
            for name, value in {**kept, **(extra or {})}.items():
                _write(archive, f"{name}.json", value)
            counts |= {"memories": len(kept["memories"]["memories"]), "queued": len(kept["queued"])}
            _write(archive, "about.json", {"format": FORMAT, "exported_at": time.time(), **counts})
        return counts

    # ── erasure ──────────────────────────────────────────────────────────────────────────────────

    async def erase(self, user: UserId) -> ErasureReceipt:
        """Stops the user's running answers, then erases. Who may still send for the user has to be ended before."""
        if self._chat is not None:
            await self._chat.stop_all(user)
        return await asyncio.to_thread(self.erase_stored, user)

    def erase_stored(self, user: UserId) -> ErasureReceipt:
        """Deletes every row of the user, in one transaction: all of it is gone, or nothing. Blocks. An answer that
        another process is writing stores nothing more."""
        with self._database.transaction() as db:
            counts = user_rows.erase(db, user) | memory.erase_user(db, user)
        return ErasureReceipt(**counts, pending=not self._database.scrub())


def _write(archive: zipfile.ZipFile, name: str, value: Any) -> None:
    archive.writestr(name, json.dumps(value, ensure_ascii=False, indent=1))


def _write_conversation(
    archive: zipfile.ZipFile, conversation: Mapping[str, Any], messages: Iterable[Mapping[str, Any]]
) -> int:
    """One message in memory at a time; how many there were."""
    count = 0
    with archive.open(f"chats/{conversation['id']}.json", "w", force_zip64=True) as file:
        head = json.dumps(conversation, ensure_ascii=False)
        file.write(f'{head[:-1]}, "messages": ['.encode())
        for message in messages:
            file.write((",\n" if count else "\n").encode() + json.dumps(message, ensure_ascii=False).encode())
            count += 1
        file.write(b"\n]}\n")
    return count

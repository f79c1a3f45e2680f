"""How much one user may ask: messages in a minute, tokens of the model in a day (UTC). 0 sets no limit.

Messages are counted in memory, tokens in the database, so that a restart gives none back. What the memory reads in the
background counts for nobody: it does not come through the turn pipeline. Knows nothing of chats or of the engine.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque

from server.background import background_worker
from server.config import LimitSettings
from server.database import Database
from server.errors import QuotaExceeded, RateLimited
from server.types import UserId

MINUTE_S = 60.0
DAY_S = 86_400


class Quotas:
    """Needs the tables of `Accounts`. Safe to call from any thread."""

    def __init__(self, database: Database, settings: LimitSettings) -> None:
        self._database = database
        self._settings = settings
        self._lock = threading.Lock()  # of the counts in memory; held for no query
        self._settling = threading.Lock()  # while counts move from memory to the database, nobody adds both up
        self._messages: defaultdict[UserId, deque[float]] = defaultdict(deque)
        self._pending: Counter[UserId] = Counter()
        self._writing: Counter[UserId] = Counter()
        self._writer = background_worker("tailor-quotas")

    def admit(self, user: UserId) -> None:
        """Counts a message that is about to be answered. Blocks for a query. Raises RateLimited, QuotaExceeded."""
        most = self._settings.tokens_per_day
        if most and self.spent_today(user) >= most:
            wait = DAY_S - time.time() % DAY_S
            raise QuotaExceeded(f"your {most:,} tokens of today are used up; they are renewed at midnight (UTC)", wait)
        self._count_message(user)

    def _count_message(self, user: UserId) -> None:
        most = self._settings.messages_per_minute
        if not most:
            return
        now = time.monotonic()
        with self._lock:
            sent = self._messages[user]
            while sent and sent[0] <= now - MINUTE_S:
                sent.popleft()
            if len(sent) >= most:
                wait = max(sent[0] + MINUTE_S - now, 1.0)
                raise RateLimited(f"you may send {most:,} messages a minute; wait a moment", wait)
            sent.append(now)

    def spent_today(self, user: UserId) -> int:
        """Tokens of prompts and answers, those that are yet to be written included. Blocks."""
        with self._settling:
            row = self._database.connection().execute(_SPENT, [user, _today()]).fetchone()
            with self._lock:
                return (row[0] if row else 0) + self._pending[user] + self._writing[user]

    def spend(self, user: UserId, tokens: int) -> None:
        """Does not block: a thread writes it."""
        if not self._settings.tokens_per_day or tokens <= 0:
            return
        with self._lock:
            self._pending[user] += tokens
        self._writer.submit(self._write)

    def close(self) -> None:
        """When all is written."""
        self._writer.shutdown()

    def _write(self) -> None:
        with self._lock:
            self._writing, self._pending = self._pending, Counter()
        with self._settling:
            written = False
            try:
                self._store(self._writing)
                written = True
            finally:
                with self._lock:
                    if not written:
                        self._pending.update(self._writing)
                    self._writing = Counter()

    def _store(self, spent: Counter[UserId]) -> None:
        with self._database.transaction() as db:
            db.execute("DELETE FROM token_usage WHERE day < ?", [_today() - 1])
            for user, tokens in spent.items():
                db.execute(_ADD, {"user": user, "day": _today(), "tokens": tokens})


def _today() -> int:
    return int(time.time() // DAY_S)


_SPENT = "SELECT tokens FROM token_usage WHERE user_id = ? AND day = ?"

# Not for an account that was removed while it was answered.
_ADD = """
    INSERT INTO token_usage SELECT :user, :day, :tokens
    WHERE :user = 'local' OR EXISTS (SELECT 1 FROM accounts WHERE user_id = :user)
    ON CONFLICT (user_id, day) DO UPDATE SET tokens = tokens + excluded.tokens
"""

"""What a revoked session, a changed password or a removed account ends: open sockets, running answers, stored data.

One query each half second looks after all that is open, since the command line writes to the same database from another
process. Belongs to one event loop. Knows nothing of sockets or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from server.accounts import Accounts, Credential, Login
from server.chat import ChatService
from server.types import UserId
from server.user_data import ErasureReceipt, UserData

log = logging.getLogger("tailor.api")

POLL_S = 0.5
SETTLE_S = 2.0  # after which an account is erased again: what was under way when it went may have stored something


class Revocations:
    def __init__(self, accounts: Accounts, chat: ChatService, user_data: UserData) -> None:
        self._accounts = accounts
        self._chat = chat
        self._user_data = user_data
        self._watched: defaultdict[Credential, set[asyncio.Event]] = defaultdict(set)
        self._erasing = asyncio.Lock()
        self._poll_s = POLL_S
        self._erased_at: dict[UserId, float] = {}

    @contextmanager
    def watch(self, login: Login) -> Iterator[asyncio.Event]:
        """An event that is set once the login opens nothing any more."""
        ended = asyncio.Event()
        self._watched[login.credential].add(ended)
        try:
            yield ended
        finally:
            self._watched[login.credential].discard(ended)
            if not self._watched[login.credential]:
                del self._watched[login.credential]

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.check()
            except sqlite3.Error as error:  # another process has the database just now; so do new requests fail
                log.warning("open sessions could not be checked (%s); trying again", error)
            await asyncio.sleep(self._poll_s)

    async def check(self) -> None:
        """Ends what does not hold any more, and erases what removed accounts left."""
        watched = set(self._watched)
        if watched:
            live = await asyncio.to_thread(self._accounts.live, watched)
            for credential in watched - live:
                for ended in self._watched.get(credential, ()):
                    ended.set()
        if await asyncio.to_thread(self._accounts.erasures):
            await self.erase_removed()

    async def erase_removed(self) -> dict[UserId, ErasureReceipt]:
        """Stops the running answers of removed accounts and erases what is stored of them; twice, a while apart."""
        async with self._erasing:
            receipts = {}
            for user in await asyncio.to_thread(self._accounts.erasures):
                first = self._erased_at.get(user)
                if first is not None and time.monotonic() - first < SETTLE_S:
                    continue
                receipts[user] = await self._user_data.erase(user)
                if first is None:
                    self._erased_at[user] = time.monotonic()
                else:
                    await asyncio.to_thread(self._accounts.erased, user)
                    del self._erased_at[user]
            return receipts

"""Signing in with a name and a password: bounds first, then the throttle, then the hash on its own threads.

Lives on the event loop. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib

from server.accounts.accounts import SESSION_DAYS, Accounts
from server.accounts.passwords import PasswordWorkers, check_length
from server.accounts.records import MAX_NAME, Account, Login, Origin, Session
from server.accounts.throttle import LoginThrottle, address_block
from server.errors import InvalidInput, Overloaded, Unauthorized


class SignIn:
    def __init__(self, accounts: Accounts, workers: PasswordWorkers) -> None:
        self._accounts = accounts
        self._workers = workers
        self._throttle = LoginThrottle()

    async def sign_in(
        self, name: str, password: str, origin: Origin, *, current_token: str = "", days: float = SESSION_DAYS
    ) -> Session:
        """Opens a session of `days`. Raises Unauthorized (wrong name or password alike), RateLimited, Overloaded,
        InvalidInput for what is too long to be a name or a password."""
        if len(name) > MAX_NAME:
            raise InvalidInput(f"a name has at most {MAX_NAME} characters; this one has {len(name):,}")
        check_length(password)
        name = name.strip().lower()
        source, known = await asyncio.to_thread(self._source, name, origin, current_token)
        with CountedTry(self._throttle, name, source, known) as counted:
            session = await self._workers.run(self._accounts.login, name, password, origin=origin, days=days)
            counted.succeeded = True
            return session

    def count_elsewhere(self, origin: Origin) -> CountedTry:
        """A try at an identity provider, which costs a request there: a failure of the address unless it succeeds.
        Raises RateLimited."""
        return CountedTry(self._throttle, "", address_block(origin.address), known=False)

    async def confirm(self, login: Login, password: str, origin: Origin) -> None:
        """The caller's own password, asked for again before what cannot be undone. Raises as `sign_in` does."""
        check_length(password)
        source = f"{login.credential.kind} {login.credential.id}"
        with CountedTry(self._throttle, login.account.name, source, True) as counted:
            if not await self._workers.run(self._accounts.has_password, login.account.user_id, password):
                raise Unauthorized("the password is wrong")
            counted.succeeded = True

    async def change_password(self, login: Login, old: str, new: str, origin: Origin) -> None:
        """Ends every other session and every key of the caller. Raises as `confirm`, InvalidInput."""
        await self.confirm(login, old, origin)
        keep = login.credential.id if login.credential.kind == "session" else ""
        await self._workers.run(self._accounts.set_password, login.account.name, new, keep_session=keep)

    async def add(self, name: str, password: str, roles: frozenset[str]) -> Account:
        """Raises as `Accounts.add`, Overloaded."""
        return await self._workers.run(self._accounts.add, name, password, roles=roles)

    async def reset_password(self, name: str, password: str, origin: Origin) -> None:
        """Raises as `Accounts.set_password`, Overloaded."""
        await self._workers.run(self._accounts.set_password, name, password)
        self._throttle.forgive(name, address_block(origin.address))

    def close(self) -> None:
        self._workers.close()

    def _source(self, name: str, origin: Origin, token: str) -> tuple[str, bool]:
        """What the tries are counted by, and whether the account knows it."""
        current = self._accounts.session(token) if token else None
        if current is not None and current.name == name:
            return f"session {hashlib.sha256(token.encode()).hexdigest()}", True
        block = address_block(origin.address)
        return block, block in self._accounts.known_blocks(name)


class CountedTry:
    """One try at the throttle: a failure unless `succeeded`, or unless it was never tried. Who hangs up has tried."""

    def __init__(self, throttle: LoginThrottle, name: str, source: str, known: bool) -> None:
        self._throttle = throttle
        self._attempt = throttle.attempt(name, source, known=known)
        self.succeeded = False

    def __enter__(self) -> CountedTry:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._throttle.ended(self._attempt)
        if self.succeeded:
            self._throttle.succeeded(self._attempt)
        elif kind is Overloaded:
            self._throttle.undo(self._attempt)

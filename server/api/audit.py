"""How a route records what it did: the one way from a request to the audit log. Knows no route."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from server.accounts import Account, Action
from server.api.services import OptionalLogin, get_services, origin_of


class Recorder:
    """`await record(Action.USER_ADDED, name)` adds a row of the caller; `actor`: of somebody who is no caller yet."""

    def __init__(self, connection: HTTPConnection, login: OptionalLogin) -> None:
        self._audit = get_services(connection).audit
        self._address = origin_of(connection).address
        self._caller = login.account if login else None

    async def __call__(
        self, action: Action, target: str = "", *, actor: Account | None = None, **detail: object
    ) -> None:
        who = actor or self._caller
        await asyncio.to_thread(self._audit.record, action, who, target, detail, self._address)


Record = Annotated[Recorder, Depends(Recorder)]

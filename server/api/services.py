"""The services that routes depend on, built once by `server/app.py`, and who is calling.

`CurrentUser` and `Admin` are the only ways a route learns a user id: from the session, never from the request's
own fields.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from server.api.accounts import Account, Accounts
from server.api.hub import Hub
from server.chat import ChatService, TurnPipeline
from server.config import Settings
from server.database import Database
from server.engine import Engine
from server.errors import Forbidden, Unauthorized
from server.memory import MemoryStore, MemoryWriter
from server.model_router import ModelRouter
from server.prompting import PromptLibrary
from server.retrieval import LOCAL_USER, SharedKnowledge
from server.types import Embedder

COOKIE = "tailor_session"
LOGIN, LOGOUT = "/api/login", "/api/logout"
LOCAL = Account(LOCAL_USER, "local", True)


@dataclass(frozen=True)
class Services:
    settings: Settings
    engine: Engine
    embedder: Embedder
    library: PromptLibrary
    router: ModelRouter
    knowledge: SharedKnowledge
    memory: MemoryStore
    writer: MemoryWriter
    chat: ChatService
    pipeline: TurnPipeline
    accounts: Accounts
    hub: Hub
    login_needed: bool
    version: str
    database: Database


def get_services(connection: HTTPConnection) -> Services:
    services = connection.app.state.services
    assert isinstance(services, Services)  # narrows a type that create_app sets
    return services


def api_key_of(connection: HTTPConnection) -> str:
    """What `Authorization: Bearer` carries, unchecked; '' where there is none."""
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


async def find_user(connection: HTTPConnection) -> Account | None:
    """The caller by session cookie or API key; `local` where no login is needed; else None."""
    services = get_services(connection)
    if not services.login_needed:
        return LOCAL
    key = api_key_of(connection)
    if key:
        return await asyncio.to_thread(services.accounts.by_api_key, key)
    token = connection.cookies.get(COOKIE)
    return await asyncio.to_thread(services.accounts.session, token) if token else None


async def _current_user(connection: HTTPConnection) -> Account:
    user = await find_user(connection)
    if user is None:
        raise Unauthorized("log in first, or send 'Authorization: Bearer <API key>'")
    connection.state.user_id = user.user_id
    return user


async def _admin(user: Annotated[Account, Depends(_current_user)]) -> Account:
    if not user.admin:
        raise Forbidden("only an administrator may change knowledge and adapters")
    return user


async def open_reserve(connection: HTTPConnection) -> AsyncIterator[None]:
    """A deletion works on a full disk, too, and so do the login that it needs and the logout."""
    reserve = get_services(connection).database.reserve
    scope = connection.scope
    if reserve is None or (scope.get("method") != "DELETE" and scope["path"] not in (LOGIN, LOGOUT)):
        yield
        return
    try:
        with reserve.open_to_caller():
            await asyncio.to_thread(reserve.give_up_if_short)
            yield
    finally:
        await asyncio.to_thread(reserve.restore, at_once=True)


CurrentUser = Annotated[Account, Depends(_current_user)]
Admin = Annotated[Account, Depends(_admin)]
ServicesDep = Annotated[Services, Depends(get_services)]

"""The services that routes depend on, built once by `server/app.py`, and who is calling.

`CurrentUser`, `CurrentLogin` and `Permitted` are the only ways a route learns a user id: from the session or the key,
never from the request's own fields. Knows no route.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from server.accounts import (
    Account,
    Accounts,
    AuditLog,
    Credential,
    Groups,
    Identities,
    Login,
    OpenIdProvider,
    Origin,
    Permission,
    Quotas,
    Role,
    SignIn,
    roles_with,
)
from server.api.hub import Hub
from server.api.revocation import Revocations
from server.api.transport.routing import before_body
from server.chat import ChatService, TurnPipeline
from server.config import Settings
from server.database import Database
from server.engine import Engine
from server.errors import Forbidden, Unauthorized
from server.memory import MemoryStore, MemoryWriter
from server.model_router import ModelRouter
from server.prompting import SharedDomains
from server.retrieval import LOCAL_USER, SharedKnowledge
from server.types import Embedder
from server.user_data import UserData

COOKIE = "tailor_session"
LOGIN, LOGOUT = "/api/login", "/api/logout"
LOCAL = Login(Account(LOCAL_USER, "local", frozenset(Role)), Credential("local"))
_FOUND = "tailor.login"  # in the scope of a request


@dataclass(frozen=True)
class Services:
    settings: Settings
    engine: Engine
    embedder: Embedder
    domains: SharedDomains
    router: ModelRouter
    knowledge: SharedKnowledge
    memory: MemoryStore
    writer: MemoryWriter
    chat: ChatService
    pipeline: TurnPipeline
    accounts: Accounts
    groups: Groups
    audit: AuditLog
    quotas: Quotas
    identities: Identities
    openid: OpenIdProvider | None
    sign_in: SignIn
    revocations: Revocations
    user_data: UserData
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


def origin_of(connection: HTTPConnection) -> Origin:
    address = connection.client.host if connection.client else ""
    return Origin(address, connection.headers.get("user-agent", ""))


async def find_login(connection: HTTPConnection) -> Login | None:
    """The caller by API key or session cookie; `local` where no login is needed; else None."""
    services = get_services(connection)
    if not services.login_needed:
        return LOCAL
    key = api_key_of(connection)
    if key:
        return await asyncio.to_thread(services.accounts.login_of_key, key)
    token = connection.cookies.get(COOKIE)
    return await asyncio.to_thread(services.accounts.login_of_session, token) if token else None


async def find_user(connection: HTTPConnection) -> Account | None:
    """As `find_login`, the account alone."""
    login = await find_login(connection)
    return login.account if login else None


async def _optional_login(connection: HTTPConnection) -> Login | None:
    """Looked up once a request, which asks before its body is read and again for its endpoint."""
    if _FOUND not in connection.scope:
        connection.scope[_FOUND] = await find_login(connection)
    found: Login | None = connection.scope[_FOUND]
    return found


OptionalLogin = Annotated[Login | None, Depends(_optional_login)]


@before_body
async def _current_login(connection: HTTPConnection) -> Login:
    login = await _optional_login(connection)
    if login is None:
        raise Unauthorized("log in first, or send 'Authorization: Bearer <API key>'")
    connection.state.user_id = login.account.user_id  # for the log
    return login


CurrentLogin = Annotated[Login, Depends(_current_login)]


async def _current_user(login: CurrentLogin) -> Account:
    return login.account


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


class Permitted:
    """A dependency: the caller, who has this permission. Raises Forbidden naming the roles that have it."""

    before_body = True

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, connection: HTTPConnection) -> Account:
        user = (await _current_login(connection)).account
        if not user.may(self.permission):
            roles = ", ".join(roles_with(self.permission))
            raise Forbidden(f"this needs the permission '{self.permission}', which these roles have: {roles}")
        return user


KnowledgeWriter = Annotated[Account, Depends(Permitted(Permission.KNOWLEDGE_WRITE))]
AdapterLoader = Annotated[Account, Depends(Permitted(Permission.ADAPTERS_LOAD))]
UserManager = Annotated[Account, Depends(Permitted(Permission.USERS_MANAGE))]
AuditReader = Annotated[Account, Depends(Permitted(Permission.AUDIT_READ))]
ServicesDep = Annotated[Services, Depends(get_services)]

"""The caller's own account: password, sessions, keys, everything of theirs as a file, and erasing it all.

What changes who may come in needs a session: a key that was lost must not make more of itself.
"""

from __future__ import annotations

import asyncio
import datetime
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from server.accounts import MAX_PASSWORD, Action, Login, Role
from server.api.audit import Record
from server.api.fields import Id, RequestModel
from server.api.routes.session import account_body, forget_cookie
from server.api.services import CurrentLogin, Services, ServicesDep, origin_of
from server.api.transport.routing import KIB, Route, takes_body
from server.errors import Conflict, Forbidden, Unauthorized

router = APIRouter(prefix="/api/account", route_class=Route)

CHUNK_BYTES = 64 * 1024


async def _own_session(login: CurrentLogin) -> Login:
    if login.credential.kind == "local":
        raise Conflict("this server has no accounts yet: make one with 'tailor users add NAME --admin' and restart it")
    if login.credential.kind == "key":
        raise Forbidden("an API key may not do this; log in with the password")
    return login


OwnSession = Annotated[Login, Depends(_own_session)]


class PasswordRequest(RequestModel):
    old: str = Field(max_length=MAX_PASSWORD)
    new: str = Field(max_length=MAX_PASSWORD)


class EraseRequest(RequestModel):
    password: str = Field(max_length=MAX_PASSWORD)


class KeyRequest(RequestModel):
    name: str = Field("", max_length=64)


@router.get("")
async def account(services: ServicesDep, login: CurrentLogin) -> dict[str, Any]:
    """Who the caller is, and what opens the account."""
    return await asyncio.to_thread(_describe, services, login)


def _describe(services: Services, login: Login) -> dict[str, Any]:
    user = login.account.user_id
    sessions = services.accounts.sessions(user)
    return {
        "user": account_body(login.account),
        "has_password": services.accounts.has_any_password(user),
        "groups": services.groups.of(user),
        "sessions": [asdict(one) | {"current": one.id == login.credential.id} for one in sessions],
        "keys": [asdict(key) for key in services.accounts.api_keys(user)],
    }


@router.put("/password", status_code=204)
@takes_body(16 * KIB)
async def change_password(
    body: PasswordRequest, request: Request, services: ServicesDep, login: OwnSession, record: Record
) -> None:
    """Every other session and every key ends."""
    await services.sign_in.change_password(login, body.old, body.new, origin_of(request))
    await record(Action.PASSWORD_CHANGED)


@router.delete("/sessions")
async def end_other_sessions(services: ServicesDep, login: OwnSession, record: Record) -> dict[str, Any]:
    ended = await asyncio.to_thread(services.accounts.revoke_other_sessions, login.account.user_id, login.credential.id)
    await record(Action.SESSION_REVOKED, ended=ended)
    return {"ended": ended}


@router.delete("/sessions/{session_id}", status_code=204)
async def end_session(session_id: Id, services: ServicesDep, login: OwnSession, record: Record) -> None:
    await asyncio.to_thread(services.accounts.revoke_session, login.account.user_id, session_id)
    await record(Action.SESSION_REVOKED, ended=1)


@router.post("/keys", status_code=201)
@takes_body(4 * KIB)
async def make_key(body: KeyRequest, services: ServicesDep, login: OwnSession, record: Record) -> dict[str, Any]:
    """`secret` is shown here once."""
    key, secret = await asyncio.to_thread(services.accounts.make_api_key, login.account.user_id, body.name)
    await record(Action.KEY_MADE, key.prefix)
    return {"key": asdict(key), "secret": secret}


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(key_id: Id, services: ServicesDep, login: OwnSession, record: Record) -> None:
    await asyncio.to_thread(services.accounts.revoke_api_key, login.account.user_id, key_id)
    await record(Action.KEY_REVOKED)


@router.get("/export")
async def export(services: ServicesDep, login: CurrentLogin, record: Record) -> StreamingResponse:
    """A zip of JSON files."""
    file = await asyncio.to_thread(_exported, services, login)
    await record(Action.DATA_EXPORTED)
    name = f"tailor-{login.account.name}-{datetime.datetime.now(datetime.UTC).date().isoformat()}.zip"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_chunks(file), media_type="application/zip", headers=headers)


def _exported(services: Services, login: Login) -> IO[bytes]:
    file = tempfile.TemporaryFile(dir=services.settings.paths.data)  # noqa: SIM115  it has no name, and goes when closed
    user = login.account.user_id
    actions = services.audit.page(actor_id=user, limit=500)
    extra = {"account": _describe(services, login), "audit": [asdict(entry) for entry in actions]}
    services.user_data.export(user, file, extra=extra)
    file.seek(0)
    return file


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


@router.post("/erase")
@takes_body(8 * KIB)
async def erase(
    body: EraseRequest,
    request: Request,
    response: Response,
    services: ServicesDep,
    login: OwnSession,
    record: Record,
) -> dict[str, Any]:
    """The account with everything of it, for good. Refused to the only administrator."""
    await _confirm(services, login, body.password, request)
    if Role.ADMIN in login.account.roles and await asyncio.to_thread(_is_only_admin, services, login):
        raise Conflict("you are the only administrator; make another account one first")
    gone = await asyncio.to_thread(services.accounts.remove, login.account.name)
    receipts = await services.revocations.erase_removed()
    await record(Action.ACCOUNT_ERASED, gone.name)
    forget_cookie(response)
    return {"erased": asdict(receipts[gone.user_id]) if gone.user_id in receipts else {}}


async def _confirm(services: Services, login: Login, typed: str, request: Request) -> None:
    """By the password or, of an account that has none, by its name: the session is all that there is to show."""
    if await asyncio.to_thread(services.accounts.has_any_password, login.account.user_id):
        await services.sign_in.confirm(login, typed, origin_of(request))
    elif typed.strip().lower() != login.account.name:
        raise Unauthorized(f"type the name of your account, {login.account.name}, to erase it")


def _is_only_admin(services: Services, login: Login) -> bool:
    return not any(one.admin and one.user_id != login.account.user_id for one in services.accounts.list())

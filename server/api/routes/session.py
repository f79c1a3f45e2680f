"""Who is calling, logging in and out."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from server.accounts import MAX_NAME, MAX_PASSWORD, Account, Action
from server.api.audit import Record
from server.api.fields import RequestModel
from server.api.services import COOKIE, LOGIN, LOGOUT, Services, ServicesDep, find_user, origin_of
from server.api.transport.routing import KIB, Route, takes_body
from server.errors import NotFound, Unauthorized
from server.types import UserId

router = APIRouter(route_class=Route)

NOBODY = Account(UserId(""), "")


class LoginRequest(RequestModel):
    name: str = Field(max_length=MAX_NAME)
    password: str = Field(max_length=MAX_PASSWORD)


@router.get("/api/session")
async def session(request: Request, services: ServicesDep) -> dict[str, Any]:
    user = await find_user(request)
    if user is None or services.openid is None:
        return session_body(services, user)
    linked = await asyncio.to_thread(services.identities.is_linked, user.user_id)
    logout_url = services.openid.logout_url(str(request.base_url)) if linked else None
    return session_body(services, user) | {"logout_url": logout_url}


@router.post(LOGIN)
@takes_body(16 * KIB)
async def login(
    body: LoginRequest, request: Request, response: Response, services: ServicesDep, record: Record
) -> dict[str, Any]:
    days = services.settings.server.session_days
    current = request.cookies.get(COOKIE, "")
    try:
        opened = await services.sign_in.sign_in(
            body.name, body.password, origin_of(request), current_token=current, days=days
        )
    except Unauthorized:
        known = await asyncio.to_thread(_known, services, body.name)
        await record(Action.SIGN_IN_FAILED, known, actor=NOBODY)
        raise
    set_cookie(request, response, opened.token, days)
    await record(Action.SIGNED_IN, actor=opened.account)
    return session_body(services, opened.account)


def _known(services: Services, name: str) -> str:
    """The name, if it is one: what is typed into its field may be a password."""
    try:
        return services.accounts.get(name).name
    except NotFound:
        return ""


@router.post(LOGOUT, status_code=204)
async def logout(request: Request, response: Response, services: ServicesDep, record: Record) -> None:
    token = request.cookies.get(COOKIE)
    if token:
        user = await asyncio.to_thread(services.accounts.session, token)
        await asyncio.to_thread(services.accounts.logout, token)
        if user is not None:
            await record(Action.SIGNED_OUT, actor=user)
    forget_cookie(response)


def set_cookie(request: Request, response: Response, token: str, days: float) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, token, max_age=int(days * 86400), httponly=True, samesite="strict", secure=secure)


def forget_cookie(response: Response) -> None:
    response.delete_cookie(COOKIE)


def session_body(services: Services, user: Account | None) -> dict[str, Any]:
    """What a client must know before it draws; the model only for those who may use it."""
    server = services.settings.server
    return {
        "user": account_body(user) if user else None,
        "login_needed": services.login_needed,
        "oidc": {"label": services.settings.oidc.label} if services.openid else None,
        "version": services.version,
        "model": services.engine.model if user else None,
        "default_domain": services.settings.prompts.default_domain,
        "max_message_bytes": server.max_message_bytes,
        "max_upload_bytes": server.max_upload_bytes,
    }


def account_body(user: Account) -> dict[str, Any]:
    return {
        "id": user.user_id,
        "name": user.name,
        "admin": user.admin,
        "roles": sorted(user.roles),
        "permissions": sorted(user.permissions),
    }

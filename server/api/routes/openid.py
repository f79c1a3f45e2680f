"""Logging in at an identity provider: to it, and back from it.

The session's cookie is SameSite=Strict. It is set here, on the way back from another site, and sent from then on by the
page's own requests; the page itself needs none. What has to survive the way there and back is in a cookie of its own,
which is Lax, opens nothing, and lives for ten minutes.
"""

from __future__ import annotations

import asyncio
import secrets

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.requests import HTTPConnection

from server.accounts import Action, OpenIdProvider, PendingLogin
from server.api.audit import Record
from server.api.routes.session import NOBODY, set_cookie
from server.api.services import Services, ServicesDep, origin_of
from server.api.transport.routing import Route
from server.errors import Forbidden, NotFound, RateLimited, TailorError, Unauthorized

router = APIRouter(prefix="/api/oidc", route_class=Route)

STATE_COOKIE = "tailor_oidc"
STATE_PATH = "/api/oidc"
STATE_S = 600


def _provider(services: Services) -> OpenIdProvider:
    if services.openid is None:
        raise NotFound("no identity provider is set up here (oidc.issuer)")
    return services.openid


def redirect_uri(services: Services, connection: HTTPConnection) -> str:
    return services.settings.oidc.redirect_url or f"{connection.base_url}api/oidc/callback"


@router.get("/login")
async def login(request: Request, services: ServicesDep) -> RedirectResponse:
    """To the provider."""
    try:
        url, pending = await _provider(services).begin(redirect_uri(services, request))
    except (Unauthorized, RateLimited):
        return _home("provider")
    answer = RedirectResponse(url, 303)
    answer.set_cookie(
        STATE_COOKIE,
        f"{pending.state}.{pending.nonce}.{pending.verifier}",
        max_age=STATE_S,
        path=STATE_PATH,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


@router.get("/callback")
async def callback(
    request: Request, services: ServicesDep, record: Record, code: str = "", state: str = "", error: str = ""
) -> RedirectResponse:
    """Back from the provider. Every end leads to the client, which says what went wrong."""
    provider = _provider(services)
    pending = _pending(request)
    if error or pending is None or not code or not secrets.compare_digest(pending.state.encode(), state.encode()):
        return _home("denied" if error == "access_denied" else "failed")
    try:
        with services.sign_in.count_elsewhere(origin_of(request)) as counted:
            claims = await provider.finish(pending, redirect_uri(services, request), code)
            account = await asyncio.to_thread(services.identities.account_of, claims)
            counted.succeeded = True
    except RateLimited:
        return _home("failed")
    except TailorError as failure:
        await record(Action.SIGN_IN_FAILED, actor=NOBODY, by="oidc")
        return _home("unknown" if isinstance(failure, Forbidden) else "failed")
    days = services.settings.server.session_days
    opened = await asyncio.to_thread(services.accounts.open_session, account, origin_of(request), days=days)
    answer = _home()
    set_cookie(request, answer, opened.token, days)
    await record(Action.SIGNED_IN, actor=account, by="oidc")
    return answer


def _pending(request: Request) -> PendingLogin | None:
    parts = request.cookies.get(STATE_COOKIE, "").split(".")
    return PendingLogin(*parts) if len(parts) == 3 and all(parts) else None


def _home(problem: str = "") -> RedirectResponse:
    answer = RedirectResponse(f"/?login={problem}" if problem else "/", 303)
    answer.delete_cookie(STATE_COOKIE, path=STATE_PATH)
    return answer

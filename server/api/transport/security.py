"""What holds for every request: text that can be read, a known Host, the same Origin, headers that bind the browser.

Without login, a page of another site must not reach the server through a name that points at this machine (DNS
rebinding), so the Host must then be a loopback name or one of `server.allowed_hosts`. Pure ASGI, so streams pass
untouched. Knows nothing of accounts and routes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import error_body, status_of
from server.api.text import check_head, host_name
from server.config import LOOPBACK, ServerSettings
from server.errors import Forbidden, TailorError

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def origin_allowed(connection: HTTPConnection, allowed: Sequence[str]) -> bool:
    """True without an Origin (no browser), for the server's own, and for those of the settings, exactly."""
    origin, host = connection.headers.get("origin"), connection.headers.get("host")
    return origin is None or origin in allowed or origin in (f"http://{host}", f"https://{host}")


def content_security_policy(index_html: str) -> str:
    """Own files only; the one inline script, the import map, by its hash."""
    maps = re.findall(r'<script type="importmap">(.*?)</script>', index_html, re.DOTALL)
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(m.encode()).digest()).decode()}'" for m in maps)
    return (
        f"default-src 'self'; script-src 'self' {hashes}; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self' ws: wss:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )


class SecurityMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, settings: ServerSettings, login_needed: bool, policy: str) -> None:
        self._app = app
        self._settings = settings
        self._login_needed = login_needed
        self._allowed_hosts = (*LOOPBACK, *(name.lower() for name in settings.allowed_hosts))
        self._headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except TailorError as error:
            await refuse(error, scope, receive, self._with_headers(send))
            return
        await self._app(scope, receive, send if scope["type"] == "websocket" else self._with_headers(send))

    def _check(self, scope: Scope) -> None:
        check_head(scope["path"], scope.get("raw_path"), scope.get("query_string", b""), scope["headers"])
        connection = HTTPConnection(scope)
        self._check_host(connection)
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if changes and not origin_allowed(connection, self._settings.allowed_origins):
            raise Forbidden("requests from this origin are not allowed; add it to server.allowed_origins")

    def _check_host(self, connection: HTTPConnection) -> None:
        if self._login_needed and not self._settings.allowed_hosts:
            return
        host = host_name(connection.headers.get("host", ""))
        if host not in self._allowed_hosts:
            names = ", ".join(self._allowed_hosts)
            raise Forbidden(f"host '{host}' is not served, only {names}; add it to server.allowed_hosts")

    def _with_headers(self, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        return wrapped


async def refuse(error: TailorError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or a handshake that was not accepted, with the error."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:120]})
        return
    status = status_of(error)
    await JSONResponse(error_body(scope["path"], status, error.code, str(error)), status)(scope, receive, send)

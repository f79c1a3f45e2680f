"""What holds for every request: known Host, same Origin, bounded bodies, and headers that bind the browser.

Without login, a page of another site must not reach the server through a name that points at loopback
(DNS rebinding), so the Host must then be a loopback name. Pure ASGI, so streams pass untouched.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import openai_shape
from server.config import LOOPBACK, ServerSettings
from server.errors import Forbidden, TailorError, TooLarge

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MULTIPART_OVERHEAD = 64 * 1024
JSON_BODY_BYTES = 8 * 1024 * 1024  # a long history for /v1/chat/completions


def origin_allowed(connection: HTTPConnection, allowed: Sequence[str]) -> bool:
    """True without an Origin (no browser), for the server's own, and for those of the settings, exactly."""
    origin = connection.headers.get("origin")
    if origin is None or origin in allowed:
        return True
    return urlsplit(origin).netloc == connection.headers.get("host") and origin.startswith(("http://", "https://"))


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
        connection = HTTPConnection(scope)
        try:
            self._check_host(connection)
            if scope["type"] == "websocket":
                await self._app(scope, receive, send)
                return
            if scope["method"] not in SAFE_METHODS and not origin_allowed(connection, self._settings.allowed_origins):
                raise Forbidden("requests from this origin are not allowed; add it to server.allowed_origins")
            limit = self._body_limit(scope["path"])
            _check_length(connection.headers, limit)
            await self._app(scope, _bounded(receive, limit), self._with_headers(send))
        except TailorError as error:
            await _refuse(error, scope, receive, send)

    def _check_host(self, connection: HTTPConnection) -> None:
        if self._login_needed:
            return
        host = urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
        if host not in LOOPBACK:
            names = ", ".join(LOOPBACK)
            raise Forbidden(f"host '{host}' is not this machine; without a password only {names} are served")

    def _body_limit(self, path: str) -> int:
        if path.startswith("/api/knowledge/"):
            return self._settings.max_upload_bytes + MULTIPART_OVERHEAD
        return JSON_BODY_BYTES

    def _with_headers(self, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        return wrapped


def _check_length(headers: Headers, limit: int) -> None:
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)


def _bounded(receive: Receive, limit: int) -> Receive:
    taken = 0

    async def wrapped() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise _too_large(limit)
        return message

    return wrapped


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request has more than {limit:,} bytes; send less, or raise server.max_upload_bytes")


async def _refuse(error: TailorError, scope: Scope, receive: Receive, send: Send) -> None:
    status = 413 if isinstance(error, TooLarge) else 403
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:120]})
        return
    body: dict[str, object] = {"error": {"code": error.code, "message": str(error)}}
    if scope["path"].startswith("/v1/"):
        body = openai_shape(str(error), error.code, status)
    await JSONResponse(body, status)(scope, receive, send)

"""A line a request in the log, and the id that all lines of a request share.

`X-Request-ID` is taken over where it is short and plain, as a proxy sends it, else made; it goes back with the answer
and stays with the tasks that the request starts. A path is logged as its template: ids, names and queries are the
users' affair. Pure ASGI, so streams pass untouched. Knows nothing of what a request does.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.logging import request_id

log = logging.getLogger("tailor.api")

HEADER: Final = "x-request-id"
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET")
_QUIET = ("/health", "/static", "/metrics")  # asked for every few seconds, or once a file


class RequestLog:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        own_id = given if _PLAIN_ID.fullmatch(given) else secrets.token_hex(8)
        token, started, status = request_id.set(own_id), time.monotonic(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.accept"):
                status = message.get("status", 101)
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[HEADER] = own_id
            elif message["type"] == "websocket.close":
                status = status or 403
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            _write_line(scope, status or 500, time.monotonic() - started)
            request_id.reset(token)


def _write_line(scope: Scope, status: int, seconds: float) -> None:
    method = scope.get("method", "WEBSOCKET")
    method = method if method in _METHODS else "(other)"  # a client may send any word
    path = _template(scope)
    user = scope.get("state", {}).get("user_id", "-")
    fields = {"method": method, "path": path, "status": status, "ms": round(seconds * 1000, 1), "user": user}
    level = logging.DEBUG if path.startswith(_QUIET) else logging.INFO
    log.log(level, "%s %s %d %.1f ms user=%s", method, path, status, seconds * 1000, user, extra={"fields": fields})


def _template(scope: Scope) -> str:
    """'/api/messages/{message_id}/prompt'; of what no route has, nothing but that."""
    route = scope.get("route")
    if route is not None:
        return str(getattr(route, "path_format", getattr(route, "path", "-")))
    return "/static" if scope["path"].startswith("/static/") else "(no route)"

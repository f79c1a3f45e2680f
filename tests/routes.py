"""The routes of an application, and what each asks of its caller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount, WebSocketRoute

from server.accounts import Permission
from server.api.services import Permitted


def all_routes(app: FastAPI) -> dict[str, BaseRoute]:
    """By 'GET /path', 'WS /path' or 'MOUNT /path'."""
    return {name: route for route in _walk(app.routes) for name in _names(route)}


def _walk(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    for route in routes:
        included: Any = getattr(route, "original_router", None)  # newer FastAPI keeps routers whole
        if included is not None:
            yield from _walk(included.routes)
        else:
            yield route


def _names(route: BaseRoute) -> list[str]:
    path = getattr(route, "path", "")
    if isinstance(route, Mount):
        return [f"MOUNT {path}"]
    if isinstance(route, WebSocketRoute):
        return [f"WS {path}"]
    return [f"{method} {path}" for method in sorted(getattr(route, "methods", None) or ()) if method != "HEAD"]


def permission_of(route: BaseRoute) -> Permission | None:
    """What its caller must be permitted, if anything."""
    pending = [getattr(route, "dependant", None)]
    while pending:
        dependant = pending.pop()
        if dependant is None:
            continue
        if isinstance(dependant.call, Permitted):
            return dependant.call.permission
        pending += dependant.dependencies
    return None

"""The route class of every route: who asks is known before a byte of the body is read, and each body has a bound of its
own, which stands beside its endpoint (`@takes_body`). JSON is parsed by `server/api/text.py` alone.

Knows nothing of what a route does, or of how an account is found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, UploadFile
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope

from server.api.text import check_text, parse_json, shown
from server.config import ServerSettings
from server.errors import InvalidInput, TooLarge

KIB = 1024
MIB = 1024 * KIB

Guard = Callable[[HTTPConnection], Awaitable[object]]
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """Most bytes of a request's body; those of `setting` (of the section `server`) come to it."""

    bytes: int
    setting: str = ""

    def total(self, settings: ServerSettings) -> int:
        return self.bytes + (int(getattr(settings, self.setting)) if self.setting else 0)


DEFAULT_LIMIT = BodyLimit(4 * KIB)


def takes_body(most: int, *, setting: str = "") -> Callable[[AnyFunction], AnyFunction]:
    """Declares an endpoint's bound, in bytes; a `setting` of the section `server` is added to it."""

    def declare(endpoint: AnyFunction) -> AnyFunction:
        endpoint.body_limit = BodyLimit(most, setting)  # type: ignore[attr-defined]
        return endpoint

    return declare


def declared_limit(endpoint: Callable[..., Any]) -> BodyLimit | None:
    """None where the endpoint declares none."""
    limit = getattr(endpoint, "body_limit", None)
    return limit if isinstance(limit, BodyLimit) else None


def before_body(guard: AnyFunction) -> AnyFunction:
    """Marks a dependency that takes the connection alone: it is asked before the body is read."""
    guard.before_body = True  # type: ignore[attr-defined]
    return guard


def guards_of(dependant: Dependant) -> Iterator[Guard]:
    """The marked dependencies of an endpoint, and theirs."""
    for each in dependant.dependencies:
        if each.call is not None and getattr(each.call, "before_body", False):
            yield each.call
        yield from guards_of(each)


class Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        guards = tuple(guards_of(self.dependant))
        limit = declared_limit(self.endpoint) or DEFAULT_LIMIT

        async def guarded(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            settings: ServerSettings = request.app.state.services.settings.server
            return await handle(_BoundedRequest(request.scope, request.receive, limit, settings))

        return guarded


class _BoundedRequest(Request):
    """A request whose body is counted while it is read, and parsed strictly."""

    def __init__(self, scope: Scope, receive: Receive, limit: BodyLimit, settings: ServerSettings) -> None:
        super().__init__(scope, receive)
        self._most = limit.total(settings)
        self._hint = f", or raise server.{limit.setting}" if limit.setting else ""

    async def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]  # an async generator, as it is there
        self._check(int(self.headers.get("content-length") or 0))
        taken = 0
        async for chunk in super().stream():
            taken += len(chunk)
            self._check(taken)
            yield chunk

    def _check(self, size: int) -> None:
        if size > self._most:
            raise TooLarge(f"the request has more than {self._most:,} bytes; send less{self._hint}")

    async def json(self) -> Any:
        return parse_json(await self.body())

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]  # it is awaited, never entered
        found = await super().form(**limits)
        try:
            for field, value in found.multi_items():
                _check_part(field, value)
        except InvalidInput:
            await found.close()  # nobody else has its files yet
            raise
        return found


def _check_part(field: str, value: UploadFile | str) -> None:
    check_text("a field's name", field)
    if isinstance(value, UploadFile):
        _check_file_name(field, value)
    else:
        check_text(shown(field), value)


def _check_file_name(field: str, file: UploadFile) -> None:
    """A name that is not UTF-8 has been read as Latin-1 by now; the part's own header tells."""
    disposition = next((value for name, value in file.headers.raw if name == b"content-disposition"), b"")
    try:
        disposition.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{shown(field)}: a file's name is not UTF-8; send it in UTF-8") from error
    check_text(f"{shown(field)}: a file's name", file.filename or "")

"""The one place where errors become HTTP statuses. Messages pass as they are: they are written for users. Knows nothing
of why something failed."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from server import errors
from server.api.text import shown
from server.words import printable

log = logging.getLogger("tailor.api")

MAX_PROBLEMS = 8  # of one request that are told
MAX_PROBLEM_CHARS = 300

# The first class that fits decides, so narrow ones stand first.
STATUS: tuple[tuple[type[errors.TailorError], int], ...] = (
    (errors.TooLarge, 413),
    (errors.InvalidInput, 400),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.AdapterNotFound, 404),
    (errors.AdapterInUse, 409),
    (errors.Conflict, 409),
    (errors.AdapterInvalid, 422),
    (errors.ContextFull, 400),
    (errors.PromptError, 422),
    (errors.KnowledgeError, 422),
    (errors.Overloaded, 503),
    (errors.RateLimited, 429),
    (errors.EngineBusy, 503),
    (errors.EngineDown, 503),
    (errors.OutputFormatError, 422),
    (errors.Draining, 503),
    (errors.StorageBusy, 503),
    (errors.StorageFull, 507),
)
FULL = (errno.ENOSPC, errno.EDQUOT)


def status_of(error: errors.TailorError) -> int:
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def as_ours(error: BaseException | None) -> errors.TailorError | None:
    """The error as one of ours, where it says something that the caller can act on: a full disk."""
    if isinstance(error, errors.TailorError):
        return error
    if isinstance(error, OSError) and error.errno in FULL:
        return errors.StorageFull("the server's disk is full: nothing was saved; free some space and try again")
    return None


def openai_shape(message: str, code: str, status: int) -> dict[str, object]:
    """The error body that OpenAI's clients read."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_body(path: str, status: int, code: str, message: str) -> dict[str, object]:
    """The body in the shape of the path's callers. Always fit to be sent: a name on disk may hold any bytes."""
    message = printable(message)
    if path.startswith("/v1/"):
        return openai_shape(message, code, status)
    return {"error": {"code": code, "message": message}}


def error_response(
    request: Request, status: int, code: str, message: str, retry_after_s: float | None = None
) -> JSONResponse:
    headers = {"retry-after": str(math.ceil(retry_after_s))} if retry_after_s is not None else None
    return JSONResponse(error_body(request.scope["path"], status, code, message), status, headers)


def install_handlers(app: FastAPI) -> None:
    @app.exception_handler(errors.TailorError)
    async def known(request: Request, error: errors.TailorError) -> JSONResponse:
        status = status_of(error)
        if status == 500:
            log.error("%s failed: %s", request.method, error.code, exc_info=error)
        return error_response(request, status, error.code, str(error), error.retry_after_s)

    @app.exception_handler(OSError)
    async def from_the_system(request: Request, error: OSError) -> JSONResponse:
        ours = as_ours(error)
        return await known(request, ours) if ours is not None else await unknown(request, error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(request, 400, "invalid_input", describe_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        if (ours := as_ours(error.__cause__)) is not None:  # the framework wraps what reading the body raised
            return await known(request, ours)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
        return error_response(request, error.status_code, code, str(error.detail))

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("%s failed", request.method, exc_info=error)
        return error_response(request, 500, "internal", "the server made a mistake; its log has the details")


def describe_validation(problems: Sequence[Mapping[str, Any]]) -> str:
    """'text: Field required; domain: …' from pydantic's list of errors; the first few, cut to a length."""
    lines = [_described(problem) for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"and {len(problems) - MAX_PROBLEMS:,} more")
    return "; ".join(lines)


def _described(problem: Mapping[str, Any]) -> str:
    where = ".".join(shown(str(part)) for part in problem["loc"][:MAX_PROBLEMS] if part != "body")
    text = str(problem["msg"])[:MAX_PROBLEM_CHARS]
    return f"{where}: {text}" if where else text

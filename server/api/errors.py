"""The one place where errors become HTTP statuses. Messages pass as they are: they are written for users."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from server import errors

log = logging.getLogger("tailor.api")

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
    (errors.EngineBusy, 503),
    (errors.EngineDown, 503),
    (errors.OutputFormatError, 422),
    (errors.StorageFull, 507),
)


def status_of(error: errors.TailorError) -> int:
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def openai_shape(message: str, code: str, status: int) -> dict[str, object]:
    """The error body that OpenAI's clients read."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_response(request: Request, status: int, code: str, message: str) -> JSONResponse:
    if request.url.path.startswith("/v1/"):
        return JSONResponse(openai_shape(message, code, status), status)
    return JSONResponse({"error": {"code": code, "message": message}}, status)


def install_handlers(app: FastAPI) -> None:
    @app.exception_handler(errors.TailorError)
    async def known(request: Request, error: errors.TailorError) -> JSONResponse:
        status = status_of(error)
        if status == 500:
            log.error("%s %s: %s", request.method, request.url.path, error)
        return error_response(request, status, error.code, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(request, 400, "invalid_input", describe_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, errors.TailorError):  # the framework wraps what reading the body raised
            return await known(request, error.__cause__)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
        return error_response(request, error.status_code, code, str(error.detail))

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(request, 500, "internal", "the server made a mistake; its log has the details")


def describe_validation(problems: object) -> str:
    """'text: Field required; domain: …' from pydantic's list of errors."""
    lines = []
    for problem in problems:  # type: ignore[attr-defined]
        where = ".".join(str(part) for part in problem["loc"] if part != "body")
        lines.append(f"{where}: {problem['msg']}" if where else str(problem["msg"]))
    return "; ".join(lines)

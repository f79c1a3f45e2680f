"""Whether the server is well: `/health` of the engine, `/health/live` and `/health/ready` for supervisors and proxies.

None of them needs a login, and none waits for the database.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from server.api.services import Services, ServicesDep
from server.errors import StorageError

router = APIRouter()


@router.get("/health")
async def health(services: ServicesDep) -> Response:
    state = services.engine.health()
    body = {"ok": state.ok, "running": state.running, "waiting": state.waiting, "reason": state.reason}
    return JSONResponse(body, 200 if state.ok else 503)


@router.get("/health/live")
async def live() -> dict[str, Any]:
    """The process answers."""
    return {"ok": True}


@router.get("/health/ready")
async def ready(services: ServicesDep) -> Response:
    """Whether requests should be sent here: 503 with the reasons where they should not."""
    reasons = [*_reasons(services), *await asyncio.to_thread(_storage_reasons, services)]
    return JSONResponse({"ok": not reasons, "reasons": reasons}, 503 if reasons else 200)


def _reasons(services: Services) -> list[str]:
    state = services.engine.health()
    return [
        *([] if state.ok else [f"the model is down: {state.reason}"]),
        *(["the server is about to stop"] if services.chat.admission.draining else []),
    ]


def _storage_reasons(services: Services) -> list[str]:
    reasons = [] if services.knowledge.base.is_open else ["the index is not open"]
    try:
        services.database.check_writable()
    except StorageError as error:
        reasons.append(str(error))
    return reasons

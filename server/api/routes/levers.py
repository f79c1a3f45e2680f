"""The levers as users change them: domains and adapters. Knowledge and memory have files of their own."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from server.accounts import Action
from server.api.audit import Record
from server.api.fields import FilePath, Name
from server.api.protocol import Changed
from server.api.services import AdapterLoader, CurrentUser, ServicesDep
from server.api.transport.routing import KIB, Route, takes_body
from server.errors import InvalidInput
from server.words import printable

router = APIRouter(route_class=Route)


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────


@router.get("/api/domains")
async def domains(services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    """A domain or a folder that the caller may not see is not named."""
    visible = await asyncio.to_thread(services.domains.for_user, user.user_id)
    found, problems = await asyncio.to_thread(lambda: (visible.domains(), visible.problems()))
    view = services.knowledge.for_user(user.user_id)
    folders = {name for domain in found for name in domain.knowledge}
    seen = await asyncio.to_thread(lambda: {name for name in folders if view.may_see(name) or view.is_new(name)})
    return {
        "domains": [
            {
                "name": domain.name,
                "title": domain.title,
                "description": domain.description,
                "adapter": domain.adapter,
                "knowledge": [name for name in domain.knowledge if name in seen],
                "memory": domain.memory,
                "reasoning": domain.reasoning,
                "output": domain.output is not None,
                "examples": len(domain.examples),
            }
            for domain in found
        ],
        "problems": [{"file": printable(p.file), "line": p.line, "reason": printable(p.reason)} for p in problems],
        "default": services.settings.prompts.default_domain,
    }


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────


class LoadAdapterRequest(BaseModel):
    """vLLM's request body."""

    lora_name: Name
    lora_path: FilePath | None = None


class UnloadAdapterRequest(BaseModel):
    lora_name: Name


@router.get("/api/adapters")
async def adapters(services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    found = await asyncio.to_thread(services.engine.adapters)
    return {"adapters": [asdict(adapter) for adapter in found], "max_loras": services.settings.engine.max_loras}


@router.post("/v1/load_lora_adapter")
@takes_body(16 * KIB)
async def load_adapter(
    body: LoadAdapterRequest, services: ServicesDep, user: AdapterLoader, record: Record
) -> dict[str, Any]:
    name = body.lora_name
    if body.lora_path is not None:
        name = _versioned(name, Path(body.lora_path), services.settings.paths.adapters)
    adapter = await services.engine.load_adapter(name)
    await record(Action.ADAPTER_LOADED, name)
    services.hub.announce(Changed("adapters"))
    return {"message": f"Success: LoRA adapter '{body.lora_name}' added successfully.", "adapter": asdict(adapter)}


@router.post("/v1/unload_lora_adapter")
@takes_body(4 * KIB)
async def unload_adapter(
    body: UnloadAdapterRequest, services: ServicesDep, user: AdapterLoader, record: Record
) -> dict[str, Any]:
    await services.engine.unload_adapter(body.lora_name)
    await record(Action.ADAPTER_UNLOADED, body.lora_name)
    services.hub.announce(Changed("adapters"))
    return {"message": f"Success: LoRA adapter '{body.lora_name}' removed successfully."}


def _versioned(name: str, path: Path, root: Path) -> str:
    """`name@version` for a path to a version folder; only folders of that adapter are served."""
    resolved = (root / path).resolve()
    bare = name.partition("@")[0]
    if resolved.parent != (root / bare).resolve():
        raise InvalidInput(f"lora_path must be a version folder of '{bare}', such as {bare}/1; it is '{path}'")
    return f"{bare}@{resolved.name}"

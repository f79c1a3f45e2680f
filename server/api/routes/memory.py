"""The caller's memories: read, change, forget, export, pause; and the dead letters of the model's pass.

The user is the session's. A deletion answers with a receipt: what went, and how many stored answers and prompts
named it. docs/api.md is the manual.
"""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import asdict
from typing import Annotated, Any, Literal

from annotated_types import MaxLen
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from server.api.fields import Id, Name, Query, RequestModel, RowId
from server.api.protocol import Changed
from server.api.services import CurrentUser, Services, ServicesDep
from server.api.transport.routing import KIB, Route, takes_body
from server.chat import DeletionReceipt
from server.errors import Conflict, InvalidInput
from server.types import Memory, MemoryKind, UserId

router = APIRouter(prefix="/api/memories", route_class=Route)

MEMORY_BODY = 64 * KIB
MemoryText = Annotated[str, MaxLen(MEMORY_BODY)]  # the store tells its own bound, memory.max_chars


class CreateMemoryRequest(RequestModel):
    """`confirmed`: it was held back as a secret, and the user wants it kept all the same."""

    text: MemoryText
    kind: MemoryKind = MemoryKind.FACT
    confirmed: bool = False


class UpdateMemoryRequest(RequestModel):
    """`expected` is the `updated_at` that the editor saw."""

    text: MemoryText
    expected: float | None = None


class DomainMemoryRequest(RequestModel):
    used: bool


class PauseRequest(RequestModel):
    paused: bool


@router.get("")
async def memories(
    services: ServicesDep, user: CurrentUser, kind: MemoryKind | None = None, query: Query = "", past: bool = False
) -> dict[str, Any]:
    """`total` counts all that hold now, whatever was asked for."""

    def read() -> dict[str, Any]:
        memory = services.memory.of(user.user_id)
        found = memory.list(kind=kind, query=query, past=past)
        filtered = kind is not None or query or past
        total = len(memory.list()) if filtered else len(found)
        domains_off = sorted(memory.domains_off)
        return {"memories": _bodies(found), "paused": memory.paused, "total": total, "domains_off": domains_off}

    return await asyncio.to_thread(read)


@router.post("", status_code=201)
@takes_body(MEMORY_BODY)
async def add(body: CreateMemoryRequest, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    memory = services.memory.of(user.user_id)
    made = await asyncio.to_thread(memory.add, body.text, kind=body.kind, confirmed=body.confirmed)
    _announce_change(services, user.user_id)
    return asdict(made)


@router.delete("")
async def erase(services: ServicesDep, user: CurrentUser, confirm: bool = False) -> dict[str, Any]:
    """All of them, with the settings and what waits to be read."""
    if not confirm:
        raise InvalidInput("this deletes all your memories for good; send confirm=true to do it")
    receipt = await services.chat.memory_deletion.erase(user.user_id)
    _announce_change(services, user.user_id)
    return {"deleted": len(receipt.memories), **_left(receipt)}


@router.put("/paused")
@takes_body(4 * KIB)
async def pause(body: PauseRequest, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    await asyncio.to_thread(services.memory.of(user.user_id).pause, body.paused)
    _announce_change(services, user.user_id)
    return {"paused": body.paused}


@router.put("/domains/{name}")
@takes_body(4 * KIB)
async def use_in(name: Name, body: DomainMemoryRequest, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    """Whether the caller's chats of that domain save and recall."""
    domain = await asyncio.to_thread(lambda: services.domains.for_user(user.user_id).get(name))
    if not domain.memory:
        raise Conflict(f"domain '{name}' uses no memory: its file says so (memory: false)")
    memory = services.memory.of(user.user_id)
    await asyncio.to_thread(memory.set_enabled_in, domain.name, body.used)
    _announce_change(services, user.user_id)
    return {"domains_off": sorted(await asyncio.to_thread(lambda: memory.domains_off))}


@router.get("/export")
async def export(services: ServicesDep, user: CurrentUser) -> JSONResponse:
    body = await asyncio.to_thread(services.memory.of(user.user_id).export)
    name = f"memories-{datetime.datetime.now(datetime.UTC).date().isoformat()}.json"
    return JSONResponse(body, headers={"content-disposition": f'attachment; filename="{name}"'})


# ── dead letters: what the model's pass could not read ───────────────────────────────────────────


@router.get("/dead")
async def dead(services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    return {"dead": [asdict(letter) for letter in await asyncio.to_thread(services.writer.dead_letters, user.user_id)]}


@router.post("/dead/{letter_id}/retry", status_code=202)
async def retry(letter_id: RowId, services: ServicesDep, user: CurrentUser) -> None:
    """It is read again when the engine is idle."""
    await asyncio.to_thread(services.writer.retry, user.user_id, letter_id)


@router.delete("/dead/{letter_id}", status_code=204)
async def dismiss(letter_id: RowId, services: ServicesDep, user: CurrentUser) -> None:
    await asyncio.to_thread(services.writer.dismiss, user.user_id, letter_id)


# ── one memory ───────────────────────────────────────────────────────────────────────────────────


@router.get("/{memory_id}/history")
async def history(memory_id: RowId, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    """All answers to the same question over time, the oldest first."""
    return {"memories": _bodies(await asyncio.to_thread(services.memory.of(user.user_id).history, memory_id))}


@router.patch("/{memory_id}")
@takes_body(MEMORY_BODY)
async def edit(memory_id: RowId, body: UpdateMemoryRequest, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    memory = services.memory.of(user.user_id)
    changed = await asyncio.to_thread(memory.edit, memory_id, body.text, expected=body.expected)
    _announce_change(services, user.user_id)
    return asdict(changed)


@router.delete("/{memory_id}")
async def delete(
    memory_id: RowId, services: ServicesDep, user: CurrentUser, words: Literal["forget", "keep"] = "forget"
) -> dict[str, Any]:
    """With what the caller said it by; `words=keep` leaves that, as where a memory that was just saved is undone."""
    receipt = await services.chat.memory_deletion.delete(user.user_id, memory_id, keep_words=words == "keep")
    _announce_change(services, user.user_id)
    (gone,) = receipt.memories
    return {"deleted": asdict(gone), **_left(receipt)}


# ── in chats ─────────────────────────────────────────────────────────────────────────────────────

chats = APIRouter(prefix="/api/conversations", route_class=Route)


@chats.get("/search")
async def search(services: ServicesDep, user: CurrentUser, query: Query = "") -> dict[str, Any]:
    """The caller's own kept chats; days are understood, "last Tuesday" too."""
    if not query.strip():
        raise InvalidInput("query: say what to look for")
    return {"found": [asdict(each) for each in await services.chat.search(user.user_id, query)]}


@chats.get("/{conversation_id}/memories")
async def of_conversation(conversation_id: Id, services: ServicesDep, user: CurrentUser) -> dict[str, Any]:
    """What came from that chat."""
    await asyncio.to_thread(services.chat.store.get, user.user_id, conversation_id)
    memory = services.memory.of(user.user_id)
    return {"memories": _bodies(await asyncio.to_thread(memory.from_conversation, conversation_id))}


def receipt_body(receipt: DeletionReceipt) -> dict[str, Any]:
    return {"memories": _bodies(receipt.memories), **_left(receipt)}


def _left(receipt: DeletionReceipt) -> dict[str, Any]:
    """What was redacted, and what is left."""
    mentions = [asdict(mention) for mention in receipt.mentions]
    return {"cleaned": asdict(receipt.cleaned), "mentions": mentions, "pending": receipt.pending}


def _bodies(found: tuple[Memory, ...]) -> list[dict[str, Any]]:
    return [asdict(memory) for memory in found]


def _announce_change(services: Services, user: UserId) -> None:
    """The user's open pages fetch the list again."""
    services.hub.announce(Changed("memories"), user)

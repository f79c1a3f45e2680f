"""The caller's memories: read, change, forget, export, pause; and what the model's pass could not read.

The user is the session's. A deletion answers with a receipt: what went, and how many stored answers and prompts
named it. docs/api.md is the manual.
"""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from server.api.protocol import Changed
from server.api.services import CurrentUser, Held, Services
from server.chat import Receipt
from server.errors import Conflict, InvalidInput
from server.types import Memory, MemoryKind, UserId

router = APIRouter(prefix="/api/memories")


class NewMemory(BaseModel):
    """`confirmed`: it was held back as a secret, and the user wants it kept all the same."""

    model_config = ConfigDict(extra="forbid")
    text: str
    kind: MemoryKind = MemoryKind.FACT
    confirmed: bool = False


class MemoryText(BaseModel):
    """`expected` is the `updated_at` that the editor saw."""

    model_config = ConfigDict(extra="forbid")
    text: str
    expected: float | None = None


class Use(BaseModel):
    model_config = ConfigDict(extra="forbid")
    used: bool


class Pause(BaseModel):
    model_config = ConfigDict(extra="forbid")
    paused: bool


@router.get("")
async def memories(
    held: Held, user: CurrentUser, kind: MemoryKind | None = None, query: str = "", past: bool = False
) -> dict[str, Any]:
    """`total` counts all that hold now, whatever was asked for."""

    def read() -> dict[str, Any]:
        memory = held.memory.of(user.user_id)
        found = memory.list(kind=kind, query=query, past=past)
        narrowed = kind is not None or query or past
        total = len(memory.list()) if narrowed else len(found)
        off = sorted(memory.domains_off)
        return {"memories": _bodies(found), "paused": memory.paused, "total": total, "domains_off": off}

    return await asyncio.to_thread(read)


@router.post("", status_code=201)
async def add(body: NewMemory, held: Held, user: CurrentUser) -> dict[str, Any]:
    memory = held.memory.of(user.user_id)
    made = await asyncio.to_thread(memory.add, body.text, kind=body.kind, confirmed=body.confirmed)
    _changed(held, user.user_id)
    return asdict(made)


@router.delete("")
async def erase(held: Held, user: CurrentUser, confirm: bool = False) -> dict[str, Any]:
    """All of them, with the settings and what waits to be read."""
    if not confirm:
        raise InvalidInput("this deletes all your memories for good; send confirm=true to do it")
    receipt = await held.chat.forgetting.erase(user.user_id)
    _changed(held, user.user_id)
    return {"deleted": len(receipt.memories), "cleaned": asdict(receipt.cleaned)}


@router.put("/paused")
async def pause(body: Pause, held: Held, user: CurrentUser) -> dict[str, Any]:
    await asyncio.to_thread(held.memory.of(user.user_id).pause, body.paused)
    _changed(held, user.user_id)
    return {"paused": body.paused}


@router.put("/domains/{name}")
async def use_in(name: str, body: Use, held: Held, user: CurrentUser) -> dict[str, Any]:
    """Whether the caller's chats of that domain save and recall."""
    domain = held.library.get(name)
    if not domain.memory:
        raise Conflict(f"domain '{name}' uses no memory: its file says so (memory: false)")
    memory = held.memory.of(user.user_id)
    await asyncio.to_thread(memory.set_enabled_in, domain.name, body.used)
    _changed(held, user.user_id)
    return {"domains_off": sorted(await asyncio.to_thread(lambda: memory.domains_off))}


@router.get("/export")
async def export(held: Held, user: CurrentUser) -> JSONResponse:
    body = await asyncio.to_thread(held.memory.of(user.user_id).export)
    name = f"memories-{datetime.datetime.now(datetime.UTC).date().isoformat()}.json"
    return JSONResponse(body, headers={"content-disposition": f'attachment; filename="{name}"'})


# ── what the pass of the model could not read ────────────────────────────────────────────────────


@router.get("/dead")
async def dead(held: Held, user: CurrentUser) -> dict[str, Any]:
    return {"dead": [asdict(letter) for letter in await asyncio.to_thread(held.writer.dead_letters, user.user_id)]}


@router.post("/dead/{letter_id}/retry", status_code=202)
async def retry(letter_id: int, held: Held, user: CurrentUser) -> None:
    """It is read again when the engine is idle."""
    await asyncio.to_thread(held.writer.retry, user.user_id, letter_id)


@router.delete("/dead/{letter_id}", status_code=204)
async def dismiss(letter_id: int, held: Held, user: CurrentUser) -> None:
    await asyncio.to_thread(held.writer.dismiss, user.user_id, letter_id)


# ── one memory ───────────────────────────────────────────────────────────────────────────────────


@router.get("/{memory_id}/history")
async def history(memory_id: int, held: Held, user: CurrentUser) -> dict[str, Any]:
    """All answers to the same question over time, the oldest first."""
    return {"memories": _bodies(await asyncio.to_thread(held.memory.of(user.user_id).history, memory_id))}


@router.patch("/{memory_id}")
async def edit(memory_id: int, body: MemoryText, held: Held, user: CurrentUser) -> dict[str, Any]:
    memory = held.memory.of(user.user_id)
    changed = await asyncio.to_thread(memory.edit, memory_id, body.text, expected=body.expected)
    _changed(held, user.user_id)
    return asdict(changed)


@router.delete("/{memory_id}")
async def delete(memory_id: int, held: Held, user: CurrentUser) -> dict[str, Any]:
    receipt = await held.chat.forgetting.delete(user.user_id, memory_id)
    _changed(held, user.user_id)
    (gone,) = receipt.memories
    return {"deleted": asdict(gone), "cleaned": asdict(receipt.cleaned)}


# ── in chats ─────────────────────────────────────────────────────────────────────────────────────

chats = APIRouter(prefix="/api/conversations")
Words = Annotated[str, Query(max_length=1000)]


@chats.get("/search")
async def search(held: Held, user: CurrentUser, query: Words = "") -> dict[str, Any]:
    """The caller's own kept chats; days are understood, "last Tuesday" too."""
    if not query.strip():
        raise InvalidInput("query: say what to look for")
    return {"found": [asdict(each) for each in await held.chat.search(user.user_id, query)]}


@chats.get("/{conversation_id}/memories")
async def of_conversation(conversation_id: str, held: Held, user: CurrentUser) -> dict[str, Any]:
    """What came from that chat."""
    await asyncio.to_thread(held.chat.store.get, user.user_id, conversation_id)
    memory = held.memory.of(user.user_id)
    return {"memories": _bodies(await asyncio.to_thread(memory.from_conversation, conversation_id))}


def receipt_body(receipt: Receipt) -> dict[str, Any]:
    return {"memories": _bodies(receipt.memories), "cleaned": asdict(receipt.cleaned)}


def _bodies(found: tuple[Memory, ...]) -> list[dict[str, Any]]:
    return [asdict(memory) for memory in found]


def _changed(held: Services, user: UserId) -> None:
    """The user's open pages fetch the list again."""
    held.hub.announce(Changed("memories"), user)

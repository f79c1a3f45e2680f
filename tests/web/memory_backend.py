"""The scripted server's memory: docs/api.md, "Memory", in a list."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from tests.web.backend import Backend


def memory(number: int, text: str, kind: str = "fact", quote: str = "", **fields: Any) -> dict[str, Any]:
    now = time.time()
    return {"id": number, "kind": kind, "text": text, "quote": quote, "conversation_id": None, "message_id": None,
            "created_at": now, "updated_at": now, "subject": "", "valid_from": None, "valid_to": None,
            "confidence": 1.0, "last_used": None, "replaced_by": None, "why": ""} | fields  # fmt: skip


def error_response(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status)


def memory_routes(app: FastAPI, backend: Backend) -> None:
    """State: `backend.memories`, `backend.forgotten_elsewhere`, `backend.paused`, `backend.domains_off`,
    `backend.dead_letters`."""

    def is_current(entry: dict[str, Any]) -> bool:
        return entry["replaced_by"] is None and (entry["valid_to"] is None or entry["valid_to"] > time.time())

    def find(key: int) -> dict[str, Any] | None:
        return next((entry for entry in backend.memories if entry["id"] == key), None)

    @app.get("/api/memories")
    async def memories(kind: str = "", query: str = "", past: bool = False) -> dict[str, Any]:
        backend.list_queries.append({"kind": kind, "query": query, "past": past})
        found = [
            entry for entry in backend.memories
            if (past or is_current(entry)) and kind in ("", entry["kind"]) and query.lower() in entry["text"].lower()
        ]  # fmt: skip
        return {
            "memories": found,
            "paused": backend.paused,
            "total": sum(map(is_current, backend.memories)),
            "domains_off": backend.domains_off,
        }

    @app.post("/api/memories", status_code=201)
    async def add(body: dict[str, Any]) -> dict[str, Any]:
        backend.request_bodies.append(body)
        backend.memories.insert(0, memory(next(backend.ids) + 1000, body["text"], body.get("kind", "fact")))
        return backend.memories[0]

    @app.delete("/api/memories")
    async def erase(confirm: bool = False) -> Response:
        if not confirm:
            return error_response(400, "invalid_input", "erasing needs confirm=true")
        count, backend.memories = len(backend.memories), []
        return JSONResponse({"deleted": count})

    @app.put("/api/memories/paused")
    async def pause(body: dict[str, bool]) -> dict[str, Any]:
        backend.paused = body["paused"]
        return {"paused": backend.paused}

    @app.put("/api/memories/domains/{name}")
    async def switch_domain(name: str, body: dict[str, bool]) -> Response:
        if name == "broken":
            return error_response(507, "storage_full", "the disk is full")
        rest = [other for other in backend.domains_off if other != name]
        backend.domains_off = rest if body["used"] else sorted([*rest, name])
        return JSONResponse({"domains_off": backend.domains_off})

    @app.get("/api/memories/export")
    async def export() -> Response:
        head = {"content-disposition": 'attachment; filename="memories.json"'}
        return JSONResponse({"memories": backend.memories}, headers=head)

    @app.get("/api/memories/dead")
    async def dead() -> dict[str, Any]:
        return {"dead": backend.dead_letters}

    @app.post("/api/memories/dead/{key}/retry", status_code=204)
    @app.delete("/api/memories/dead/{key}", status_code=204)
    async def remove_dead_letter(key: int) -> None:
        backend.dead_letters = [letter for letter in backend.dead_letters if letter["id"] != key]

    @app.get("/api/memories/{key}/history")
    async def history(key: int) -> Response:
        found = find(key)
        if found is None:
            return error_response(404, "not_found", f"there is no memory {key} of yours")
        ids = {key, found["replaced_by"]}
        chain = [m for m in backend.memories if m["id"] in ids or m["replaced_by"] == key]
        return JSONResponse({"memories": sorted(chain, key=lambda m: m["created_at"])})

    @app.patch("/api/memories/{key}")
    async def edit(key: int, body: dict[str, Any]) -> Response:
        found = find(key)
        if found is None:
            return error_response(404, "not_found", f"there is no memory {key} of yours")
        if body.get("expected", found["updated_at"]) != found["updated_at"]:
            return error_response(409, "conflict", f"memory {key} has been changed since it was opened")
        found |= {"text": body["text"], "updated_at": found["updated_at"] + 1}
        return JSONResponse(found)

    @app.delete("/api/memories/{key}")
    async def forget(key: int) -> Response:
        found = find(key)
        backend.memories = [m for m in backend.memories if m["id"] != key]
        if found is None or key in backend.forgotten_elsewhere:
            return error_response(404, "not_found", f"there is no memory {key} of yours")
        for answer in (m for messages in backend.messages.values() for m in messages):
            for name in ("memories_saved", "memories_used"):  # forgotten there, too
                answer[name] = [m for m in answer.get(name, []) if m["id"] != key]
        return JSONResponse({"deleted": found})

    @app.get("/api/conversations/search")
    async def search(query: str) -> dict[str, Any]:
        words = query.lower().split()
        found = [
            {"conversation_id": key, "message_id": m["id"], "title": backend.conversations[key]["title"],
             "role": m["role"], "text": m["text"], "at": m["created_at"], "score": 1.0}
            for key, messages in backend.messages.items() if key in backend.conversations
            for m in messages if all(word in m["text"].lower() for word in words)
        ]  # fmt: skip
        return {"found": found}

    @app.get("/api/conversations/{key}/memories")
    async def conversation_memories(key: str) -> dict[str, Any]:
        return {"memories": [m for m in backend.memories if m["conversation_id"] == key]}

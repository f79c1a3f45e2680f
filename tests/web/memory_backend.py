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


def refused(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status)


def memory_routes(app: FastAPI, backend: Backend) -> None:
    """`backend.memories` holds all of them, `backend.paused` whether they are used, `backend.dead` what failed."""

    def holds(held: dict[str, Any]) -> bool:
        return held["replaced_by"] is None and (held["valid_to"] is None or held["valid_to"] > time.time())

    def find(key: int) -> dict[str, Any] | None:
        return next((held for held in backend.memories if held["id"] == key), None)

    @app.get("/api/memories")
    async def memories(kind: str = "", query: str = "", past: bool = False) -> dict[str, Any]:
        backend.asked.append({"kind": kind, "query": query, "past": past})
        found = [
            held for held in backend.memories
            if (past or holds(held)) and kind in ("", held["kind"]) and query.lower() in held["text"].lower()
        ]  # fmt: skip
        return {
            "memories": found,
            "paused": backend.paused,
            "total": sum(map(holds, backend.memories)),
            "domains_off": backend.domains_off,
        }

    @app.post("/api/memories", status_code=201)
    async def add(body: dict[str, Any]) -> dict[str, Any]:
        backend.bodies.append(body)
        backend.memories.insert(0, memory(next(backend.ids) + 1000, body["text"], body.get("kind", "fact")))
        return backend.memories[0]

    @app.delete("/api/memories")
    async def erase(confirm: bool = False) -> Response:
        if not confirm:
            return refused(400, "invalid_input", "erasing needs confirm=true")
        count, backend.memories = len(backend.memories), []
        return JSONResponse({"deleted": count})

    @app.put("/api/memories/paused")
    async def pause(body: dict[str, bool]) -> dict[str, Any]:
        backend.paused = body["paused"]
        return {"paused": backend.paused}

    @app.put("/api/memories/domains/{name}")
    async def use_in(name: str, body: dict[str, bool]) -> Response:
        if name == "broken":
            return refused(507, "storage_full", "the disk is full")
        rest = [other for other in backend.domains_off if other != name]
        backend.domains_off = rest if body["used"] else sorted([*rest, name])
        return JSONResponse({"domains_off": backend.domains_off})

    @app.get("/api/memories/export")
    async def export() -> Response:
        head = {"content-disposition": 'attachment; filename="memories.json"'}
        return JSONResponse({"memories": backend.memories}, headers=head)

    @app.get("/api/memories/dead")
    async def dead() -> dict[str, Any]:
        return {"dead": backend.dead}

    @app.post("/api/memories/dead/{key}/retry", status_code=204)
    @app.delete("/api/memories/dead/{key}", status_code=204)
    async def settle(key: int) -> None:
        backend.dead = [letter for letter in backend.dead if letter["id"] != key]

    @app.get("/api/memories/{key}/history")
    async def history(key: int) -> Response:
        held = find(key)
        if held is None:
            return refused(404, "not_found", f"there is no memory {key} of yours")
        ids = {key, held["replaced_by"]}
        chain = [m for m in backend.memories if m["id"] in ids or m["replaced_by"] == key]
        return JSONResponse({"memories": sorted(chain, key=lambda m: m["created_at"])})

    @app.patch("/api/memories/{key}")
    async def edit(key: int, body: dict[str, Any]) -> Response:
        held = find(key)
        if held is None:
            return refused(404, "not_found", f"there is no memory {key} of yours")
        if body.get("expected", held["updated_at"]) != held["updated_at"]:
            return refused(409, "conflict", f"memory {key} has been changed since it was opened")
        held |= {"text": body["text"], "updated_at": held["updated_at"] + 1}
        return JSONResponse(held)

    @app.delete("/api/memories/{key}")
    async def forget(key: int) -> Response:
        held = find(key)
        if held is None:
            return refused(404, "not_found", f"there is no memory {key} of yours")
        backend.memories = [m for m in backend.memories if m["id"] != key]
        for answer in (m for messages in backend.messages.values() for m in messages):
            for name in ("memories_saved", "memories_used"):  # forgotten there, too
                answer[name] = [m for m in answer.get(name, []) if m["id"] != key]
        return JSONResponse({"deleted": held})

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
    async def of_conversation(key: str) -> dict[str, Any]:
        return {"memories": [m for m in backend.memories if m["conversation_id"] == key]}

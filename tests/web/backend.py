"""A scripted stand-in for the server, for tests of the client alone: docs/protocol.md and docs/api.md in memory.

A test scripts the next answer (`backend.script`), pauses its tokens (`backend.pause_before`), drops
connections (`backend.drop_connections`), and reads what the client sent (`backend.frames`, `backend.calls`).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fastapi import FastAPI, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.transport.security import content_security_policy
from server.web import STATIC
from tests.web.memory_backend import memory_routes

TYPES = {".js": b"text/javascript", ".mjs": b"text/javascript", ".css": b"text/css", ".svg": b"image/svg+xml"}
PASSAGE = {
    "id": "p1",
    "folder": "support",
    "file": "refunds.md",
    "heading": ["Returns", "Opened goods"],
    "text": "Goods can be returned within 45 days of delivery.\nOpened goods are refunded as store credit.",
    "line_start": 3,
    "line_end": 9,
    "page": None,
    "score": 0.83,
}
DOMAINS = [
    {"name": "general", "title": "General", "description": "Everyday questions and writing.", "knowledge": []},
    {
        "name": "support-faq",
        "title": "Support FAQ",
        "description": "Answers customers from the shop's own policies, with sources.",
        "knowledge": ["support"],
        "adapter": "grounded",
        "memory": True,
    },
    {
        "name": "contract-review",
        "title": "Contract review",
        "description": "Finds risky clauses in contracts and says why.",
        "knowledge": ["contracts"],
        "reasoning": True,
        "examples": 2,
    },
    {"name": "log-parsing", "title": "Log parsing", "description": "Turns log lines into JSON.", "output": True},
]
ROUTE = {
    "domain": "support-faq",
    "how": "similar",
    "score": 0.71,
    "threshold": 0.45,
    "candidates": [
        {"domain": "support-faq", "score": 0.71, "example": "Can I return this?"},
        {"domain": "contract-review", "score": 0.32, "example": "Is this indemnity clause risky?"},
    ],
}
USAGE = {
    "prompt_tokens": 238,
    "completion_tokens": 42,
    "cached_tokens": 128,
    "queue_s": 0.02,
    "ttft_s": 0.31,
    "total_s": 3.1,
}
SECTIONS = [
    {"name": "system", "tokens": 44, "text": "You answer customers of a lamp shop."},
    {"name": "memory", "tokens": 12, "text": "About the user:\n- The user's name is Mina"},
    {"name": "evidence", "tokens": 150, "text": "[1] refunds.md > Returns, lines 3-9\nGoods can be returned …"},
    {"name": "question", "tokens": 20, "text": "Question: How long can I return a lamp?"},
]
ADAPTERS = [
    {
        "name": "grounded",
        "version": "1",
        "state": "loaded",
        "rank": 16,
        "modules": 120,
        "bytes": 9_700_000,
        "in_use": 1,
        "description": "Answers from numbered sources.",
    },
    {"name": "sentiment", "version": "2", "state": "available", "rank": 8, "modules": 60},
    {"name": "old-base", "version": "1", "state": "invalid", "reason": "it was trained for another base model"},
]


def candidate(rank: int, **fields: Any) -> dict[str, Any]:
    """A line of a trace."""
    passage = {name: PASSAGE[name] for name in ("folder", "file", "heading", "line_start", "line_end", "page")}
    return passage | {
        "id": f"p{rank}", "place": "lines 3-9", "text": "Goods can be returned within 45 days of delivery.",
        "dense": 0.62, "dense_rank": 2, "lexical": 0.71, "lexical_rank": 1, "fused": 0.674, "fused_rank": rank,
        "coverage": 0.8, "likelihood": 0.83, "gate": "words", "fate": "used",
    } | fields  # fmt: skip


TRACE = {
    "generation": 12, "folders": ["support"], "queries": ["How long can I return a lamp?"], "dense_weight": 0.4,
    "min_likelihood": 0.4, "rows": 1234,
    "candidates": [
        candidate(1),
        candidate(2, file="warranty.md", heading=["Warranty"], gate="meaning", lexical_rank=None, lexical=0.0),
        candidate(3, file="old/refunds.md", fate="near copy", dense=None, dense_rank=None),
        candidate(4, file="shipping.md", fate="no room"),
        candidate(5, file="hours.md", fate="far below the best", gate="", fused=0.1, dense=0.1, lexical=0.1,
                  likelihood=0.12),
        candidate(6, file="a very long name of a file that nobody would type by hand.md", fate="beyond the limit",
                  gate="earlier"),
    ],
}  # fmt: skip


def generation(number: int, **fields: Any) -> dict[str, Any]:
    """A line of the history."""
    return {"number": number, "at": 1_770_000_000 + 600 * number, "cause": "files", "files": 10 + number,
            "chunks": 40 + number, "added": 1, "changed": 1, "removed": 0,
            "told": [{"what": "added", "file": f"support/new-{number}.md"},
                     {"what": "changed", "file": "support/refunds.md"}]} | fields  # fmt: skip


# event type → (field of the event, field of the stored answer)
STORED_FIELDS = {
    "notice": ("text", "notice"),
    "memories": ("memories", "memories_used"),
    "chats": ("turns", "chats_used"),
    "memory_saved": ("memories", "memories_saved"),
}


@dataclass
class Script:
    """How an answer goes: events before its tokens, the tokens, and events after them."""

    tokens: list[str] = field(default_factory=lambda: ["Hello", " there."])
    before: list[dict[str, Any]] = field(default_factory=list)
    after: list[dict[str, Any]] = field(default_factory=list)
    fail: tuple[str, str] | None = None
    pause: float = 0.0
    finish: str = "stop"
    usage: dict[str, Any] = field(default_factory=lambda: dict(USAGE))


class Backend:
    def __init__(self) -> None:
        self.ids = itertools.count(1)
        self.conversations: dict[str, dict[str, Any]] = {}
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.memories: list[dict[str, Any]] = []
        self.forgotten_elsewhere: set[int] = set()  # between the page's last list and its next request
        self.paused = False
        self.domains_off: list[str] = []  # where the user wants no memory
        self.dead_letters: list[dict[str, Any]] = []  # messages whose memory extraction failed
        self.list_queries: list[dict[str, Any]] = []  # query parameters of each list of memories
        self.files: dict[str, list[dict[str, Any]]] = {"support": [self.file("refunds.md")], "contracts": []}
        self.index_status: dict[str, Any] = {
            "generation": 3, "busy": False, "progress": None, "held": None, "pending": 0,
            "building": False, "problem": "", "missing": [], "limited": [],
        }  # fmt: skip
        self.generations = [generation(3), generation(2), generation(1)]
        self.trace: dict[str, Any] = TRACE
        self.passage_contexts: dict[str, dict[str, Any]] = {}  # passage id → the passage with its neighbours
        self.request_bodies: list[dict[str, Any]] = []  # of POST requests about knowledge and memories
        self.problems: list[dict[str, Any]] = []
        self.adapters = [
            {"reason": "", "bytes": 0, "in_use": 0, "last_used": None, "description": "", "rank": 0, "modules": 0} | a
            for a in ADAPTERS
        ]
        self.password = ""  # set: login is needed
        self.logged_in = False
        self.admin = True
        self.scripts: list[Script] = []
        self.frames: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.refuse_next: tuple[str, str] | None = None  # the next frame is refused with this error
        self.failing_paths: dict[str, int] = {}  # path → status of its responses, until removed
        self.model_failure = ""  # why the model has failed
        self.refuse_connections = False  # new connections are refused
        self.pause_before: str | None = None  # tokens with this text are not sent until it is None
        self.connections: set[_Connection] = set()
        self.stopped: set[str] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.app = _StaticFiles(_application(self))

    # ── called by tests ───────────────────────────────────────────────────────────────────────────

    def user(self) -> dict[str, Any]:
        permissions = ["knowledge:write", "adapters:load"] if self.admin else []
        return {"id": "local", "name": "mina", "admin": self.admin, "permissions": permissions}

    def script(self, *tokens: str, **more: Any) -> None:
        self.scripts.append(Script(list(tokens), **more))

    def drop_connections(self, *, stay_down: bool = False) -> None:
        """Cuts every connection, as a network change would."""
        self.refuse_connections = stay_down
        for connection in list(self.connections):
            self._run_on_loop(connection.drop())

    def announce(self, what: str) -> None:
        for connection in list(self.connections):
            self._run_on_loop(connection.send({"type": "changed", "what": what}))

    def store_chat(
        self, conversation_id: str, *messages: dict[str, Any], title: str = "A chat", age: float = 0
    ) -> None:
        now = time.time() - age
        self.conversations[conversation_id] = {
            "id": conversation_id,
            "title": title,
            "domain": None,
            "created_at": now,
            "updated_at": now,
            "revision": 0,
        }
        self.messages[conversation_id] = [
            {"created_at": now, "status": "complete", "parent_id": None} | message for message in messages
        ]

    def _run_on_loop(self, coroutine: Any) -> None:
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    @staticmethod
    def file(name: str, state: str = "indexed", reason: str = "") -> dict[str, Any]:
        return {
            "file": name,
            "state": state,
            "chunks": 4 if state == "indexed" else 0,
            "bytes": 2310,
            "reason": reason,
            "changed_at": time.time(),
        }

    # ── turns ────────────────────────────────────────────────────────────────────────────────────

    def begin(self, frame: dict[str, Any]) -> str:
        """Stores the question and starts its answer. Gives the answer's id."""
        if frame["type"] == "regenerate":
            question = self._question_of(frame["message_id"])
            conversation_id = question["conversation_id"]
        else:
            conversation_id = frame.get("conversation_id") or f"c{next(self.ids)}"
            if conversation_id not in self.conversations:
                self.store_chat(conversation_id, title=frame["text"][:80])
                self.conversations[conversation_id] |= {
                    "domain": frame.get("domain"), "temporary": frame.get("temporary", False)
                }  # fmt: skip
            question = {
                "id": f"m{next(self.ids)}",
                "parent_id": frame.get("parent_id"),
                "role": "user",
                "text": frame["text"],
                "created_at": time.time(),
                "status": "complete",
                "conversation_id": conversation_id,
            }
            self.messages[conversation_id].append(question)
        answer = {
            "id": f"m{next(self.ids)}",
            "parent_id": question["id"],
            "role": "assistant",
            "text": "",
            "created_at": time.time(),
            "status": "streaming",
            "conversation_id": conversation_id,
        }
        self.messages[conversation_id].append(answer)
        self.conversations[conversation_id]["updated_at"] = time.time()
        self.conversations[conversation_id]["revision"] += 1
        self.events[answer["id"]] = []
        self.publish(
            answer["id"],
            type="started",
            conversation_id=conversation_id,
            user_message_id=question["id"],
            parent_id=question["parent_id"],
            title=self.conversations[conversation_id]["title"],
            request_id=frame["request_id"],
        )
        self._announce_change("conversations")
        script = self.scripts.pop(0) if self.scripts else Script()
        task = asyncio.get_running_loop().create_task(self._run(answer, script))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return answer["id"]

    def _announce_change(self, what: str) -> None:
        for connection in list(self.connections):
            task = asyncio.get_running_loop().create_task(connection.send({"type": "changed", "what": what}))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def publish(self, message_id: str, **event: Any) -> None:
        events = self.events[message_id]
        events.append({"message_id": message_id, "seq": len(events) + 1, **event})

    async def _run(self, answer: dict[str, Any], script: Script) -> None:
        for event in script.before:
            answer |= self._record(answer, event)
            self.publish(answer["id"], **event)
        for token in script.tokens:
            await asyncio.sleep(script.pause)
            while self._pauses_before(token) and answer["id"] not in self.stopped:  # noqa: ASYNC110  (tests set it)
                await asyncio.sleep(0.01)
            if answer["id"] in self.stopped:
                script.finish = "cancelled"
                break
            answer["text"] += token
            self.publish(answer["id"], type="token", text=token)
        if script.fail:
            answer |= {"status": "failed", "error": {"code": script.fail[0], "message": script.fail[1]}}
            self.publish(answer["id"], type="error", code=script.fail[0], message=script.fail[1])
        else:
            answer |= {"status": "stopped" if script.finish == "cancelled" else "complete", "usage": script.usage}
            self.publish(
                answer["id"], type="done", finish_reason=script.finish, usage=script.usage, tokens_per_second=15.2
            )
        for event in script.after:
            answer |= self._record(answer, event)
            self.publish(answer["id"], **event)
        self.publish(answer["id"], type="closed")
        self._announce_change("conversations")

    def _record(self, answer: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        """What a stored answer keeps of an event."""
        if event["type"] == "evidence":
            return {"passages": event["passages"], "folders": event["folders"], "searched": True,
                    "unread": event.get("unread", 0)}  # fmt: skip
        if event["type"] == "route":
            return {"route": event["decision"], "domain_title": event["title"]}
        if event["type"] == "citations":
            return {"citations": event["citations"], "invalid_citations": event["invalid"],
                    "checks": event.get("checks", [])}  # fmt: skip
        if event["type"] == "memory_saved":
            for saved in event["memories"]:
                saved["conversation_id"] = answer["conversation_id"]
            self.memories[:0] = event["memories"]
        if event["type"] == "memory_forgotten":
            return {"memories_forgotten": len(event["memories"])}
        names = STORED_FIELDS.get(event["type"])
        return {names[1]: event[names[0]]} if names else {}

    def _pauses_before(self, token: str) -> bool:
        return self.pause_before is not None and self.pause_before in token

    def _question_of(self, message_id: str) -> dict[str, Any]:
        everything = {m["id"]: m for messages in self.messages.values() for m in messages}
        message = everything[message_id]
        return message if message["role"] == "user" else everything[message["parent_id"]]


class _Connection:
    def __init__(self, backend: Backend, socket: WebSocket) -> None:
        self.backend = backend
        self.socket = socket
        self.pumps: list[asyncio.Task[None]] = []

    async def send(self, frame: dict[str, Any]) -> None:
        await self.socket.send_json(frame)

    async def drop(self) -> None:
        self.detach()
        await self.socket.close(1012)

    def detach(self) -> None:
        self.backend.connections.discard(self)
        for pump in self.pumps:
            pump.cancel()

    async def serve(self) -> None:
        await self.send(
            {
                "type": "hello",
                "user": {"id": "local", "name": "local", "admin": self.backend.admin},
                "version": "0",
                "model": None,
                "default_domain": "general",
            }
        )
        while True:
            frame = await self.socket.receive_json()
            self.backend.frames.append(frame)
            await self._handle(frame)

    async def _handle(self, frame: dict[str, Any]) -> None:
        backend = self.backend
        if backend.refuse_next:
            (code, message), backend.refuse_next = backend.refuse_next, None
            await self.send({"type": "error", "code": code, "message": message, "request_id": frame.get("request_id")})
        elif frame["type"] == "stop":
            backend.stopped.add(frame["message_id"])
        elif frame["type"] == "resume" and frame["message_id"] not in backend.events:
            await self.send({"type": "error", "code": "not_found", "message": "no such answer", "request_id": None})
        elif frame["type"] == "resume":
            self._start_pump(frame["message_id"], frame["after_seq"])
        else:
            self._start_pump(backend.begin(frame), 0)

    def _start_pump(self, message_id: str, after: int) -> None:
        self.pumps.append(asyncio.get_running_loop().create_task(self._pump(message_id, after)))

    async def _pump(self, message_id: str, position: int) -> None:
        events = self.backend.events[message_id]
        while not (position and events[position - 1]["type"] == "closed"):
            while position < len(events):
                await self.send(events[position])
                position += 1
            await asyncio.sleep(0.005)


class _StaticFiles:
    """Serves the client's files from memory, since each test loads them all, and passes on the rest."""

    files: ClassVar[dict[str, tuple[bytes, bytes]]] = {}

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        if not self.files:
            for path in STATIC.rglob("*"):
                kind = TYPES.get(path.suffix)
                if kind:
                    self.files[f"/static/{path.relative_to(STATIC).as_posix()}"] = (kind, path.read_bytes())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        served = self.files.get(scope["path"]) if scope["type"] == "http" else None
        if served is None:
            await self.app(scope, receive, send)
            return
        headers = [(b"content-type", served[0]), (b"x-content-type-options", b"nosniff")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": served[1]})


def _application(backend: Backend) -> FastAPI:  # noqa: PLR0915  (a route a line or two; splitting hides the list)
    app = FastAPI()
    policy = content_security_policy((STATIC / "index.html").read_text(encoding="utf-8"))

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        path = request.url.path
        backend.calls.append(f"{request.method} {path}")
        open_paths = ("/api/session", "/api/login")
        if path in backend.failing_paths:
            body = {"error": {"code": "internal", "message": "the disk is full"}}
            response: Response = JSONResponse(body, backend.failing_paths[path])
        elif path.startswith("/api") and path not in open_paths and backend.password and not backend.logged_in:
            response = JSONResponse({"error": {"code": "unauthorized", "message": "log in first"}}, 401)
        else:
            response = await call_next(request)
        response.headers["content-security-policy"] = policy
        response.headers["x-content-type-options"] = "nosniff"
        return response

    @app.get("/")
    async def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/health")
    async def health() -> JSONResponse:
        body = {"ok": not backend.model_failure, "running": 0, "waiting": 0, "reason": backend.model_failure}
        return JSONResponse(body, 503 if backend.model_failure else 200)

    @app.get("/api/session")
    async def session() -> dict[str, Any]:
        logged_in = backend.logged_in or not backend.password
        return {
            "user": backend.user() if logged_in else None,
            "login_needed": bool(backend.password),
            "version": "0.1.0",
            "default_domain": "general",
            "max_message_bytes": 262144,
            "max_upload_bytes": 1_000_000,
            "model": {
                "id": "smollm2-135m-instruct",
                "fingerprint": "f",
                "device": "cpu",
                "dtype": "float32",
                "reason": "no CUDA device was found",
                "path": "",
                "context_length": 8192,
                "parameters": 134515008,
            }
            if logged_in
            else None,
        }

    @app.post("/api/login")
    async def login(body: dict[str, str]) -> Response:
        if body["password"] != backend.password:
            return JSONResponse({"error": {"code": "unauthorized", "message": "wrong name or password"}}, 401)
        backend.logged_in = True
        return JSONResponse(await session())

    @app.get("/api/conversations")
    async def conversations() -> dict[str, Any]:
        return {"conversations": sorted(backend.conversations.values(), key=lambda c: -c["updated_at"])}

    memory_routes(app, backend)

    @app.get("/api/conversations/{key}")
    async def conversation(key: str) -> Response:
        if key not in backend.conversations:
            return JSONResponse({"error": {"code": "not_found", "message": f"there is no conversation '{key}'"}}, 404)
        return JSONResponse(backend.conversations[key] | {"messages": backend.messages[key]})

    @app.patch("/api/conversations/{key}")
    async def change(key: str, body: dict[str, Any]) -> dict[str, Any]:
        backend.conversations[key] |= body
        return backend.conversations[key]

    @app.delete("/api/conversations/{key}", status_code=204)
    async def delete(key: str, memories: str = "keep") -> None:
        del backend.conversations[key]
        if memories == "forget":
            backend.memories = [m for m in backend.memories if m["conversation_id"] != key]

    @app.get("/api/messages/{key}/prompt")
    async def prompt(key: str) -> dict[str, Any]:
        return {
            "sections": SECTIONS,
            "tokens": 238,
            "context_length": 8192,
            "domain": "support-faq",
            "adapter": "grounded",
            "messages": [{"role": s["name"], "content": s["text"]} for s in SECTIONS],
        }

    @app.get("/api/domains")
    async def domains() -> dict[str, Any]:
        blank = {"knowledge": [], "adapter": None, "memory": False, "reasoning": False, "output": False, "examples": 0}
        return {"domains": [blank | d for d in DOMAINS], "problems": backend.problems, "default": "general"}

    @app.get("/api/passages/{key}")
    async def passage(key: str) -> Response:
        if key not in backend.passage_contexts:
            error = {"code": "not_found", "message": f"no passage '{key}'"}
            return JSONResponse({"error": error}, 404)
        return JSONResponse(backend.passage_contexts[key])

    @app.get("/api/knowledge")
    async def knowledge(files: bool = True) -> dict[str, Any]:
        folders = [{"name": name, "files": files} for name, files in backend.files.items()]
        backend.calls.append(f"knowledge files={files}")
        return backend.index_status | ({"folders": folders} if files else {})

    @app.get("/api/knowledge/generations")
    async def generations() -> dict[str, Any]:
        return {"generation": 3, "held": None, "building": False, "generations": backend.generations}

    @app.post("/api/knowledge/rollback")
    async def roll_back(body: dict[str, Any]) -> dict[str, Any]:
        backend.request_bodies.append(body)
        number = backend.index_status["generation"] + 1
        backend.generations.insert(0, generation(number, cause=f"rollback:{body['generation']}"))
        backend.index_status |= {"generation": number, "held": body["generation"], "pending": 2}
        return {"generation": number, "held": body["generation"]}

    @app.post("/api/knowledge/follow")
    async def follow() -> dict[str, Any]:
        backend.index_status |= {"held": None, "pending": 0}
        return {"held": None}

    @app.post("/api/knowledge/rebuild")
    async def rebuild() -> dict[str, Any]:
        backend.index_status["building"] = True
        return {"building": True}

    @app.post("/api/knowledge/search")
    async def search(body: dict[str, Any]) -> dict[str, Any]:
        backend.request_bodies.append(body)
        found = [] if "nothing" in body["question"] else [PASSAGE | {"place": "lines 3-9"}]
        return {"passages": found, "trace": backend.trace}

    @app.get("/api/messages/{key}/trace")
    async def trace(key: str) -> dict[str, Any]:
        return backend.trace

    @app.post("/api/knowledge/{folder}")
    async def upload(folder: str, files: list[UploadFile]) -> dict[str, Any]:
        done: list[dict[str, Any]] = []
        for file in files:
            name = file.filename or ""
            if name.endswith(".exe"):
                error = {"code": "invalid_input", "message": f"'{name}' is no kind of file that can be read"}
                done.append({"name": name, "error": error})
                continue
            stored = backend.file(name)
            backend.files.setdefault(folder, []).append(stored)
            done.append(stored)
        return {"files": done}

    @app.delete("/api/knowledge/{folder}/{file:path}")
    async def delete_file(folder: str, file: str, purge: bool = False) -> dict[str, Any]:
        backend.files[folder] = [entry for entry in backend.files[folder] if entry["file"] != file]
        held_by = [] if purge else [1, 2]
        return {"deleted": file, "purged": [1, 2] if purge else [], "held_by": held_by, "kept_generations": 20}

    @app.get("/api/adapters")
    async def adapters() -> dict[str, Any]:
        return {"adapters": backend.adapters, "max_loras": 8}

    @app.post("/v1/{action}_lora_adapter")
    async def adapter(action: str, body: dict[str, str]) -> Response:
        found = next(a for a in backend.adapters if a["name"] == body["lora_name"])
        if action == "unload" and found["in_use"]:
            message = f"adapter '{found['name']}' is in use by a running chat; try again when it has ended"
            return JSONResponse({"error": {"message": message, "code": "adapter_in_use"}}, 409)
        found["state"] = "loaded" if action == "load" else "available"
        return JSONResponse({"message": "done"})

    @app.websocket("/ws")
    async def chat(socket: WebSocket) -> None:
        if backend.refuse_connections or (backend.password and not backend.logged_in):
            await socket.close(1008)
            return
        await socket.accept()
        connection = _Connection(backend, socket)
        backend.connections.add(connection)
        try:
            await connection.serve()
        except (WebSocketDisconnect, RuntimeError):
            connection.detach()

    return app

"""`/ws`: reads the client's frames, starts or follows turns, and sends their events.

A connection owns no turn: when it closes, turns go on. One queue orders all that is sent, so that a slow
client delays only itself. Knows nothing of how a turn runs or of what an event means.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TypeGuard

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from server.accounts import Login
from server.api.protocol import (
    Changed,
    FrameError,
    Hello,
    Regenerate,
    Resume,
    Send,
    ServerFrame,
    Stop,
    UserInfo,
    dump_frame,
    parse_frame,
)
from server.api.security import origin_allowed
from server.api.services import Services, find_login, get_services
from server.chat import EvidenceFound, TurnEvent, Unchanged
from server.errors import RateLimited, TailorError, TooLarge
from server.retrieval import KnowledgeView

log = logging.getLogger("tailor.api")
router = APIRouter()

POLICY_VIOLATION = 1008
ENDED = "the session ended; log in again"


@router.websocket("/ws")
async def chat_socket(socket: WebSocket) -> None:
    services = get_services(socket)
    login = await find_login(socket)
    if not origin_allowed(socket, services.settings.server.allowed_origins):
        await socket.close(POLICY_VIOLATION, "this origin is not allowed; add it to server.allowed_origins")
        return
    if login is None:
        await socket.close(POLICY_VIOLATION, "log in first")
        return
    await socket.accept()
    await _Connection(socket, services, login).serve()


class _Connection:
    def __init__(self, socket: WebSocket, services: Services, login: Login) -> None:
        self._socket = socket
        self._services = services
        self._login = login
        self._user = login.account
        self._outbox: asyncio.Queue[ServerFrame] = asyncio.Queue()
        self._followers: dict[str, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        unsubscribe = self._services.hub.subscribe(self._user.user_id, self._notify)
        user = UserInfo(self._user.user_id, self._user.name, self._user.admin)
        self._outbox.put_nowait(
            Hello(
                user,
                self._services.version,
                self._services.engine.model,
                self._services.settings.prompts.default_domain,
            )
        )
        helpers = [asyncio.create_task(self._write()), asyncio.create_task(self._watch_session())]
        try:
            await self._read()
        except WebSocketDisconnect:
            pass  # the usual end
        finally:
            unsubscribe()
            for task in (*helpers, *self._followers.values()):
                task.cancel()

    def _notify(self, change: Changed) -> None:
        self._outbox.put_nowait(change)

    async def _write(self) -> None:
        try:
            while True:
                await self._socket.send_text(dump_frame(await self._outbox.get()))
        except (WebSocketDisconnect, RuntimeError):
            return  # the client is gone; the reader ends the connection

    async def _watch_session(self) -> None:
        """A session that is revoked or expires loses its open connections too."""
        with self._services.revocations.watch(self._login) as ended:
            await ended.wait()
            await self._socket.close(POLICY_VIOLATION, ENDED)

    async def _read(self) -> None:
        limit = self._services.settings.server.max_message_bytes
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if await find_login(self._socket) is None:  # revoked, and not yet noticed
                await self._socket.close(POLICY_VIOLATION, ENDED)
                return
            data: str | bytes = message.get("text") or message.get("bytes") or ""
            request_id = None
            try:
                size = len(data) if isinstance(data, bytes) else len(data.encode(errors="surrogatepass"))
                if size > limit:
                    raise TooLarge(f"the message has {size:,} bytes; at most {limit:,} are taken. Send a file instead")
                frame = parse_frame(data)
                request_id = getattr(frame, "request_id", None)
                await self._handle(frame)
            except TailorError as error:
                wait = error.retry_after if isinstance(error, RateLimited) else None
                self._outbox.put_nowait(FrameError(error.code, str(error), request_id, wait))
            except Exception:  # edge of the connection's task: what breaks over one frame must not end it
                log.exception("a frame failed")
                self._outbox.put_nowait(
                    FrameError("internal", "the server made a mistake; its log has the details", request_id)
                )

    async def _handle(self, frame: Send | Regenerate | Stop | Resume) -> None:
        chat, user = self._services.chat, self._user.user_id
        if isinstance(frame, Send | Regenerate):
            await asyncio.to_thread(self._services.quotas.admit, user)
        match frame:
            case Send():
                stream = await chat.send(
                    user,
                    frame.text,
                    conversation_id=frame.conversation_id,
                    parent_id=frame.parent_id,
                    domain=frame.domain if "domain" in frame.model_fields_set else Unchanged.DOMAIN,
                    request_id=frame.request_id,
                    temporary=frame.temporary,
                )
                self._follow(stream.message_id, 0)
            case Regenerate():
                stream = await chat.regenerate(
                    user,
                    frame.message_id,
                    domain=frame.domain if "domain" in frame.model_fields_set else Unchanged.DOMAIN,
                    request_id=frame.request_id,
                )
                self._follow(stream.message_id, 0)
            case Stop():
                await chat.stop(user, frame.message_id)
            case Resume():
                chat.follow(user, frame.message_id)  # refuses here what is not this user's
                self._follow(frame.message_id, frame.after_seq)

    def _follow(self, message_id: str, after_seq: int) -> None:
        """One follower per answer: a second resume replaces the first."""
        previous = self._followers.pop(message_id, None)
        if previous is not None:
            previous.cancel()
        task = asyncio.create_task(self._pump(message_id, after_seq))
        self._followers[message_id] = task

    async def _pump(self, message_id: str, after_seq: int) -> None:
        stream = self._services.chat.follow(self._user.user_id, message_id)
        view = self._services.knowledge.for_user(self._user.user_id)
        async for event in stream.follow(after_seq):
            self._outbox.put_nowait(
                await asyncio.to_thread(_only_visible, event, view) if _has_passages(event) else event
            )
        self._followers.pop(message_id, None)


def _has_passages(event: TurnEvent) -> TypeGuard[EvidenceFound]:
    return isinstance(event, EvidenceFound) and bool(event.passages)


def _only_visible(event: EvidenceFound, view: KnowledgeView) -> EvidenceFound:
    """A turn may be followed again when its reader may not see a folder any more."""
    passages = tuple(one for one in event.passages if view.may_see(one.passage.folder))
    return replace(event, passages=passages, folders=tuple(filter(view.may_see, event.folders)))

"""`/ws`: reads the client's frames, starts or follows turns, and sends their events.

A connection owns no turn: when it closes, turns go on. One bounded queue orders all that is sent (`outbox.py`), so
that a slow client delays only itself. Knows nothing of how a turn runs or of what an event means.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TypeGuard

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.types import Message

from server.accounts import Account, Login
from server.api.protocol import (
    FrameError,
    Hello,
    Regenerate,
    Resume,
    Send,
    Stop,
    UserInfo,
    client_frame,
    dump_frame,
    parse_frame,
    request_id_of,
)
from server.api.services import Services, find_login, get_services
from server.api.transport.outbox import Outbox
from server.api.transport.security import refuse
from server.chat import EvidenceFound, TurnEvent, TurnStream, Unchanged
from server.errors import Conflict, TailorError, TooLarge, Unauthorized
from server.retrieval import KnowledgeView

log = logging.getLogger("tailor.api")
router = APIRouter()

POLICY_VIOLATION = 1008
ENDED = "the session ended; log in again"


@router.websocket("/ws")
async def chat_socket(socket: WebSocket) -> None:
    services = get_services(socket)
    login = await find_login(socket)
    try:
        if login is None:
            raise Unauthorized("log in first, or send 'Authorization: Bearer <API key>'")
        _check_room(services, login.account)
    except TailorError as error:
        await refuse(error, socket.scope, socket.receive, socket.send)
        return
    socket.state.user_id = login.account.user_id  # for the log
    await socket.accept()
    await _Connection(socket, services, login).serve()


def _check_room(services: Services, user: Account) -> None:
    most = services.settings.server.max_sockets_per_user
    if services.hub.connections_of(user.user_id) >= most:
        raise Conflict(f"you have {most:,} connections open; close one, or raise server.max_sockets_per_user")


class _Connection:
    def __init__(self, socket: WebSocket, services: Services, login: Login) -> None:
        self._socket = socket
        self._services = services
        self._login = login
        self._user = login.account
        self._outbox = Outbox()
        self._followers: dict[str, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Until the client goes, or its session ends."""
        unsubscribe = self._services.hub.subscribe(self._user.user_id, self._outbox.note)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._socket.send_text(dump_frame(self._hello()))
            tasks += [asyncio.create_task(work) for work in (self._read(), self._write(), self._watch_session())]
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        except WebSocketDisconnect:
            pass  # the usual end
        finally:
            unsubscribe()
            for task in (*tasks, *self._followers.values()):
                task.cancel()

    def _hello(self) -> Hello:
        services, user = self._services, self._user
        info = UserInfo(user.user_id, user.name, user.admin)
        return Hello(info, services.version, services.engine.model, services.settings.prompts.default_domain)

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
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if await find_login(self._socket) is None:  # revoked, and not yet noticed
                await self._socket.close(POLICY_VIOLATION, ENDED)
                return
            await self._answer(message)
            await asyncio.sleep(0)  # frames that came in one piece are not the only work there is

    async def _answer(self, message: Message) -> None:
        data: str | bytes = message.get("text") or message.get("bytes") or ""
        request_id = None
        try:
            self._check_size(data)
            value = parse_frame(data)
            request_id = request_id_of(value)
            await self._handle(client_frame(value))
        except TailorError as error:
            await self._outbox.put(FrameError(error.code, str(error), request_id, error.retry_after_s))
        except Exception:  # edge of the connection's task: what breaks over one frame must not end it
            log.exception("a frame failed")
            await self._outbox.put(
                FrameError("internal", "the server made a mistake; its log has the details", request_id)
            )

    def _check_size(self, data: str | bytes) -> None:
        limit = self._services.settings.server.max_message_bytes
        size = len(data) if isinstance(data, bytes) else len(data.encode(errors="surrogatepass"))
        if size > limit:
            raise TooLarge(f"the message has {size:,} bytes; at most {limit:,} are taken. Send a file instead")

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
                self._follow(stream, 0)
            case Regenerate():
                stream = await chat.regenerate(
                    user,
                    frame.message_id,
                    domain=frame.domain if "domain" in frame.model_fields_set else Unchanged.DOMAIN,
                    request_id=frame.request_id,
                )
                self._follow(stream, 0)
            case Stop():
                await chat.stop(user, frame.message_id)
            case Resume():
                self._follow(chat.follow(user, frame.message_id), frame.after_seq)

    def _follow(self, stream: TurnStream, after_seq: int) -> None:
        """One follower per answer: a second resume replaces the first."""
        previous = self._followers.pop(stream.message_id, None)
        if previous is not None:
            previous.cancel()
        self._followers[stream.message_id] = asyncio.create_task(self._pump(stream, after_seq))

    async def _pump(self, stream: TurnStream, after_seq: int) -> None:
        view = self._services.knowledge.for_user(self._user.user_id)
        async for event in stream.follow(after_seq):
            await self._outbox.put(
                await asyncio.to_thread(_only_visible, event, view) if _has_passages(event) else event
            )
        self._followers.pop(stream.message_id, None)


def _has_passages(event: TurnEvent) -> TypeGuard[EvidenceFound]:
    return isinstance(event, EvidenceFound) and bool(event.passages)


def _only_visible(event: EvidenceFound, view: KnowledgeView) -> EvidenceFound:
    """A turn may be followed again when its reader may not see a folder any more."""
    passages = tuple(one for one in event.passages if view.may_see(one.passage.folder))
    return replace(event, passages=passages, folders=tuple(filter(view.may_see, event.folders)))

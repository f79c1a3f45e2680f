"""uvicorn with bounds that it lacks: how many connections there may be, how long a head and a body may take to come,
and how long a reader may take nothing.

A request's head has `header_seconds`; its body `body_seconds`, and a second more for each `body_bytes_per_second`
bytes that came (the rule of Apache's mod_reqtimeout). A body that nobody wants, since it was refused, is read for a
moment, so that the client gets to see the answer (nginx's lingering close). Between two requests a connection is kept
for longer than clients and proxies keep theirs (60 seconds, mostly): who closes first must not be the server, since a
request that is already on its way would be lost. Where connections run short, those that wait so are closed first.
Knows nothing of routes and accounts.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from server.api.text import MAX_HEAD_BYTES
from server.config import ServerSettings

LINGER_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 75
FRAME_FACTOR = 4  # frames above our own limit are answered with an error up to so many times of it
LEAST_FRAME_BYTES = 1024 * 1024
SPARE_FILES = 512  # beside connections: index, adapters, database, standard streams


def _answer(status: str, code: str, message: str, *headers: str) -> bytes:
    body = f'{{"error": {{"code": "{code}", "message": "{message}"}}}}'
    lines = (f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers)
    return "\r\n".join((*lines, "connection: close", "", body)).encode()


TOO_SLOW = _answer("408 Request Timeout", "timeout", "the request came too slowly; send it again")
CROWDED = _answer(
    "503 Service Unavailable", "busy", "the server has too many connections; try again in a moment", "retry-after: 5"
)
NO_HANDSHAKE = _answer("400 Bad Request", "invalid_input", "this is not a WebSocket handshake that can be read")


class ConnectionLimits:
    """Counts open connections. This machine and trusted proxies speak for many, and have the total as their bound."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._trusted = [ipaddress.ip_network(each) for each in settings.trusted_proxies]
        self._addresses: dict[asyncio.BaseTransport, str] = {}
        self._by_address: Counter[str] = Counter()
        self._idle: dict[asyncio.BaseTransport, str] = {}  # between two requests, the longest first

    def enter(self, transport: asyncio.BaseTransport) -> bool:
        """False where a bound is reached; the connection is then not counted."""
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._has_room(address):
            self._close_idle(address)
            if not self._has_room(address):
                return False
        self._addresses[transport] = address
        self._by_address[address] += 1
        return True

    def mark(self, transport: asyncio.BaseTransport, *, idle: bool) -> None:
        """Whether a connection waits between two requests."""
        if not idle:
            self._idle.pop(transport, None)
        elif transport in self._addresses:
            self._idle.setdefault(transport, self._addresses[transport])

    def leave(self, transport: asyncio.BaseTransport) -> None:
        self._idle.pop(transport, None)
        address = self._addresses.pop(transport, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def __len__(self) -> int:
        return len(self._addresses)

    def _has_room(self, address: str) -> bool:
        return len(self._addresses) < self._settings.max_connections and self._has_share(address)

    def _has_share(self, address: str) -> bool:
        return self._by_address[address] < self._settings.max_connections_per_address or self._speaks_for_many(address)

    def _close_idle(self, address: str) -> None:
        """The one that has waited longest between two requests: of that address, else of any, if that gives it room."""
        own = (transport for transport, its in self._idle.items() if its == address)
        longest = next(own, None)
        if longest is None and self._has_share(address):
            longest = next(iter(self._idle), None)
        if longest is not None:
            longest.close()
            self.leave(longest)

    def _speaks_for_many(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return True  # a socket of this machine's file system
        return found.is_loopback or any(found in network for network in self._trusted)


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration for this server. Takes what `uvicorn.Config` takes."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, **options: Any) -> None:
        self.server_settings = settings
        self.connection_limits = ConnectionLimits(settings)
        super().__init__(
            app,
            http=BoundedHTTP,
            ws=BoundedWebSocket,
            ws_max_size=max(FRAME_FACTOR * settings.max_message_bytes, LEAST_FRAME_BYTES),
            ws_per_message_deflate=False,  # a token's frame is too small to gain by it
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            forwarded_allow_ips=list(settings.trusted_proxies),
            **options,
        )


class _Timer:
    """Of one kind of deadline: a new one takes the place of the one before."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, act: Callable[[], None]) -> None:
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(seconds, act)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class BoundedHTTP(H11Protocol):
    config: ServerConfig

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._settings = self.config.server_settings
        self._write_timer = _Timer()  # a peer that takes nothing: what waits for it would stay for ever
        self._deadline = _Timer()  # for what the client has to send next
        self._upgraded = False
        self._awaited: object = None  # the client's state that the deadline is for
        self._came, self._since = 0, self.loop.time()
        if not self.config.connection_limits.enter(transport):
            self._end(CROWDED)
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.connection_limits.leave(self.transport)
        self._write_timer.stop()
        self._deadline.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._came += len(data)
        super().data_received(data)
        if not self._upgraded:
            self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._upgraded = True  # the transport is the socket's from here on
        self.config.connection_limits.mark(self.transport, idle=False)
        self._deadline.stop()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._deadline.start(LINGER_SECONDS, self.transport.close)
        else:
            self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer.start(self._settings.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_timer.stop()

    def _watch(self) -> None:
        """Sets the deadline for what the client has to send next, once for each head and each body."""
        awaited: object = self.conn.their_state
        idle = awaited is h11.IDLE and self.timeout_keep_alive_task is not None
        self.config.connection_limits.mark(self.transport, idle=idle)
        if idle:
            awaited = None  # between two requests: uvicorn's own timer
        if awaited is self._awaited:
            return
        self._deadline.stop()
        self._awaited = awaited
        self._came, self._since = 0, self.loop.time()
        if awaited is h11.IDLE:
            self._deadline.start(self._settings.header_seconds, self._too_slow)
        elif awaited is h11.SEND_BODY:
            self._deadline.start(self._settings.body_seconds, self._check_body)

    def _check_body(self) -> None:
        now = self.loop.time()
        if self.flow.read_paused:  # the server is the slow one
            self._came, self._since = 0, now
        granted = self._settings.body_seconds + self._came / self._settings.body_bytes_per_second
        left = self._since + granted - now
        if left <= 0:
            self._too_slow()
        else:
            self._deadline.start(left, self._check_body)

    def _too_slow(self) -> None:
        self._end(TOO_SLOW)

    def _end(self, answer: bytes) -> None:
        """Closes; says why where no answer has begun."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(answer)
        self.transport.close()


class BoundedWebSocket(WebSocketsSansIOProtocol):
    config: ServerConfig

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._write_timer = _Timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.connection_limits.leave(self.transport)
        self._write_timer.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_complete:
            self.handshake_complete = self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()) or NO_HANDSHAKE)
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        self.curr_msg_data_type = "bytes"  # what is no UTF-8 is refused there, in words, and the connection stays
        super().send_receive_event_to_app()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # refused, and answered: uvicorn would log an error over it

    def handle_parser_exception(self) -> None:
        if self.conn.close_sent is None:  # the handshake itself cannot be read
            self.transport.write(NO_HANDSHAKE)
            self.transport.close()
            return
        super().handle_parser_exception()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer.start(self.config.server_settings.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_timer.stop()


def allow_open_files(settings: ServerSettings) -> None:
    """Raises the process's soft limit on open files, up to its hard one, to what the connections may need."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + SPARE_FILES
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # a limit that may not be raised
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

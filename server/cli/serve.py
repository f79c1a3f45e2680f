"""`tailor serve`: the chat, its API and the web client.

Settings, port and index are checked before anything slow is imported or a model is loaded. SIGTERM and SIGHUP drain:
nothing new is answered, what runs may end within `server.drain_seconds`, and the process exits with 0. Ctrl-C is quick.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any

import typer
import uvicorn

from server import logging as server_logging
from server.cli.console import HERE, Set, Workspace, out, settings_of
from server.errors import ConfigError

STOP_SECONDS = 10
DRAINED_STOP_SECONDS = 2  # after a drain only readers are left

log = logging.getLogger("tailor.serve")


def serve(
    workspace: Workspace = HERE,
    model: Annotated[str | None, typer.Option(help="Hub id or folder of any causal LM of transformers.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    quantize: Annotated[str | None, typer.Option(help="none, int8 or int4: weights of 8 or about 5 bits each.")] = None,
    embedder: Annotated[str | None, typer.Option(help="Hub id or folder of a sentence-transformers model.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    settings: Set = None,
) -> None:
    """Serve the chat, its API and the web client."""
    flags = {
        "model.name": model,
        "model.device": device,
        "model.dtype": dtype,
        "model.quantize": quantize,
        "embedding.name": embedder,
        "server.host": host,
        "server.port": port,
    }
    chosen = settings_of(workspace, flags, settings)
    server_logging.setup(chosen.logging)
    from server.retrieval import index_lock

    with _listen(chosen.server.host, chosen.server.port) as listener:
        with index_lock(chosen.paths.data / "index"):
            pass  # said now, in a line: the server takes it when it starts
        from server.api.transport.connections import ServerConfig, allow_open_files
        from server.app import create_app

        built = create_app(chosen, report=out.print)
        allow_open_files(chosen.server)
        config = ServerConfig(
            built,
            chosen.server,
            log_config=None,  # its lines go where ours go
            access_log=False,  # server/api/transport/request_log.py writes a line a request
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        with suppress(KeyboardInterrupt):  # uvicorn has stopped in order and hands the signal on
            _Server(config, built.state.services, listener).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn that says where the chat is, once it can be used."""

    def __init__(self, config: uvicorn.Config, services: Any, listener: socket.socket) -> None:
        super().__init__(config)
        self._services = services
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants it ignored
            signal.signal(signal.SIGHUP, self.handle_exit)
        out.print("Loading the model …")
        await super().startup(sockets)
        if self.should_exit:
            return
        card = self._services.engine.model
        host, port = self._listener.getsockname()[:2]
        out.print(f"Model   {card.id}, {card.parameters / 1e6:,.0f}M parameters, {card.dtype} on {card.device}")
        out.print(f"        {card.reason}; {card.path}", markup=False)
        out.print(f"Chat    http://{'localhost' if host in ('127.0.0.1', '::1') else host}:{port}", highlight=False)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first SIGTERM or SIGHUP drains, a second one stops at once; SIGINT is uvicorn's own."""
        if sig == signal.SIGINT or self._loop is None:
            super().handle_exit(sig, frame)
        elif self._drain is None and self.started:
            self._loop.call_soon_threadsafe(self._begin_drain)
        else:  # not kept among the captured signals: uvicorn would die by it, and the exit status would not be 0
            self.config.timeout_graceful_shutdown = 0
            self.should_exit = True

    def _begin_drain(self) -> None:
        self._drain = self._drain or asyncio.create_task(self._drain_and_exit(), name="drain")

    async def _drain_and_exit(self) -> None:
        seconds = self._services.settings.server.drain_seconds
        log.info("draining: nothing new is answered, running answers have %g s", seconds)
        left = await self._services.chat.admission.drain(seconds)
        log.info("drained; %d answers are cut off", left)
        self.config.timeout_graceful_shutdown = DRAINED_STOP_SECONDS
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    """Bound before the model loads, so that a taken port is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port") from (
            error
        )
    return listener

"""`tailor serve`: the chat, its API and the web client.

Settings, port and index are checked before anything slow is imported or a model is loaded.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Annotated, Any

import typer
import uvicorn

from server import logging
from server.cli.console import HERE, Set, Workspace, out, settings_of
from server.errors import ConfigError

STOP_SECONDS = 10


def serve(
    workspace: Workspace = HERE,
    model: Annotated[str | None, typer.Option(help="Hub id or folder of any causal LM of transformers.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    quantize: Annotated[str | None, typer.Option(help="none, or int8: weights of a byte each.")] = None,
    embedder: Annotated[str | None, typer.Option(help="Hub id or folder of a sentence-transformers model.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    settings: Set = None,
) -> None:
    """Serve the chat, its API and the web client."""
    logging.setup()
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
    from server.retrieval import index_lock

    with _listen(chosen.server.host, chosen.server.port) as listener:
        with index_lock(chosen.paths.data / "index"):
            pass  # said now, in a line: the server takes it when it starts
        from server.api.connections import ServerConfig, allow_open_files
        from server.app import create_app

        built = create_app(chosen, report=out.print)
        allow_open_files(chosen.server)
        config = ServerConfig(built, chosen.server, log_level="warning", timeout_graceful_shutdown=STOP_SECONDS)
        with suppress(KeyboardInterrupt):  # uvicorn has stopped in order and hands the signal on
            _Server(config, built.state.services, listener).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn that says where the chat is, once it can be used."""

    def __init__(self, config: uvicorn.Config, services: Any, listener: socket.socket) -> None:
        super().__init__(config)
        self._services = services
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        out.print("Loading the model …")
        await super().startup(sockets)
        if self.should_exit:
            return
        card = self._services.engine.model
        host, port = self._listener.getsockname()[:2]
        out.print(f"Model   {card.id}, {card.parameters / 1e6:,.0f}M parameters, {card.dtype} on {card.device}")
        out.print(f"        {card.reason}; {card.path}", markup=False)
        out.print(f"Chat    http://{'localhost' if host in ('127.0.0.1', '::1') else host}:{port}", highlight=False)


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

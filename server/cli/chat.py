"""`tailor chat`: a conversation in the terminal with a running server."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from server.cli.console import LOCAL_URL, Key, Url
from server.terminal import chat as terminal_chat


def chat(
    question: Annotated[str | None, typer.Argument(help="Ask this one thing and leave.")] = None,
    url: Url = LOCAL_URL,
    domain: Annotated[str | None, typer.Option(help="Who answers; absent, the router decides.")] = None,
    key: Key = None,
) -> None:
    """Chat in the terminal with a running server."""
    address = url.rstrip("/").replace("http", "ws", 1) + "/ws"
    answered = asyncio.run(terminal_chat(address, question=question, domain=domain, api_key=key))
    raise typer.Exit(0 if answered else 1)

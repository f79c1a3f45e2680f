"""A browser, and the client in it, served by the scripted backend."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from playwright.sync_api import Browser, Page

from tests.browsers import TIMEOUT, chromium
from tests.web.backend import Backend


@pytest.fixture(scope="package")  # not longer: while it lives, no other test can run an event loop
def browser() -> Iterator[Browser]:
    with chromium() as chrome:
        yield chrome


@contextmanager
def serve_backend() -> Iterator[tuple[Backend, str]]:
    """A fresh backend in a thread of its own, and its address."""
    backend = Backend()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        backend.app, log_level="error", access_log=False, ws="websockets-sansio", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)

    async def run() -> None:
        backend.loop = asyncio.get_running_loop()
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        yield backend, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@pytest.fixture
def served() -> Iterator[tuple[Backend, str]]:
    with serve_backend() as backend_and_address:
        yield backend_and_address


@pytest.fixture
def backend(served: tuple[Backend, str]) -> Backend:
    return served[0]


@contextmanager
def fresh_page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of a fresh profile, not yet opened: `page.goto("/")`. Any error in its console fails the test,
    except what the browser itself says of answers that a test wants to fail."""
    context = browser.new_context(
        base_url=address,
        locale="en-US",
        viewport={"width": 1280, "height": 800},
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    expected = ("Failed to load resource", "WebSocket connection to")
    unexpected = [problem for problem in problems if not problem.startswith(expected)]
    assert not unexpected, unexpected


@pytest.fixture
def page(browser: Browser, served: tuple[Backend, str]) -> Iterator[Page]:
    with fresh_page(browser, served[1]) as new_page:
        yield new_page

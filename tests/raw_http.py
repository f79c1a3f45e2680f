"""Requests of bytes that a well-behaved client would not send, and what the server logged meanwhile."""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

Headers = tuple[tuple[str, bytes], ...]


def raw_request(port: int, method: str, target: str, body: bytes = b"", headers: Headers = ()) -> tuple[int, str]:
    """Status, and the message of an error, of a request that is sent as it stands."""
    given = {name.lower() for name, _ in headers}
    lines = [f"{method} {target} HTTP/1.1".encode()]
    lines += [name.encode() + b": " + value for name, value in headers]
    lines += [] if "host" in given else [f"Host: 127.0.0.1:{port}".encode()]
    lines += [b"Content-Length: %d" % len(body), b"Connection: close"]
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.connect()
        connection.sock.sendall(b"\r\n".join([*lines, b"", body]))
        response = http.client.HTTPResponse(connection.sock, method=method)
        response.begin()
        content = response.read()
    error = json.loads(content).get("error", {}) if content.startswith(b'{"error"') else {}
    return response.status, str(error.get("message", content[:200]))


@contextmanager
def errors_logged() -> Iterator[list[str]]:
    """What the server and its libraries log as an error, or with a traceback, until the block ends. Enter it when the
    server runs: uvicorn sets up its loggers when it starts."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR or record.exc_info:
                found.append(self.format(record))

    collector = Collector()
    loggers = [logging.getLogger(name) for name in ("", "uvicorn")]  # the second hands nothing on
    for logger in loggers:
        logger.addHandler(collector)
    try:
        yield found
    finally:
        for logger in loggers:
            logger.removeHandler(collector)

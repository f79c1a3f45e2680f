"""What the log says, in which form, and what it never says."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sqlite3
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from server import logging as server_logging
from server.config import LoggingSettings
from server.errors import TailorError
from server.types import GenerationRequest
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, chat_session, make_app, make_workspace, serving

MARK = "zqxmarker"
ONE_USE = httpx.Limits(max_keepalive_connections=0)  # a connection over which a request failed is closed
LINE = re.compile(r"(\S+) ([A-Z]+) ([\w.]+) \[([\w.-]+)\] (.*)")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Standard error of a server that was set up to log."""
    errors = io.StringIO()
    root, tailor = logging.getLogger(), logging.getLogger("tailor")
    before = root.handlers[:], root.level, tailor.level
    yield errors
    root.handlers[:], root.level, tailor.level = before
    logging.getLogger("tailor").setLevel(before[2])


def log_as(errors: io.StringIO, form: str, level: str = "info") -> None:
    with contextlib.redirect_stderr(errors):
        server_logging.setup(LoggingSettings(format=form, level=level))  # type: ignore[arg-type]


def json_lines(errors: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in errors.getvalue().splitlines()]


# ── form ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_has_a_date_with_its_zone_a_level_a_part_and_a_request(written: io.StringIO) -> None:
    log_as(written, "text")
    token = server_logging.request_id.set("abc-1")
    logging.getLogger("tailor.x").info("two\nlines")
    server_logging.request_id.reset(token)
    logging.getLogger("tailor.x").debug("too small")
    logging.getLogger("some.library").warning("of a library")
    first, second = written.getvalue().splitlines()
    at, *rest = LINE.fullmatch(first).groups()  # type: ignore[union-attr]
    assert datetime.fromisoformat(at).tzinfo is not None
    assert rest == ["INFO", "tailor.x", "abc-1", r"two\nlines"]
    assert LINE.fullmatch(second).groups()[1:] == ("WARNING", "some.library", "-", "of a library")  # type: ignore[union-attr]


def test_json_has_one_object_a_line(written: io.StringIO) -> None:
    log_as(written, "json", "debug")
    logging.getLogger("tailor.x").debug("two\nlines", extra={"fields": {"status": 200}})
    (line,) = json_lines(written)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {"level": "DEBUG", "logger": "tailor.x", "message": "two\nlines", "status": 200}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError(f"bad {MARK}"), "ValueError"),
        (KeyError(MARK), "KeyError"),
        (TailorError(MARK), "TailorError"),
        (OSError(28, "No space left on device", MARK), "OSError: No space left on device"),
        (sqlite3.OperationalError("no such table: x"), "OperationalError: no such table: x"),
        (TypeError("not callable"), "TypeError: not callable"),
    ],
)
def test_a_traceback_says_where_and_never_quotes(written: io.StringIO, form: str, error: Exception, said: str) -> None:
    log_as(written, form)
    try:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("it broke") from cause
    except RuntimeError:
        logging.getLogger("tailor.x").exception("failed")
    text = written.getvalue()
    assert MARK not in text
    assert said in text
    assert "it broke" in text
    assert "test_logging.py" in text


# ── requests ─────────────────────────────────────────────────────────────────────────────────────


def script(request: GenerationRequest, prompt: str) -> str:
    if "fail" in prompt.rsplit("user", 1)[-1]:
        raise ValueError(f"the prompt was {prompt}")
    return f"An answer about {MARK}."


@pytest.fixture
def live(tmp_path: Path, written: io.StringIO) -> Iterator[LiveServer]:
    log_as(written, "json")
    with serving(make_app(make_workspace(tmp_path), ScriptedEngine(script, adapters=["helper"]))) as live:
        yield live


def requests(errors: io.StringIO, count: int) -> list[dict[str, Any]]:
    """At least `count` of them: a line is written when its answer is out."""
    deadline = time.monotonic() + 30
    while len(found := [line for line in json_lines(errors) if "method" in line]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_a_request_is_one_line_with_its_template(live: LiveServer, written: io.StringIO) -> None:
    httpx.get(f"{live.url}/api/conversations/{MARK}?query={MARK}")
    httpx.get(f"{live.url}/{MARK}")
    httpx.get(f"{live.url}/health")
    first, second = requests(written, 2)
    assert (first["method"], first["path"], first["status"]) == ("GET", "/api/conversations/{conversation_id}", 404)
    assert first["user"] == "local"
    assert first["ms"] >= 0
    assert (second["path"], second["status"], second["user"]) == ("(no route)", 404, "-")
    assert MARK not in written.getvalue()


@pytest.mark.parametrize(
    ("sent", "taken"), [("proxy-1.a_B", True), ("", False), ("x" * 65, False), ("with space", False), ("a;b", False)]
)
def test_a_short_plain_request_id_is_taken_over_and_goes_back(
    live: LiveServer, written: io.StringIO, sent: str, taken: bool
) -> None:
    answer = httpx.get(f"{live.url}/api/session", headers={"X-Request-ID": sent})
    own = answer.headers["x-request-id"]
    assert (own == sent) is taken
    assert re.fullmatch(r"[\w.-]{1,64}", own)
    assert requests(written, 1)[0]["request_id"] == own


async def test_a_turn_keeps_the_id_of_its_connection(live: LiveServer, written: io.StringIO) -> None:
    async with chat_session(live, additional_headers={"X-Request-ID": "of-this-socket"}) as chat:
        assert (await chat.ask("please fail", domain="general"))[-2]["code"] == "internal"
    (connection,) = requests(written, 1)
    assert (connection["method"], connection["path"], connection["user"]) == ("WEBSOCKET", "/ws", "local")
    failed = [line for line in json_lines(written) if line["message"].startswith("turn ")]
    assert [line["request_id"] for line in failed] == ["of-this-socket"]
    assert "ValueError" in failed[0]["exception"]


async def test_nothing_that_users_write_is_in_the_log(live: LiveServer, written: io.StringIO) -> None:
    async with chat_session(live) as chat:
        for text in (f"My name is {MARK}.", f"{MARK}: please fail", f"forget that I am {MARK}", f"what about {MARK}?"):
            await chat.ask(text, domain="general")
        await chat.frame(type="send", request_id=MARK, text=f"{MARK}", conversation_id=MARK)
        await chat.frame(type=MARK)
        await chat.frame(type="stop", message_id=MARK)
    async with httpx.AsyncClient(base_url=live.url, timeout=60, limits=ONE_USE) as client:
        memory = {"text": f"Likes {MARK}."}
        await client.post("/api/memories", json=memory)
        await client.post("/api/memories", json={"text": MARK, "kind": MARK})
        await client.post("/api/memories", content=f"{{{MARK}", headers={"content-type": "application/json"})
        await client.get(f"/api/conversations/search?query={MARK}")
        await client.get(f"/api/messages/{MARK}/prompt")
        await client.post("/api/login", json={"name": MARK, "password": MARK * 3})
        await client.request(MARK.upper(), f"/{MARK}")
        for text in (MARK, f"{MARK} fail"):
            body = {"model": "base", "messages": [{"role": "user", "content": text}]}
            for stream in (False, True):
                await client.post("/v1/chat/completions", json=body | {"stream": stream})
        await client.post("/api/knowledge/search", json={"question": MARK})
        await client.get("/api/session", headers={"X-Request-ID": f"{MARK} {uuid.uuid4()}", "User-Agent": MARK})
    requests(written, 12)
    assert MARK not in written.getvalue().lower()

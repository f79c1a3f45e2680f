"""Every route, as a stranger, a user and an administrator, with requests made from the API's own description and with
worse: no fault of the server, no traceback in its log, nothing hung and nothing left running."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.live import LiveServer, make_app, make_workspace, serving
from tests.raw_http import Headers, errors_logged, raw_request
from tests.tiers import cases

PASSWORD = "correct horse battery"
CALLERS = ("stranger", "user", "admin")
MADE = cases(2, 50)  # requests of each kind, of each operation, by each caller: schemathesis' own
WORSE = cases(200, 5_000)  # by each caller: ours
FINE_FAULTS = {503, 507}  # what the server says when it is busy or full

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    app = make_app(make_workspace(tmp_path_factory.mktemp("every")), flags={"server.password": PASSWORD})
    app.state.services.accounts.add("mina", "minas password")
    with serving(app) as served:
        yield served


@pytest.fixture(scope="module")
def keys(live: LiveServer) -> dict[str, str]:
    """The Authorization header of each caller."""
    accounts = live.app.state.services.accounts
    return {"stranger": ""} | {
        caller: f"Bearer {accounts.new_api_key(name)}" for caller, name in (("user", "mina"), ("admin", "admin"))
    }


@pytest.fixture(autouse=True)
def nothing_is_logged_or_left(live: LiveServer) -> Iterator[None]:
    with errors_logged() as errors:
        yield
    assert errors == []
    assert raw_request(live.port, "GET", "/health")[0] == 200
    engine = live.app.state.services.engine
    deadline = time.monotonic() + 60
    while engine.running or engine.expected:
        assert time.monotonic() < deadline, "a request is left running"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def description(live: LiveServer) -> dict[str, Any]:
    found: dict[str, Any] = live.app.openapi()
    assert len(found["paths"]) >= 25
    return found


@pytest.mark.parametrize("caller", CALLERS)
def test_requests_made_from_the_description(
    live: LiveServer, description: dict[str, Any], keys: dict[str, str], caller: str
) -> None:
    schema = schemathesis.openapi.from_dict(description)
    sent = 0
    for operation in (found.ok() for found in schema.get_all_operations()):
        for mode in GenerationMode:

            @settings(
                max_examples=MADE, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal sent
                sent += 1
                headers = {"Authorization": keys[caller]} if keys[caller] else {}
                response = case.call(base_url=live.url, headers=headers, timeout=60)
                assert fine(response.status_code), (case.method, case.formatted_path, case.body, response.text)

            with suppress(Unsatisfiable):  # without a field there is nothing to get wrong
                ask()
    assert sent >= MADE * 25


def fine(status: int) -> bool:
    return status < 500 or status in FINE_FAULTS


# ── worse than a description can say ─────────────────────────────────────────────────────────────

SEGMENTS = (
    "1", "0", "-1", "x", "9" * 20, f"-{'9' * 20}", "9" * 4400, "1e9", "%00", "a%00b", "%ff", "%ed%a0%80", "%zz", "%",
    "..%2F..", "%2e%2e", ".hidden", "x" * 65, "x" * 300, "%F0%9F%99%82", "a%20b", "%0d%0aX:1", "null", "search", "%5C",
    "auto", "support", "general", "refunds.md", "con", "*", "%3F", "%23", "a;b", "~", "True", "NaN", "%E2%80%AE",
)  # fmt: skip
VALUES = (
    '""', '"x"', '"\\ud800"', '"\\udc00\\ud800"', '"a\\u0000b"', '"\\u202e"', "0", "1", "-1", "9" * 20, "-" + "9" * 20,
    "9" * 4400, "NaN", "Infinity", "-Infinity", "1e999", "1e308", "0.1", "true", "false", "null", "[]", "{}", "[[]]",
    '{"a": {}}', "[" * 150 + "]" * 150, '"' + "x" * 5000 + '"', '"9999-12-31"', '"0001-01-01"', '"general"', '"base"',
    '"auto"', '"support"', '["x", 1, null]', '{"\\u0000": 1}', "'x'", "undefined", "\xff", '"\\x"',
)  # fmt: skip
BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe",
    b"\x00",
    b"[" * 9000,
    b'{"a": 1, "a": 2}',
    b"{}" * 2,
    "{}".encode("utf-16"),
)
HEADERS: tuple[Headers, ...] = (
    (),
    (("Host", b"["),),
    (("Host", b"evil.example"),),
    (("Origin", b"["),),
    (("Origin", b"null"),),
    (("Cookie", b"\xff"),),
    (("Cookie", b'tailor_session="\\377"; tailor_session=x'),),
    (("Accept", b"\x01"),),
    (("Range", b"bytes=9-1"),),
    (("X-Forwarded-For", b"["), ("X-Forwarded-Proto", b"x")),
    (("Content-Encoding", b"gzip"),),
    (("Expect", b"nothing"),),
    (("If-None-Match", b"\xf0"), ("If-Modified-Since", b"never")),
    (("Upgrade", b"websocket"), ("Connection", b"Upgrade")),
)
KINDS = (
    *(b"application/json",) * 5,
    b"text/plain",
    b"multipart/form-data",
    b"application/json; charset=utf-7",
    b"multipart/form-data; boundary=x",
    b"application/x-www-form-urlencoded",
    b"",
    b"\xff",
    b"a/b+json",
)
PARTS = (
    b"a.md",
    b"",
    b"\xff.md",
    b"..",
    b"../a.md",
    b"a\x00.md",
    b"x" * 300 + b".md",
    b".users",
    b"CON",
    b"a.exe",
    b"\xea\xb0\x80.md",
)


class Worse:
    """Random requests from the description's paths and fields; the same ones from the same seed."""

    def __init__(self, description: dict[str, Any], seed: str) -> None:
        self._random = random.Random(seed)
        self._schemas = description["components"]["schemas"]
        self._operations = [
            (method.upper(), path, operation)
            for path, methods in description["paths"].items()
            for method, operation in methods.items()
        ] + [("GET", path, {}) for path in ("/static/{file}", "/{file}", "/openapi.json", "/")]

    def request(self) -> tuple[str, str, bytes, Headers]:
        method, path, operation = self._random.choice(self._operations)
        for name in [part[1:-1].partition(":")[0] for part in path.split("/") if part.startswith("{")]:
            path = path.replace("{" + name + "}", self._random.choice(SEGMENTS)).replace("{" + name + ":path}", "x")
        names = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"] + ["other"]
        query = "&".join(f"{name}={self._random.choice(SEGMENTS)}" for name in names if self._random.random() < 0.5)
        if self._random.random() < 0.05:
            method = self._random.choice(("PUT", "POST", "PATCH", "TRACE", "OPTIONS", "HEAD", "NONSENSE"))
        body, kind = self._body(operation)
        return (
            method,
            f"{path}?{query}" if query else path,
            body,
            (*kind, *(self._random.choice(HEADERS) if self._random.random() < 0.2 else ())),
        )

    def _body(self, operation: dict[str, Any]) -> tuple[bytes, Headers]:
        content = operation.get("requestBody", {}).get("content", {})
        if "multipart/form-data" in content and self._random.random() < 0.8:
            name = self._random.choice(PARTS)
            part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="' + name + b'"\r\n\r\ntext\r\n'
            return part * self._random.randint(1, 3) + b"--x--\r\n", (
                ("Content-Type", b"multipart/form-data; boundary=x"),
            )
        kind: Headers = (("Content-Type", self._random.choice(KINDS)),)
        if "application/json" not in content or self._random.random() < 0.1:
            return self._random.choice(BODIES), kind
        return self._object(content["application/json"]["schema"]).encode("latin-1"), kind

    def _object(self, schema: dict[str, Any]) -> str:
        """JSON text, more or less, with the schema's fields."""
        found = self._schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        if "properties" not in found or self._random.random() < 0.05:
            return self._random.choice(VALUES)
        required = found.get("required", [])
        fields = [
            f"{json.dumps(name)}: {self._value(inner)}"
            for name, inner in found["properties"].items()
            if name in required or self._random.random() < 0.4
        ]
        return "{" + ", ".join(fields) + "}"

    def _value(self, schema: dict[str, Any]) -> str:
        """A field's own kind of value more often than not, so that what lies behind its check is reached, too."""
        kind = self._random.choice(schema["anyOf"]) if "anyOf" in schema else schema
        if self._random.random() < 0.35:
            return self._random.choice(VALUES)
        if "$ref" in kind:
            return self._object(kind)
        if kind.get("type") == "array":
            return "[" + ", ".join(self._value(kind["items"]) for _ in range(self._random.randint(0, 3))) + "]"
        if "enum" in kind or "const" in kind:
            return json.dumps(self._random.choice(kind.get("enum", [kind.get("const")])))
        usual = {"string": '"support"', "integer": "1", "number": "0.5", "boolean": "true", "object": '{"1": 1}'}
        return usual.get(str(kind.get("type")), "null")


@pytest.mark.parametrize("caller", CALLERS)
def test_requests_worse_than_a_description_can_say(
    live: LiveServer, description: dict[str, Any], keys: dict[str, str], caller: str
) -> None:
    worse = Worse(description, caller)
    key: Headers = (("Authorization", keys[caller].encode()),) if keys[caller] else ()
    for _ in range(WORSE):
        method, target, body, headers = worse.request()
        status, message = raw_request(live.port, method, target, body, (*key, *headers))
        assert fine(status), (method, target, body[:300], headers, message)

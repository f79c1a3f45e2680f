"""What no part could store or send back is refused with the field's name: on every route, and on the socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.api.text import MAX_DEPTH, MAX_INTEGER, MAX_VALUES, check_head, host_name, parse_json
from server.errors import InvalidInput
from tests import raw_http
from tests.live import LiveServer, chat_session, make_app, make_workspace, serving, text_of
from tests.raw_http import Headers

HUGE = "9" * 20


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(make_app(make_workspace(tmp_path_factory.mktemp("text")))) as served:
        yield served


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = make_workspace(tmp_path_factory.mktemp("text-locked"))
    with serving(make_app(folder, flags={"server.password": "correct horse battery"})) as served:
        yield served


@pytest.fixture(autouse=True)
def no_traceback(live: LiveServer, locked: LiveServer) -> Iterator[None]:
    with raw_http.errors_logged() as errors:
        yield
    assert errors == []


def raw_request(
    live: LiveServer, method: str, target: str, body: bytes = b"", headers: Headers = ()
) -> tuple[int, str]:
    return raw_http.raw_request(live.port, method, target, body, headers)


JSON_TYPE = (("Content-Type", b"application/json"),)
# (method, path, a body of which {} is the value under test, the field that the error names)
JSON_ROUTES = (
    ("POST", "/api/login", '{"name": "a", "password": {}}', "password"),
    ("POST", "/api/memories", '{"text": {}}', "text"),
    ("PATCH", "/api/memories/1", '{"text": "x", "expected": {}}', "expected"),
    ("PUT", "/api/memories/paused", '{"paused": {}}', "paused"),
    ("POST", "/api/conversations", '{"domain": {}}', "domain"),
    ("PATCH", "/api/conversations/x", '{"title": {}}', "title"),
    ("POST", "/api/knowledge/search", '{"question": {}}', "question"),
    ("POST", "/api/knowledge/rollback", '{"generation": {}}', "generation"),
    ("POST", "/v1/load_lora_adapter", '{"lora_name": {}}', "lora_name"),
    ("POST", "/v1/chat/completions", '{"model": "base", "messages": [{"role": "user", "content": {}}]}', "content"),
    (
        "POST",
        "/v1/chat/completions",
        '{"model": "base", "messages": [{"role": "user", "content": "x"}], "seed": {}}',
        "seed",
    ),
    ("POST", "/v1/embeddings", '{"input": [{}]}', "input.0"),
)
BAD_JSON_VALUES = ('"\\ud800"', '"a\\u0000b"', "NaN", "Infinity", "-Infinity", "1e999", HUGE, f"-{HUGE}", "9" * 3000)


@pytest.mark.parametrize("value", BAD_JSON_VALUES, ids=lambda value: value[:12])
@pytest.mark.parametrize(("method", "path", "body", "field"), JSON_ROUTES, ids=lambda value: str(value)[:30])
def test_a_json_value_that_nothing_can_store_is_refused_by_name(
    live: LiveServer, method: str, path: str, body: str, field: str, value: str
) -> None:
    status, message = raw_request(live, method, path, body.replace("{}", value).encode(), JSON_TYPE)
    assert status == 400, message
    assert field in message, message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\xff\xfe{\x00", "UTF-8"),
        (b'{"text": "\xff"}', "UTF-8"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"[" * 5000 + b"]" * 5000, "JSON"),
        (b'{"text": ' + b"[" * 100 + b"]" * 100 + b"}", "text"),
        (b'{"\\ud800": 1}', "field's name"),
        (b'{"a\\u0000": 1}', "field's name"),
        (b'{"text": [' + b"0," * 20_000 + b"0]}", "text"),
        (b"{", "JSON"),
        (b'{"text": ' + b"9" * 5000 + b"}", "JSON"),
        (b"", "required"),
    ],
    ids=lambda value: str(value)[:24],
)
@pytest.mark.parametrize("path", ["/api/memories", "/v1/embeddings"])
def test_a_body_that_is_no_json_is_refused(live: LiveServer, path: str, body: bytes, says: str) -> None:
    status, message = raw_request(live, "POST", path, body, JSON_TYPE)
    assert status == 400
    assert says in message or path.startswith("/v1")


BAD_TARGETS = (
    "/%00", "/%ff", "/%zz", "/%e0%80%80", "/%ed%a0%80", "/%", "/static/%00.js", "/static/%ff.js", "/metrics?x=%ff",
    "/api/memories?query=%00", "/api/memories?query=%ed%a0%80", "/api/memories?query=%ff", "/api/memories?query=%zz",
    "/api/memories?%ff=1", f"/api/memories/{HUGE}/history", f"/api/memories/-{HUGE}/history", "/api/memories/0/history",
    f"/api/memories/{'9' * 5000}/history", "/api/conversations/%00", f"/api/conversations/{'x' * 65}",
    "/api/conversations/search?query=%00", f"/api/messages/{'x' * 65}/trace", "/api/messages/%ff/prompt",
    f"/api/passages/{'x' * 65}", f"/api/passages/x?reach={'9' * 5000}", "/api/knowledge/%00/x", "/openapi.json?a=%ff",
    "/health?a=%00", "/?a=%ff", "/v1/models?a=%ff", "http://[/api/session", "/" + "?" + "a=1&" * 200,
)  # fmt: skip


@pytest.mark.parametrize("target", BAD_TARGETS, ids=lambda target: target[:40])
def test_a_target_that_cannot_be_read_is_refused(live: LiveServer, locked: LiveServer, target: str) -> None:
    status, message = raw_request(live, "DELETE" if "knowledge" in target else "GET", target)
    assert status == 400, message
    assert message
    before_login, message = raw_request(locked, "GET", target)
    assert before_login in (400, 401, 405), message


@pytest.mark.parametrize("target", [f"/api/memories/{HUGE}", f"/api/memories/dead/{HUGE}"])
def test_an_id_beyond_the_database_is_refused(live: LiveServer, target: str) -> None:
    status, message = raw_request(live, "DELETE", target)
    assert (status, str(MAX_INTEGER) in message) == (400, True)


BAD_HEADERS = (
    ("Host", b"["), ("Host", b"a b"), ("Host", b"[::1"), ("Host", b"x:port"), ("Host", b"a@b"), ("Host", b"\xff"),
    ("Origin", b"["), ("Origin", b"http://["), ("Origin", b"http://[::1"), ("Origin", b"http://a b"),
    ("Cookie", b"tailor_session=\xff"), ("Cookie", b"a=\x01"), ("Authorization", b"Bearer \xff"), ("X-Any", b"\xff"),
    ("Content-Type", b"\xe9"), ("Content-Type", b"json"), ("Content-Type", b"application/json; charset=utf-16"),
    ("Content-Type", b"multipart/form-data; boundary=x; charset=unicode_escape"),
)  # fmt: skip
EVERYWHERE = (
    "/",
    "/static/js/main.js",
    "/health",
    "/metrics",
    "/api/session",
    "/api/memories",
    "/v1/models",
    "/nowhere",
)


@pytest.mark.parametrize("path", EVERYWHERE)
def test_a_header_that_cannot_be_read_is_refused_everywhere(live: LiveServer, locked: LiveServer, path: str) -> None:
    for name, value in BAD_HEADERS:
        for server in (live, locked):
            status, message = raw_request(server, "GET", path, headers=((name, value),))
            assert (status, name.lower() in message.lower()) == (400, True), (name, value, message)


@pytest.mark.parametrize("name", ["Origin", "Content-Type", "Authorization"])
def test_a_header_that_stands_twice_is_refused(live: LiveServer, name: str) -> None:
    value = {"Origin": b"http://a", "Content-Type": b"application/json", "Authorization": b"Bearer a"}[name]
    status, message = raw_request(live, "GET", "/api/session", headers=((name, value), (name, value)))
    assert (status, "twice" in message) == (400, True)


def multipart(file_name: bytes, field: bytes = b"files") -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="' + field + b'"; filename="' + file_name + b'"\r\n\r\n'
    return head + b"text\r\n--x--\r\n"


@pytest.mark.parametrize("name", [b"\xff.md", b"a\x00b.md"])
def test_a_file_name_that_cannot_be_read_is_refused(live: LiveServer, name: bytes) -> None:
    kind = (("Content-Type", b"multipart/form-data; boundary=x"),)
    status, message = raw_request(live, "POST", "/api/knowledge/support", multipart(name), kind)
    assert status == 400, message


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary*=utf-8''%ff",
        b"multipart/mixed; boundary=x",
        b"text/plain",
    ],
)
def test_an_odd_content_type_is_refused(live: LiveServer, kind: bytes) -> None:
    for path in ("/api/knowledge/support", "/api/memories", "/v1/chat/completions"):
        status, message = raw_request(live, "POST", path, multipart(b"a.md"), (("Content-Type", kind),))
        assert (status, bool(message)) == (400, True), message


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_schema", "json_schema": "x"}},
        {"response_format": {"type": "json_schema", "json_schema": [1]}},
        {"logit_bias": {"9" * 5000: 1}},
        {"model": "x" * 300},
    ],
    ids=str,
)
def test_a_completion_that_asks_for_nonsense_is_refused(live: LiveServer, body: dict[str, Any]) -> None:
    asked = {"model": "base", "messages": [{"role": "user", "content": "Hi"}], **body}
    status, _ = raw_request(live, "POST", "/v1/chat/completions", json.dumps(asked).encode(), JSON_TYPE)
    assert status == 400


@pytest.mark.parametrize(
    ("since", "until"), [("0001-01-01", None), (None, "9999-12-31"), ("-1", None), ("1e400", None)]
)
def test_days_beyond_the_calendar_are_refused(live: LiveServer, since: str | None, until: str | None) -> None:
    body = json.dumps({"question": "lamp", "since": since, "until": until}).encode()
    status, message = raw_request(live, "POST", "/api/knowledge/search", body, JSON_TYPE)
    assert (status, "since" in message or "until" in message) == (400, True)


def test_headers_are_bounded_before_they_are_parsed(live: LiveServer) -> None:
    quoted = b'tailor_session="' + b'\\"' * 12_000 + b'"'  # unquoting it took over half a second
    for headers, says in (
        ((("Cookie", quoted),), "Cookie"),
        (tuple((f"X-{n}", b"x" * 1_000) for n in range(40)), "32,768 bytes"),
    ):
        for path in ("/health", "/", "/api/session"):
            status, message = raw_request(live, "GET", path, headers=headers)
            assert (status, says in message) == (400, True)
    assert raw_request(live, "GET", "/health", headers=(("Cookie", b"a=" + b"x" * 8_000),))[0] == 200


# ── the socket ───────────────────────────────────────────────────────────────────────────────────

BAD_FRAMES = (
    '{"type": "send", "request_id": "r", "text": "a\\u0000b"}',
    '{"type": "send", "request_id": "\\u0000", "text": "a"}',
    '{"type": "send", "request_id": "r", "text": "\\ud800"}',
    '{"type": "send", "request_id": "r", "text": "hi", "domain": "\\ud800"}',
    '{"type": "resume", "message_id": "x", "after_seq": ' + HUGE + "}",
    '{"type": "resume", "message_id": "x", "after_seq": NaN}',
    '{"type": "stop", "message_id": "' + "x" * 65 + '"}',
    '{"type": "send", "' + "k" * 100_000 + '": 1}',
    "[" * 10_000 + "]" * 10_000,
    "[" * 150 + "]" * 150,
    HUGE,
    "null",
)


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=lambda frame: frame[:40])
async def test_a_frame_that_cannot_be_stored_is_answered(live: LiveServer, frame: str) -> None:
    async with chat_session(live) as client:
        await client.socket.send(frame)
        error = await client.next()
        assert (error["type"], error["code"]) == ("error", "invalid_input")
        assert len(error["message"]) < 4000
        assert text_of(await client.ask("Still there?")) == "All right."


@pytest.mark.parametrize("headers", [{"Origin": "["}, {"Origin": "http://["}, {"Content-Type": "json"}], ids=str)
async def test_a_handshake_that_cannot_be_read_gets_a_400(live: LiveServer, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(live.ws, additional_headers=headers):
            pass
    assert refused.value.response.status_code == 400
    assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_input"


async def test_a_query_that_cannot_be_read_ends_the_handshake(live: LiveServer) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{live.ws}?a=%ff"):
            pass
    assert refused.value.response.status_code == 400


@pytest.mark.parametrize(
    "extra",
    [
        b"X-Long: " + b"x" * 20_000 + b"\r\n",
        b"".join(b"X-%d: 1\r\n" % n for n in range(200)),
        b"Sec-WebSocket-Key: \xff\r\n",
    ],
)
async def test_a_handshake_that_the_library_cannot_parse_gets_an_answer(live: LiveServer, extra: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    head = b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    writer.write(head + extra + b"\r\n")
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 4"), answer[:80]


# ── the parser alone ─────────────────────────────────────────────────────────────────────────────


def test_what_is_fine_passes_unchanged() -> None:
    document = {"a": [1, -MAX_INTEGER, 1.5, None, True, "한글 🙂 \ufffd\u2028"], "": {"b": []}}
    assert parse_json(json.dumps(document).encode()) == document
    assert parse_json(b'"\\ud83d\\ude42"') == "🙂"


def test_depth_and_number_are_bounded_exactly() -> None:
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parse_json(deepest)
    with pytest.raises(InvalidInput, match=str(MAX_DEPTH)):
        parse_json(b"[" + deepest + b"]")
    most = b"[" + b"0," * (MAX_VALUES - 2) + b"0]"
    assert len(parse_json(most)) == MAX_VALUES - 1
    with pytest.raises(InvalidInput, match=f"{MAX_VALUES:,}"):
        parse_json(most.replace(b"[", b"[0,"))


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Chat.example.org:80", "chat.example.org"),
        ("[::1]:8321", "::1"),
        ("my_container", "my_container"),
        ("[", ""),
        ("", ""),
    ],
)
def test_a_host_is_read_without_its_port(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    "origin", ["null", "https://chat.example.org", "http://[::1]:80", "chrome-extension://abc", "file://"]
)
def test_origins_that_browsers_send_can_be_read(origin: str) -> None:
    check_head("/", b"/", b"a=%ED%95%9C+b&c", [(b"host", b"localhost"), (b"origin", origin.encode())])

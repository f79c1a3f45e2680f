"""Takes apart what clients send: JSON, the request's target and its headers. What no part of the server could store or
send back is refused here, once for all routes and frames, with the name of the field.

Knows nothing of routes, of the models that fields are checked against, or of who is calling.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from pydantic_core import from_json

from server.errors import InvalidInput

MAX_INTEGER = 2**63 - 1  # what SQLite holds
MAX_DEPTH = 64
MAX_VALUES = 100_000  # of one JSON document: checking them takes some 50 ms
MAX_PARAMETERS = 100  # of one query
SHOWN = 60  # characters of a name of the client's own choice, in a message
MAX_HEAD_BYTES = 32 * 1024  # of all headers
MAX_COOKIE_BYTES = 8 * 1024  # parsing quoted cookies takes the square of their length

HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"null|[A-Za-z][A-Za-z0-9+.-]*://(?:[^\s/?#\[\]@\\]+|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?)?")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+*-]+\s*(?:;.*)?", re.ASCII)
_CHARSET = re.compile(r"charset\*?\s*=\s*\"?([^\s\";]*)", re.IGNORECASE)
_UTF_8 = ("utf-8", "utf8", "us-ascii")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Two of these would let two readers of one request see two requests.
_ONCE = frozenset({"host", "origin", "content-type", "content-length", "transfer-encoding", "authorization"})


def parse_json(data: bytes, what: str = "the body") -> Any:
    """One JSON document in UTF-8, of values that can be stored and sent. Raises InvalidInput naming the field."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} is not UTF-8; send JSON text in UTF-8") from error
    try:
        value = from_json(data, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        _name_what_is_no_json(data)
        raise InvalidInput(f"{what} is not JSON: {error}") from error
    _check_values(value)
    return value


def _name_what_is_no_json(data: bytes) -> None:
    """The strict parser tells a line and a column; what Python's own takes, a lone surrogate or NaN, has a field."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    _check_values(value)


def _check_values(document: Any) -> None:
    waiting: list[tuple[tuple[object, ...], Any]] = [((), document)]
    found = 1
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict | list):
            found += len(value)
            if found > MAX_VALUES:
                raise InvalidInput(f"the JSON has more than {MAX_VALUES:,} values; send less at once")
            if len(path) >= MAX_DEPTH:
                raise InvalidInput(f"{_name(path[:3])}: is nested more than {MAX_DEPTH} deep; send a flatter document")
            waiting += _children(path, value)
        else:
            _check_value(path, value)


def _children(path: tuple[object, ...], value: dict[str, Any] | list[Any]) -> Iterable[tuple[tuple[object, ...], Any]]:
    if isinstance(value, list):
        return [((*path, place), child) for place, child in enumerate(value)]
    for key in value:
        check_text("a field's name" if not path else f"a field's name in {_name(path)}", key)
    return [((*path, key), child) for key, child in value.items()]


def _check_value(path: tuple[object, ...], value: object) -> None:
    if isinstance(value, str):
        check_text(_name(path), value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{_name(path)}: is not a finite number; JSON has no Infinity or NaN")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise InvalidInput(f"{_name(path)}: is a number beyond 64 bits; the largest is {MAX_INTEGER}")


def check_text(name: str, text: str) -> None:
    """Raises InvalidInput for what SQLite, JSON or UTF-8 cannot carry."""
    if "\0" in text:
        raise InvalidInput(f"{name}: holds a NUL character (U+0000); remove it")
    if _SURROGATE.search(text):
        raise InvalidInput(f"{name}: is not valid Unicode (a lone surrogate); send UTF-8 text")


def _name(path: tuple[object, ...]) -> str:
    return ".".join(shown(str(part)) for part in path) or "the document"


def shown(name: str) -> str:
    """A name of the client's choice as a message may show it."""
    safe = _CONTROL.sub("?", _SURROGATE.sub("?", name))
    return safe if len(safe) <= SHOWN else f"{safe[:SHOWN]}…"


# ── the head of a request ────────────────────────────────────────────────────────────────────────


def check_head(path: str, raw_path: bytes | None, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """The target and the headers of a request or a handshake. Raises InvalidInput naming what is wrong."""
    decoded = _decoded("the path", raw_path) if raw_path else path
    if not decoded.startswith("/"):
        raise InvalidInput("the path does not begin with '/'; send the path alone, without a host")
    if _CONTROL.search(decoded) or _SURROGATE.search(decoded):
        raise InvalidInput("the path: holds a control character; remove it")
    _check_query(query)
    _check_headers(headers)


def _check_query(query: bytes) -> None:
    parameters = query.split(b"&") if query else []
    if len(parameters) > MAX_PARAMETERS:
        raise InvalidInput(f"the query has more than {MAX_PARAMETERS} parameters; send fewer")
    for parameter in parameters:
        key, _, value = parameter.partition(b"=")
        name = shown(_decoded("a name in the query", key))
        check_text("a name in the query", name)
        check_text(name, _decoded(name, value))


def _decoded(name: str, encoded: bytes) -> str:
    if _BROKEN_ESCAPE.search(encoded):
        raise InvalidInput(f"{name}: holds a '%' that is not followed by two hexadecimal digits; write it as %25")
    try:
        return unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name}: is not UTF-8; percent-encode UTF-8 text") from error


def _check_headers(headers: Iterable[tuple[bytes, bytes]]) -> None:
    headers = list(headers)
    if sum(len(name) + len(raw) for name, raw in headers) > MAX_HEAD_BYTES:
        raise InvalidInput(f"the headers have more than {MAX_HEAD_BYTES:,} bytes together; send less")
    if sum(len(raw) for name, raw in headers if name.lower() == b"cookie") > MAX_COOKIE_BYTES:
        raise InvalidInput(f"the header Cookie has more than {MAX_COOKIE_BYTES:,} bytes; delete this site's cookies")
    single: dict[str, str] = {}
    for raw_name, raw in headers:
        name = raw_name.decode("latin-1").lower()
        try:
            value = raw.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"the header {shown(name)} is not UTF-8") from error
        if _CONTROL.search(value):
            raise InvalidInput(f"the header {shown(name)} holds a control character; remove it")
        if name in _ONCE and name in single:
            raise InvalidInput(f"the header {name} stands there twice; send it once")
        single[name] = value
    _check_known_headers(single)


def _check_known_headers(headers: Mapping[str, str]) -> None:
    host, origin, kind = headers.get("host"), headers.get("origin"), headers.get("content-type")
    if host and not HOST.fullmatch(host):
        raise InvalidInput("the header Host is not a host name with an optional port")
    if origin is not None and not _ORIGIN.fullmatch(origin):
        raise InvalidInput("the header Origin is not an origin such as https://chat.example.org")
    if not re.fullmatch(r"[0-9]{0,18}", headers.get("content-length", "")):
        raise InvalidInput("the header Content-Length is not a number of bytes")
    if kind is not None and not _MEDIA_TYPE.fullmatch(kind):
        raise InvalidInput("the header Content-Type is not a media type such as application/json")
    if any(charset.lower() not in _UTF_8 for charset in _CHARSET.findall(kind or "")):
        raise InvalidInput("the header Content-Type names a charset that is not taken; send UTF-8")


def host_name(host: str) -> str:
    """Without the port, lower case; an IPv6 address without its brackets. '' where there is none."""
    found = HOST.fullmatch(host)
    return found["name"].strip("[]").lower() if found else ""

"""JSON: entries of 'path: value' lines. A small object is one entry; a large one is entered; the items
of a list of objects are entries of their own. The path to an entry is its heading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from server.errors import KnowledgeError
from server.retrieval.decoding import decode
from server.retrieval.documents import BlockKind, Document, DocumentBuilder

_ENTRY_CHARS = 800


def load_json(data: bytes) -> Document:
    try:
        value = json.loads(decode(data))
    except json.JSONDecodeError as error:
        raise KnowledgeError(
            f"not valid JSON: {error.msg}, line {error.lineno}, column {error.colno}"
        ) from error
    builder = DocumentBuilder()
    _add(builder, value, ())
    return builder.build()


def _add(builder: DocumentBuilder, value: Any, path: tuple[str, ...]) -> None:
    if isinstance(value, dict) and _is_large(value):
        scalars = {key: item for key, item in value.items() if not isinstance(item, (dict, list))}
        _entry(builder, scalars, path)
        for key, item in value.items():
            if key not in scalars:
                _add(builder, item, (*path, str(key)))
    elif isinstance(value, list) and (_is_large(value) or any(isinstance(item, dict) for item in value)):
        for number, item in enumerate(value, start=1):
            _add(builder, item, (*path[:-1], f"{path[-1] if path else 'item'} {number}"))
    else:
        _entry(builder, value, path)


def _entry(builder: DocumentBuilder, value: Any, path: tuple[str, ...]) -> None:
    lines = [f"{name}: {text}" if name else text for name, text in _flat(value, "")]
    builder.add("\n".join(lines), path, kind=BlockKind.ROW)


def _is_large(value: Any) -> bool:
    """Over the size of an entry, or a container of records."""
    if isinstance(value, dict) and any(
        isinstance(item, list) and any(isinstance(inner, dict) for inner in item) for item in value.values()
    ):
        return True
    length = 0
    for name, text in _flat(value, ""):
        length += len(name) + len(text) + 3
        if length > _ENTRY_CHARS:
            return True
    return False


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        if all(not isinstance(item, (dict, list)) for item in value):
            yield path, ", ".join(_scalar(item) for item in value)
        else:
            for number, item in enumerate(value, start=1):
                yield from _flat(item, f"{path}.{number}" if path else str(number))
    elif value is not None and value != "":
        yield path, _scalar(value)


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

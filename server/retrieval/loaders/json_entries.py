"""JSON: entries of 'path: value' lines. A small object is one entry; a large one is entered; the items
of a list of objects are entries of their own. The path to an entry is its heading. In JSON lines each line
is such a value, and its entries have that line's number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from server.errors import KnowledgeError
from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import BlockKind, Document, DocumentBuilder

_ENTRY_CHARS = 800


def load_json(data: bytes) -> Document:
    builder = DocumentBuilder()
    _Entries(builder, None).add(_parsed(decode(data), 1), ())
    return builder.build()


def load_json_lines(data: bytes) -> Document:
    builder = DocumentBuilder()
    for number, line in enumerate(decode(data).split("\n"), start=1):
        if line.strip():
            _Entries(builder, (number, number)).add(_parsed(line, number), ())
    return builder.build()


def _parsed(text: str, line: int) -> Any:
    """`line` is where the text begins in its file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise KnowledgeError(
            f"not valid JSON: {error.msg}, line {line - 1 + error.lineno}, column {error.colno}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Entries:
    """Adds entries that are on `lines` of the file."""

    builder: DocumentBuilder
    lines: tuple[int, int] | None

    def add(self, value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict) and _is_large(value):
            scalars = {key: item for key, item in value.items() if not isinstance(item, (dict, list))}
            self._entry(scalars, path)
            for key, item in value.items():
                if key not in scalars:
                    self.add(item, (*path, str(key)))
        elif isinstance(value, list) and (_is_large(value) or any(isinstance(item, dict) for item in value)):
            for number, item in enumerate(value, start=1):
                self.add(item, (*path[:-1], f"{path[-1] if path else 'item'} {number}"))
        else:
            self._entry(value, path)

    def _entry(self, value: Any, path: tuple[str, ...]) -> None:
        lines = [f"{name}: {text}" if name else text for name, text in _flat(value, "")]
        self.builder.add("\n".join(lines), path, kind=BlockKind.ROW, lines=self.lines)


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

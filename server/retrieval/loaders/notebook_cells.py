"""Notebooks (.ipynb): what is written by its headings, code as code, and what the code printed.

Of each output MAX_OUTPUT characters are kept; pictures are counted, not read. Both are said. Runs nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Final

from server.errors import KnowledgeError
from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import Document
from server.retrieval.loaders.markdown_text import load_markdown

MAX_OUTPUT: Final = 4_000
_TERMINAL = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
_FENCE = re.compile(r"`{3,1000}")


def load_notebook(data: bytes) -> Document:
    try:
        notebook = json.loads(decode(data).strip() or "{}")
    except json.JSONDecodeError as error:
        raise KnowledgeError(f"not a notebook: it is not valid JSON (line {error.lineno}: {error.msg})") from error
    if not isinstance(notebook, dict):
        raise KnowledgeError("not a notebook: it holds no cells")
    sheets = notebook.get("worksheets")  # of the format before 4
    cells = notebook.get("cells") or [cell for one in _list(sheets) for cell in _list(_dict(one).get("cells"))]
    language = str(_dict(_dict(notebook.get("metadata")).get("language_info")).get("name") or "")
    writer = _Writer("".join(char for char in language[:40] if char.isalnum()))
    for cell in _list(cells):
        writer.cell(_dict(cell))
    page = load_markdown("\n\n".join(writer.parts).encode("utf-8", "replace"))
    return replace(page, numbered=False, omitted=writer.omitted())


class _Writer:
    """A notebook as one Markdown text."""

    def __init__(self, language: str) -> None:
        self.parts: list[str] = []
        self._language = language
        self._pictures = self._cut = 0

    def omitted(self) -> tuple[str, ...]:
        said = []
        if self._pictures:
            said.append(f"{self._pictures} picture{'s' * (self._pictures > 1)} among the outputs")
        if self._cut:
            said.append(f"the end of {self._cut} output{'s' * (self._cut > 1)} over {MAX_OUTPUT:,} characters")
        return tuple(said)

    def cell(self, cell: dict[str, Any]) -> None:
        kind, source = cell.get("cell_type"), _text(cell.get("source", cell.get("input")))
        if kind == "code":
            self._fenced(source, self._language)
            for output in _list(cell.get("outputs")):
                self._output(_dict(output))
        elif kind == "heading":
            self.parts.append(f"{'#' * max(1, min(int(cell.get('level') or 1), 6))} {' '.join(source.split())}")
        else:
            self.parts.append(source)
            if kind != "raw" and len(_FENCE.findall(source)) % 2:
                self.parts.append("```")  # an open fence ends with its cell

    def _output(self, output: dict[str, Any]) -> None:
        shown = _dict(output.get("data")) or output
        self._pictures += any(str(key).startswith("image/") or key in ("png", "jpeg", "svg") for key in shown)
        text = _text(output.get("text")) or _text(shown.get("text/markdown")) or _text(shown.get("text/plain"))
        if output.get("output_type") in ("error", "pyerr"):
            text = f"{output.get('ename')}: {output.get('evalue')}"
        text = _TERMINAL.sub("", text)
        if len(text) > MAX_OUTPUT:
            self._cut += 1
            text = text[:MAX_OUTPUT]
        self._fenced(text, "")

    def _fenced(self, text: str, language: str) -> None:
        if text.strip():
            fence = "`" * (1 + max((len(one) for one in _FENCE.findall(text)), default=2))
            self.parts.append(f"{fence}{language}\n{text.strip(chr(10))}\n{fence}")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(str(one) for one in value)
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

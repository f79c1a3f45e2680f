"""What a loader returns of a file: its text, and blocks that say which parts of the text belong together.

A block is a slice of the text, so a chunk cut from it can always be found again in the file. Knows
nothing of tokens, embedders or folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from server.errors import KnowledgeError

MAX_CHARS: Final = 64 * 1024 * 1024  # of text in one document
MAX_BLOCKS: Final = 1_000_000
MAX_BLOCK: Final = 50_000  # characters of one block: it is measured as a whole, which costs many times its size
MAX_TITLE: Final = 200  # characters of one heading; each chunk carries its path, so a long one costs many times
MAX_DEPTH: Final = 12  # headings in a path
MAX_HEADER: Final = 1_000  # characters that each part of a split table repeats
MAX_OMITTED: Final = 10  # things said to be left out of one document, …
MAX_OMITTED_CHARS: Final = 200  # … and characters of each
_BLANK_LINES = re.compile(r"\n\s*\n")
_VISIBLE = re.compile(r"\S")


class BlockKind(StrEnum):
    TEXT = "text"  # prose or a list: may be split at sentence ends
    CODE = "code"  # split only between lines
    TABLE = "table"  # split only between lines, and each part repeats the header
    ROW = "row"  # a record that stands alone: never joined with its neighbours


@dataclass(frozen=True, slots=True)
class Block:
    """`text[start:end]` of the document. `lines` or `page` is set where the format has them and they
    cannot be counted from the text. `header` is what every part of a split table repeats."""

    start: int
    end: int
    heading: tuple[str, ...] = ()
    kind: BlockKind = BlockKind.TEXT
    lines: tuple[int, int] | None = None
    page: int | None = None
    header: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """`numbered`: the text is the file's own, line for line, so offsets give line numbers. `omitted`: what of the file
    was not read, each in words for its owner ("pages 2, 3 are pictures")."""

    text: str
    blocks: tuple[Block, ...]
    numbered: bool = False
    omitted: tuple[str, ...] = ()


class DocumentBuilder:
    """Puts extracted pieces of text one after the other and keeps their offsets."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._omitted: dict[str, None] = {}
        self._length = 0

    def add(
        self,
        text: str,
        heading: tuple[str, ...] = (),
        *,
        kind: BlockKind = BlockKind.TEXT,
        lines: tuple[int, int] | None = None,
        page: int | None = None,
        header: str = "",
    ) -> None:
        """Appends a block; text without a visible character is left out. What UTF-8 cannot hold becomes '?'."""
        text = _encodable(text).rstrip()
        if not text.strip():
            return
        if kind is BlockKind.TEXT:
            text = _BLANK_LINES.sub("\n\n", text)
        start = self._length
        self._parts += [text, "\n\n"]
        self._length += len(text) + 2
        heading = tuple(_encodable(part) for part in heading)
        self._blocks.append(Block(start, start + len(text), heading, kind, lines, page, _encodable(header)))

    @property
    def has_text(self) -> bool:
        return bool(self._blocks)

    def omit(self, what: str) -> None:
        """Says what of the file is not read; the same thing is said once."""
        if len(self._omitted) < MAX_OMITTED:
            self._omitted[_encodable(what)[:MAX_OMITTED_CHARS]] = None

    def build(self) -> Document:
        return Document("".join(self._parts), tuple(self._blocks), omitted=tuple(self._omitted))


def bounded(document: Document) -> Document:
    """The same with blocks, headings and headers of a length that can be worked with. Raises KnowledgeError for too
    much."""
    if len(document.text) > MAX_CHARS or len(document.blocks) > MAX_BLOCKS:
        raise KnowledgeError(
            f"holds {len(document.text):,} characters in {len(document.blocks):,} paragraphs or rows, the limits are "
            f"{MAX_CHARS:,} and {MAX_BLOCKS:,}: split the file"
        )
    if not any(map(_is_long, document.blocks)):
        return document
    blocks: list[Block] = []
    for block in document.blocks:
        blocks += _parts(document.text, _shortened(block)) if _is_long(block) else [block]
    return replace(document, blocks=tuple(blocks))


def _is_long(block: Block) -> bool:
    return (
        block.end - block.start > MAX_BLOCK or len(block.heading) > MAX_DEPTH or len(block.header) > MAX_HEADER
        or any(len(title) > MAX_TITLE for title in block.heading)
    )  # fmt: skip


def _parts(text: str, block: Block) -> Iterator[Block]:
    """Cut between lines, else at a space, else anywhere."""
    start = block.start
    while block.end - start > MAX_BLOCK:
        stop = start + MAX_BLOCK
        cut = next((at for mark in "\n " if (at := text.rfind(mark, start + 1, stop)) > 0), stop)
        if part := text[start:cut].rstrip():
            yield replace(block, start=start, end=start + len(part))
        found = _VISIBLE.search(text, cut, block.end)
        start = found.start() if found else block.end
    if start < block.end:
        yield replace(block, start=start)


def _shortened(block: Block) -> Block:
    path = tuple(title if len(title) <= MAX_TITLE else f"{title[: MAX_TITLE - 1]}…" for title in block.heading)
    if len(path) > MAX_DEPTH:
        path = (*path[:2], "…", *path[3 - MAX_DEPTH :])
    return replace(block, heading=path, header=block.header if len(block.header) <= MAX_HEADER else "")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


class HeadingPath:
    """The headings above the current position, by level."""

    def __init__(self) -> None:
        self._stack: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> None:
        while self._stack and self._stack[-1][0] >= level:
            self._stack.pop()
        if title:
            self._stack.append((level, title))

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._stack)

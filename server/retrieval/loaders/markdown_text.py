"""Markdown: headings give the path; fenced code and tables stay whole; the rest is paragraphs.

The text is the file's own, so line numbers hold. A heading line is not part of a block, because every
chunk carries its heading path; a heading with nothing under it becomes a block of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import Block, BlockKind, Document, HeadingPath
from server.words import markdown

_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_LINK = re.compile(r"!?\[([^\[\]]{0,400})\]\([^()]{0,2000}\)")
_NOT_A_TITLE = re.compile(r" {0,3}(?:[-*+>|]|\d+[.)])")


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text.rstrip())


def load_markdown(data: bytes) -> Document:
    text = decode(data)
    return Document(text, tuple(_Parser(text).blocks()), numbered=True)


class _Parser:
    """One pass over the lines; `_at` is the next line."""

    def __init__(self, text: str) -> None:
        self._lines = [_Line(start, line) for start, line in markdown.lines(text)]
        self._fences = dict(markdown.fenced_code(text))  # by their begin, their end
        self._at = 0
        self._headings = HeadingPath()
        self._blocks: list[Block] = []
        self._empty_heading: _Line | None = None  # a heading that nothing has followed yet
        self._empty_level = 0

    def blocks(self) -> list[Block]:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line.text.strip():
                self._at += 1
            elif line.start in self._fences:
                self._add_block(self._fence_end(), BlockKind.CODE)
            elif found := markdown.heading(line.text):
                level, title = found
                self._enter_heading(level, _without_closing(title), self._at + 1)
            elif self._is_table():
                self._add_block(self._table_end(), BlockKind.TABLE)
            else:
                self._paragraph()
        self._flush_empty_heading(0)
        return self._blocks

    def _add_block(self, stop: int, kind: BlockKind) -> None:
        """Lines up to `stop` (outside) become a block."""
        first, last = self._lines[self._at], self._lines[stop - 1]
        header = ""
        if kind is BlockKind.TABLE:
            header = f"{first.text}\n{self._lines[self._at + 1].text}"
        self._empty_heading = None
        self._blocks.append(Block(first.start, last.end, self._headings.path, kind, header=header))
        self._at = stop

    def _enter_heading(self, level: int, title: str, following: int) -> None:
        self._flush_empty_heading(level)
        self._empty_heading, self._empty_level = self._lines[self._at], level
        self._headings.enter(level, _plain(title))
        self._at = following

    def _flush_empty_heading(self, level: int) -> None:
        """A heading followed by a heading of its own level or above has no text: keep its words."""
        if self._empty_heading is not None and level <= self._empty_level and self._headings.path:
            self._blocks.append(Block(self._empty_heading.start, self._empty_heading.end, self._headings.path))
        self._empty_heading = None

    def _paragraph(self) -> None:
        stop = self._at + 1
        while stop < len(self._lines):
            text = self._lines[stop].text
            underline = _SETEXT.match(text)
            if underline and stop == self._at + 1 and not _NOT_A_TITLE.match(self._lines[self._at].text):
                self._enter_heading(1 if "=" in underline[1] else 2, self._lines[self._at].text, stop + 1)
                return
            fenced = self._lines[stop].start in self._fences
            if not text.strip() or markdown.heading(text) or fenced or self._is_table(stop):
                break
            stop += 1
        self._add_block(stop, BlockKind.TEXT)

    def _fence_end(self) -> int:
        end = self._fences[self._lines[self._at].start]
        stop = self._at + 1
        while stop < len(self._lines) and self._lines[stop].start < end:
            stop += 1
        return self._without_blank_end(stop)

    def _without_blank_end(self, stop: int) -> int:
        while stop > self._at + 1 and not self._lines[stop - 1].text.strip():
            stop -= 1
        return stop

    def _is_table(self, at: int | None = None) -> bool:
        at = self._at if at is None else at
        if at + 1 >= len(self._lines) or "|" not in self._lines[at].text:
            return False
        return markdown.is_table_rule(self._lines[at + 1].text)

    def _table_end(self) -> int:
        stop = self._at + 2
        while stop < len(self._lines) and "|" in self._lines[stop].text:
            stop += 1
        return stop


def _without_closing(title: str) -> str:
    """A heading without the '##' that may stand behind it, too."""
    title = title.strip(" \t")
    inner = title.rstrip("#")
    return title if inner and inner[-1] not in " \t" else inner.rstrip(" \t")


def _plain(title: str) -> str:
    """A heading without its markup."""
    title = _LINK.sub(r"\1", title)
    return re.sub(r"[*`]|(?<!\w)_|_(?!\w)", "", title).strip()

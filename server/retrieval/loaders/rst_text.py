"""reStructuredText: section titles give the path; code and tables stay whole; the rest is paragraphs.

The text is the file's own, so line numbers hold. Directives are never executed: nothing is included from elsewhere.
Titles and their order as in the docutils specification, "Sections".
"""

from __future__ import annotations

import re

from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import Block, BlockKind, Document, HeadingPath

_CODE = re.compile(r"\s*\.\. (?:code|code-block|sourcecode|parsed-literal|math|highlight|doctest)::")
_TABLE = re.compile(r"\s*\.\. (?:table|list-table|csv-table)::")
_TARGET = re.compile(r"\.\. (?:_[^:]+:\s*\S*|contents::.*|highlight::.*)$")
_GRID = re.compile(r"\s*\+[-=+]+\+\s*$")
_SIMPLE = re.compile(r"\s*=+(?: +=+)+\s*$")


def load_rst(data: bytes) -> Document:
    text = decode(data)
    return Document(text, tuple(_Parser(text).blocks()), numbered=True)


class _Parser:
    """One pass over the lines; `_at` is the next line."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._at = 0
        self._styles: list[tuple[str, bool]] = []  # of titles, by first use: their levels
        self._headings = HeadingPath()
        self._empty_heading: tuple[int, int] | None = None  # line and level of a title that nothing has followed yet
        self._blocks: list[Block] = []

    def blocks(self) -> list[Block]:
        literal = False  # the last paragraph ended with '::'
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line.strip() or _TARGET.match(line):
                self._at += 1
                continue
            if not self._title():
                if _GRID.match(line) or _SIMPLE.match(line):
                    self._table(_GRID if _GRID.match(line) else _SIMPLE)
                elif _CODE.match(line) or _TABLE.match(line):
                    kind = BlockKind.CODE if _CODE.match(line) else BlockKind.TABLE
                    self._add_block(self._indented_end(self._at + 1, _indent(line)), kind)
                elif literal and line[0] in " \t":
                    self._add_block(self._indented_end(self._at, _indent(line) - 1), BlockKind.CODE)
                else:
                    literal = self._paragraph()
                    continue
            literal = False
        self._flush_empty_heading(0)
        return self._blocks

    # ── titles ───────────────────────────────────────────────────────────────────────────────────

    def _title(self) -> bool:
        """Enters the section whose title is here; passes a line that separates sections."""
        first, second, third = (self._line(self._at + offset) for offset in range(3))
        if _is_adornment(first):
            if second.strip() and not _is_adornment(second) and third.rstrip() == first.rstrip():
                self._enter_heading(second, (first[0], True), 3)
                return True
            if len(first.rstrip()) >= 4 and not second.strip():
                self._at += 1
                return True
            return False
        if first[0] not in " \t" and _is_adornment(second) and len(second.rstrip()) >= min(4, len(first.rstrip())):
            self._enter_heading(first, (second[0], False), 2)
            return True
        return False

    def _enter_heading(self, title: str, style: tuple[str, bool], lines: int) -> None:
        if style not in self._styles:
            self._styles.append(style)
        level = self._styles.index(style)
        self._flush_empty_heading(level)
        self._empty_heading = (self._at + (lines - 2), level)
        self._headings.enter(level, title.strip().replace("``", "").replace("*", ""))
        self._at += lines

    def _flush_empty_heading(self, level: int) -> None:
        """A title followed by one of its own level or above has no text: keep its words."""
        if self._empty_heading is not None and level <= self._empty_heading[1]:
            self._add(self._empty_heading[0], self._empty_heading[0] + 1, BlockKind.TEXT)
        self._empty_heading = None

    # ── blocks ───────────────────────────────────────────────────────────────────────────────────

    def _paragraph(self) -> bool:
        """Whether what follows it is literal."""
        stop = self._at + 1
        while stop < len(self._lines) and self._lines[stop].strip():
            stop += 1
        last = self._lines[stop - 1].rstrip()
        self._add_block(stop, BlockKind.TEXT)
        return last.endswith("::")

    def _table(self, border: re.Pattern[str]) -> None:
        """A grid ends at a blank line, a simple table at the border before one."""
        stop = self._at + 1
        while stop < len(self._lines):
            blank = not self._lines[stop].strip()
            if blank and (border is _GRID or border.match(self._lines[stop - 1])):
                break
            stop += 1
        head = next(
            (at for at in range(self._at + 1, min(stop, self._at + 8))
             if border.match(self._lines[at]) and (border is _SIMPLE or "=" in self._lines[at])), None,
        )  # fmt: skip
        header = "\n".join(self._lines[self._at : head + 1]).rstrip() if head and head < stop - 1 else ""
        self._add_block(stop, BlockKind.TABLE, header)

    def _indented_end(self, start: int, indent: int) -> int:
        stop = start
        while stop < len(self._lines) and (not self._lines[stop].strip() or _indent(self._lines[stop]) > indent):
            stop += 1
        return stop

    def _add_block(self, stop: int, kind: BlockKind, header: str = "") -> None:
        """Lines up to `stop` (outside) become a block."""
        self._empty_heading = None
        self._add(self._at, stop, kind, header)
        self._at = stop

    def _add(self, first: int, stop: int, kind: BlockKind, header: str = "") -> None:
        while not self._lines[stop - 1].strip():
            stop -= 1
        end = self._starts[stop - 1] + len(self._lines[stop - 1].rstrip())
        self._blocks.append(Block(self._starts[first], end, self._headings.path, kind, header=header))

    def _line(self, at: int) -> str:
        return self._lines[at] if at < len(self._lines) else ""


def _is_adornment(line: str) -> bool:
    """A line of one punctuation mark, again and again."""
    line = line.rstrip()
    return len(line) >= 2 and line.isascii() and not line[0].isalnum() and line[0] > " " and set(line) == {line[0]}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())

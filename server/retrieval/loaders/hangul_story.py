"""Hangul documents as both of their formats hold them: paragraphs, and the tables, notes and boxes that hang on them.

Readers of .hwp and .hwpx give these; `add_story` writes them into an outline. Knows neither format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from server.retrieval.loaders.outline import Outline, table_row

COUNTED: Final = "the numbers before paragraphs, which Hangul counts itself"
HEADING_CHARS: Final = 120  # an outline paragraph that is longer is text: offices number whole paragraphs with it
_STYLE = re.compile(r"(?:개요|제목|outline|heading)\s*(\d{1,2})?$", re.IGNORECASE)
_STANDARD_ALT = re.compile(
    r"(?:모두 )?(?:그림|사각형|타원|직선|다각형|곡선|호|표|수식|묶음|글상자|글맵시|개체|OLE|차트|동영상)"
    r"[^.\n]{0,20}입니다"
)


@dataclass(slots=True)
class Paragraph:
    """`level` is 1 … 10 in the outline, 0 outside of it. `parts` follow its text."""

    text: str = ""
    level: int = 0
    parts: list[Table | Inset] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """A merged cell stands once, in its first row. Each cell is its paragraphs."""

    rows: list[list[list[Paragraph]]]
    caption: list[Paragraph] = field(default_factory=list)


@dataclass(slots=True)
class Inset:
    """`label` says what it is where that is not plain ("Footnote"); '' for a box of text."""

    label: str
    paragraphs: list[Paragraph]


def outline_level(style: str) -> int:
    """Of a paragraph with a style of this name; 0: none."""
    found = _STYLE.match(style.strip())
    return min(int(found[1] or 1), 10) if found else 0


def alternative(text: str) -> str:
    """The words that stand for a picture, without those the program writes for every one."""
    return "" if _STANDARD_ALT.match(text.strip()) else text.strip()


def add_story(outline: Outline, paragraphs: Iterable[Paragraph], said: set[str]) -> None:
    """`said` has headers and footers that need no repeating."""
    for paragraph in paragraphs:
        if paragraph.level and len(paragraph.text) <= HEADING_CHARS:
            outline.heading(paragraph.level, paragraph.text)
        else:
            outline.text(paragraph.text.strip())
        for part in paragraph.parts:
            if isinstance(part, Table):
                _add_table(outline, part, said)
            elif not part.label:
                add_story(outline, part.paragraphs, said)
            elif (text := f"{part.label}: {_flat(part.paragraphs)}") not in said and not text.endswith(": "):
                if part.label in ("Header", "Footer"):
                    said.add(text)
                outline.text(text)


def _add_table(outline: Outline, table: Table, said: set[str]) -> None:
    add_story(outline, table.caption, said)
    if sum(map(len, table.rows)) == 1:  # a frame around text
        add_story(outline, table.rows[0][0], said)
        return
    outline.table([_flat(cell) for cell in row] for row in table.rows)


def _flat(paragraphs: list[Paragraph]) -> str:
    return " ".join(" ".join(_texts(paragraphs)).split())


def _texts(paragraphs: list[Paragraph]) -> Iterator[str]:
    for paragraph in paragraphs:
        yield paragraph.text
        for part in paragraph.parts:
            if isinstance(part, Table):
                yield from _texts(part.caption)
                yield " / ".join(filter(None, (table_row([_flat(cell) for cell in row]) for row in part.rows)))
            else:
                text = _flat(part.paragraphs)
                yield f"({part.label}: {text})" if part.label and text else text

"""The rows of one sheet as they are shown: text by column, from XML that is read once and forgotten.

Knows nothing of headers or tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from lxml import etree

from server.retrieval.loaders.office.number_format import is_date, shown_number, shown_text
from server.retrieval.loaders.office.package import attribute, child, local, number_of
from server.retrieval.loaders.sheets.workbook import Style, Workbook, rich_text, unescaped

LAST_COLUMN: Final = 16_384
LAST_ROW: Final = 1_048_576
WORDS: Final = "words"
NUMBER: Final = "number"
DATE: Final = "date"


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    kind: str = WORDS
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """`cells` by column from 0, those with text only."""

    number: int
    cells: dict[int, Cell]
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    """Inclusive; rows from 1, columns from 0."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(slots=True)
class Frame:
    """What a sheet says about its cells beside the rows."""

    merged: list[Area] = field(default_factory=list)
    hidden_columns: list[tuple[int, int]] = field(default_factory=list)
    print_lines: list[str] = field(default_factory=list)

    def hides(self, column: int) -> bool:
        return any(first <= column <= last for first, last in self.hidden_columns)


@dataclass(slots=True)
class Unsaved:
    """Formulas whose values were not saved."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, sheet: str, place: str) -> None:
        self.count += 1
        if len(self.first) < 3:
            self.first.append(f"{sheet}!{place}")


def position(reference: str) -> tuple[int, int] | None:
    """Row and column of "B7"."""
    letters = reference.replace("$", "").rstrip("0123456789")
    digits = reference.replace("$", "")[len(letters) :]
    column = 0
    for letter in letters.upper():
        if not "A" <= letter <= "Z" or column > LAST_COLUMN:
            return None
        column = column * 26 + ord(letter) - ord("A") + 1
    row = number_of(digits)
    return (row, column - 1) if 0 < row <= LAST_ROW and 0 < column <= LAST_COLUMN else None


def area(reference: str) -> Area | None:
    """Of "A2:C4" or "A2"."""
    first, _, last = reference.partition(":")
    start, end = position(first), position(last or first)
    if start is None or end is None:
        return None
    return Area(min(start[0], end[0]), min(start[1], end[1]), max(start[0], end[0]), max(start[1], end[1]))


def column_name(column: int) -> str:
    name, left = "", column + 1
    while left:
        left, rest = divmod(left - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def frame(book: Workbook, part: str) -> Frame:
    """It stands behind the rows, which are passed over."""
    found = Frame()
    for node in book.package.elements(part, "row", "mergeCell", "col", "headerFooter"):
        name = local(node)
        if name == "mergeCell":
            place = area(attribute(node, "ref"))
            if place is not None and (place.top, place.left) != (place.bottom, place.right):
                found.merged.append(place)
        elif name == "col" and attribute(node, "hidden") in ("1", "true") and len(found.hidden_columns) < LAST_COLUMN:
            last = number_of(attribute(node, "max"))
            found.hidden_columns.append((number_of(attribute(node, "min")) - 1, last - 1))
        elif name == "headerFooter":
            found.print_lines += [text for one in node if (text := _print_line(one.text or ""))]
    return found


def rows(book: Workbook, part: str, sheet: str, unsaved: Unsaved) -> Iterator[Row]:
    """Those with text."""
    number = 0
    for node in book.package.elements(part, "row"):
        number = number_of(attribute(node, "r")) or number + 1
        cells: dict[int, Cell] = {}
        column = -1
        for one in node:
            if local(one) != "c":
                continue
            place = position(attribute(one, "r"))
            column = place[1] if place else column + 1
            cell = _cell(book, one)
            if cell.text:
                cells[column] = cell
            elif _has_no_value(one):
                unsaved.add(sheet, f"{column_name(column)}{number}")
        if cells:
            yield Row(number, dict(sorted(cells.items())), attribute(node, "hidden") in ("1", "true"))


def _cell(book: Workbook, node: etree._Element) -> Cell:
    kind, style = node.get("t", "n"), book.style(node.get("s", ""))
    inside, value = child(node, "is"), child(node, "v")
    raw = "" if value is None else (value.text or "")
    if kind == "inlineStr" and inside is not None:
        return _words(rich_text(inside), style)
    if kind == "s":
        place = number_of(raw, -1)
        return _words(book.texts[place] if 0 <= place < len(book.texts) else "", style)
    if kind in ("str", "inlineStr"):
        return _words(unescaped(raw), style)
    if kind == "b":
        text = {"1": "TRUE", "0": "FALSE"}.get(raw, raw)
    elif kind in ("e", "d"):
        text = raw.removesuffix("T00:00:00").replace("T", " ") if kind == "d" else raw
    else:
        text = shown_number(raw, style.code, book.since_1904)
    return Cell(text, DATE if kind == "d" or (kind == "n" and is_date(style.code)) else NUMBER, style.bold)


def _words(text: str, style: Style) -> Cell:
    return Cell(shown_text(text.strip(), style.code) if text.strip() else "", WORDS, style.bold)


def _has_no_value(node: etree._Element) -> bool:
    value = child(node, "v")
    return child(node, "f") is not None and node.get("t") != "str" and (value is None or not value.text)


def _print_line(code: str) -> str:
    """A sheet's header or footer as it is printed, without its codes for fonts, dates and numbers of pages."""
    out, at = [], 0
    while at < len(code):
        if code[at] != "&":
            out.append(code[at])
            at += 1
            continue
        kind = code[at + 1 : at + 2]
        at += 2
        if kind == "&":
            out.append("&")
        elif kind == '"':
            end = code.find('"', at)
            at = len(code) if end < 0 else end + 1
        elif kind == "K":
            at += 6
        elif kind in "LCR":
            out.append(" ")
        elif kind.isdigit():
            while code[at : at + 1].isdigit():
                at += 1
    text = " ".join("".join(out).split())
    return text if any(char.isalpha() for char in text) else ""

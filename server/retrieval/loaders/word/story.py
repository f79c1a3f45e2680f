"""One part of a Word document, such as its body or its footnotes, as lines: paragraphs with their numbers, tables.

Knows nothing of headings or of where the lines go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lxml import etree

from server.retrieval.loaders.office.equations import linear
from server.retrieval.loaders.office.package import attribute, child, is_on, local, number_of
from server.retrieval.loaders.word.numbering import BULLET, Numbering
from server.retrieval.loaders.word.styles import Styles
from server.retrieval.loaders.word.text import Attached, Paragraph, Unread, WordText

_AROUND: Final = ("sdt", "sdtContent", "customXml", "ins", "moveTo", "smartTag")
NOT_CONTENT: Final = ("sectPr", "tblPr", "tblGrid", "trPr", "tcPr", "sdtPr", "sdtEndPr", "customXmlPr", "smartTagPr")


@dataclass(frozen=True, slots=True)
class Item:
    """A paragraph with its number: "" for none, BULLET for a point."""

    paragraph: Paragraph
    label: str
    level: int

    @property
    def text(self) -> str:
        """On one line where it is numbered."""
        text = self.paragraph.text
        return f"{self.label} {text}" if self.label and text else text


class Story:
    def __init__(self, part: str, styles: Styles, numbering: Numbering, unread: Unread) -> None:
        self.part = part
        self._styles, self._numbering = styles, numbering
        self._text = WordText(styles, unread)

    def item(self, node: etree._Element) -> Item:
        paragraph = self._text.paragraph(node)
        place = self._styles.numbered(node)
        label = self._numbering.label(place) if place else ""
        if not label and not place and self._styles.is_list(self._styles.of(node)):
            label = BULLET
        return Item(paragraph, label, place.level if place else 0)

    def lines(self, node: etree._Element, attached: list[Attached]) -> list[str]:
        """Of all that is in it. A table inside is a line a row."""
        found: list[str] = []
        for one in node:
            name = local(one)
            if name == "p":
                item = self.item(one)
                found += [item.text] if item.text else []
                attached += item.paragraph.attached
            elif name == "tbl":
                found += [" / ".join(cell for cell in row if cell) for row in self._rows(one, attached)]
            elif name in ("oMath", "oMathPara"):
                found.append(linear(one))
            elif name not in NOT_CONTENT:
                found += self.lines(one, attached)
        return found

    def table(self, table: etree._Element, attached: list[Attached]) -> tuple[str, str]:
        """A line a row, and those of them that are its header: the rows that say so, else the first."""
        lines: list[str] = []
        headers = 0
        for cells, node in zip(self._rows(table, attached), table_rows(table), strict=True):
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                headers += headers == len(lines) and is_on(child(node, "trPr", "tblHeader"))
                lines.append(" | ".join(cells))
        return "\n".join(lines), "\n".join(lines[: max(headers, 1)])

    def _rows(self, table: etree._Element, attached: list[Attached]) -> list[list[str]]:
        return [
            [*[""] * _columns_before(row), *(self._cell(cell, attached) for cell in row_cells(row))]
            for row in table_rows(table)
        ]

    def _cell(self, cell: etree._Element, attached: list[Attached]) -> str:
        """On one line; nothing where it belongs to the merged cell above it."""
        merge = child(cell, "tcPr", "vMerge")
        if merge is not None and attribute(merge, "val", "continue") == "continue":
            return ""
        return " ".join(" ".join(self.lines(cell, attached)).split())


def table_rows(table: etree._Element) -> list[etree._Element]:
    """With those in content controls and the like; not those of tables inside."""
    return _inside(table, "tr")


def row_cells(row: etree._Element) -> list[etree._Element]:
    return _inside(row, "tc")


def _inside(node: etree._Element, name: str) -> list[etree._Element]:
    found: list[etree._Element] = []
    for one in node:
        if local(one) == name:
            found.append(one)
        elif local(one) in _AROUND:
            found += _inside(one, name)
    return found


def _columns_before(row: etree._Element) -> int:
    before = child(row, "trPr", "gridBefore")
    return 0 if before is None else min(max(number_of(attribute(before, "val")), 0), 63)

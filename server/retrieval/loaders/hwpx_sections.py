"""Hangul's open format (.hwpx, KS X 6101): a ZIP of XML, a part for each section.

What was deleted with changes tracked is left out; pictures are counted, not read. Opens nothing outside of the file.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree.ElementTree import Element

from server.errors import KnowledgeError
from server.retrieval.loaders.document import Document
from server.retrieval.loaders.hangul_story import (
    COUNTED,
    Inset,
    Paragraph,
    Table,
    add_story,
    alternative,
    outline_level,
)
from server.retrieval.loaders.outline import Outline
from server.retrieval.loaders.xml_parts import Package, attribute, local

_SECTION = re.compile(r"Contents/(?:section|masterpage)(\d{1,6})\.xml", re.IGNORECASE)
_LABELS: Final = {
    "header": "Header", "footer": "Footer", "footNote": "Footnote", "endNote": "Endnote", "hiddenComment": "Comment",
}  # fmt: skip
_OBJECTS: Final = {"pic": "pictures", "ole": "embedded objects", "chart": "charts", "video": "videos"}
_SPACES: Final = {"tab": "\t", "lineBreak": "\n", "nbSpace": " ", "fwSpace": " ", "hyphen": "-"}
_WORDS: Final = {  # elements that show an attribute
    "textart": "text", "compose": "composeText", "btn": "caption", "checkBtn": "caption", "radioBtn": "caption",
    "listItem": "displayText",
}  # fmt: skip


def load_hwpx(data: bytes) -> Document:
    package = Package(data, ".hwpx")
    if b"encryption-data" in package.read("META-INF/manifest.xml"):
        raise KnowledgeError("the file is encrypted with a password: save it without one")
    sections = sorted((name for name in package.names if _SECTION.fullmatch(name)), key=_place)
    if not sections:
        raise KnowledgeError("not a .hwpx file: it is damaged or something else (it has no section)")
    reader = _Reader(package.tree("Contents/header.xml"))
    outline, said = Outline(), set[str]()
    for name in sections:
        root = package.tree(name)
        if root is None:
            continue
        found = reader.paragraphs(root)
        if local(root) == "masterPage":
            found = [Paragraph(parts=[Inset("Header", found)])]
        add_story(outline, found, said)
    for what, count in reader.objects.items():
        outline.builder.omit(f"{count} {what if count > 1 else what[:-1]}")
    if reader.numbers:
        outline.builder.omit(COUNTED)
    return outline.build()


def _place(name: str) -> tuple[bool, int]:
    found = _SECTION.fullmatch(name)
    return "masterpage" in name.lower(), int(found[1]) if found else 0


class _Reader:
    """Elements of a section to paragraphs; `objects` counts what is not read."""

    def __init__(self, header: Element | None) -> None:
        self.objects: dict[str, int] = {}
        self._shapes: dict[str, int] = {}
        self._styles: dict[str, int] = {}
        self._counted = set[str]()  # shapes whose paragraphs the program numbers
        self.numbers = False
        self._deleting = False
        for node in header.iter() if header is not None else ():
            if local(node) == "paraPr":
                self._shapes[attribute(node, "id")] = _outline(node)
                if any(local(one) == "heading" and attribute(one, "type") in _COUNTED for one in node.iter()):
                    self._counted.add(attribute(node, "id"))
            elif local(node) == "style":
                name = outline_level(attribute(node, "name")) or outline_level(attribute(node, "engName"))
                self._styles[attribute(node, "id")] = name

    def paragraphs(self, node: Element) -> list[Paragraph]:
        """Those right below an element; what is drawn there gets paragraphs of its own."""
        found: list[Paragraph] = []
        for child in node:
            if local(child) == "p":
                level = self._shapes.get(attribute(child, "paraPrIDRef"), 0)
                paragraph = Paragraph(level=level or self._styles.get(attribute(child, "styleIDRef"), 0))
                self._fill(paragraph, child)
                self.numbers |= bool(paragraph.text.strip()) and attribute(child, "paraPrIDRef") in self._counted
                found.append(paragraph)
            else:
                paragraph = Paragraph()
                self._one(paragraph, child)
                if paragraph.text.strip() or paragraph.parts:
                    found.append(paragraph)
        return found

    def _fill(self, paragraph: Paragraph, node: Element) -> None:
        for child in node:
            self._one(paragraph, child)

    def _one(self, paragraph: Paragraph, child: Element) -> None:
        name = local(child)
        if name == "t":
            paragraph.text += self._text(child)
        elif name == "tbl":
            paragraph.parts.append(self._table(child))
        elif name in _LABELS:
            paragraph.parts.append(Inset(_LABELS[name], self.paragraphs(child)))
        elif name == "fieldBegin":
            if (inside := self.paragraphs(child)) and attribute(child, "type") == "MEMO":
                paragraph.parts.append(Inset("Comment", inside))
        elif name in ("autoNum", "newNum"):
            paragraph.text += attribute(child, "num") if name == "autoNum" else ""
        elif name == "dutmal":
            main, above = (next((one.text or "" for one in child if local(one) == key), "") for key in _RUBY)
            paragraph.text += f"{main} ({above})" if above else main
        elif name == "script":
            paragraph.text += child.text or ""
        elif name == "shapeComment":
            if words := alternative(child.text or ""):
                paragraph.parts.append(Inset("", [Paragraph(words)]))
        elif name in ("subList", "drawText", "caption", "edit", "text"):
            paragraph.text += (child.text or "").strip() if name == "text" else ""
            paragraph.parts.append(Inset("", self.paragraphs(child)))
        else:
            self._other(paragraph, child, name)

    def _other(self, paragraph: Paragraph, child: Element, name: str) -> None:
        if name in _OBJECTS:
            self.objects[_OBJECTS[name]] = self.objects.get(_OBJECTS[name], 0) + 1
        if name in _WORDS and (words := attribute(child, _WORDS[name])):
            paragraph.text = f"{paragraph.text} {words}" if paragraph.text else words
        if name not in ("linesegarray", "parameters"):
            self._fill(paragraph, child)

    def _table(self, node: Element) -> Table:
        table = Table([])
        for child in node:
            if local(child) == "caption":
                table.caption += self.paragraphs(child)
            elif local(child) == "tr":
                table.rows.append([self.paragraphs(cell) for cell in child if local(cell) == "tc"])
        return table

    def _text(self, node: Element) -> str:
        """Of one run; marks of tracked changes stand between its words and may end in another run."""
        pieces = ["" if self._deleting else node.text or ""]
        for child in node:
            name = local(child)
            if name in ("deleteBegin", "deleteEnd"):
                self._deleting = name == "deleteBegin"
            elif not self._deleting:
                pieces.append(_SPACES.get(name, ""))
            pieces.append("" if self._deleting else child.tail or "")
        return "".join(pieces)


_COUNTED: Final = ("OUTLINE", "NUMBER")
_RUBY: Final = ("mainText", "subText")


def _outline(shape: Element) -> int:
    for node in shape.iter():
        if local(node) == "heading" and attribute(node, "type") == "OUTLINE":
            level = attribute(node, "level")
            return 1 + min(int(level), 9) if level.isdigit() else 1
    return 0

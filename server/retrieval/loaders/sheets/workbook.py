"""What the sheets of an Excel file share: their names and states, texts, number formats. Knows nothing of rows."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from server.retrieval.loaders.office.number_format import BUILT_IN
from server.retrieval.loaders.office.package import Package, attribute, child, every, is_on, local, number_of, target_of


@dataclass(frozen=True, slots=True)
class SheetPlace:
    name: str
    part: str
    hidden: bool


@dataclass(frozen=True, slots=True)
class Style:
    """Of a cell: its number format, and whether its text is bold."""

    code: str = "General"
    bold: bool = False


class Workbook:
    def __init__(self, package: Package) -> None:
        self.package = package
        self._part = package.main_part()
        root = package.xml(self._part)
        self._root: etree._Element = root if root is not None else etree.Element("workbook")
        self.since_1904 = is_date_of_1904(self._root)
        self.texts = [text for part in self._parts("sharedStrings") for text in _shared_texts(package, part)]
        self.styles = [style for part in self._parts("styles") for style in _styles(package, part)]

    def _parts(self, kind: str) -> list[str]:
        return self.package.related(self._part, kind)[:1]

    def sheets(self) -> list[SheetPlace]:
        """In the order of their tabs."""
        found, relations = [], self.package.relations(self._part)
        for node in every(self._root, "sheet"):
            part = target_of(relations, node)
            if self.package.has(part):
                hidden = attribute(node, "state", "visible") != "visible"
                found.append(SheetPlace(attribute(node, "name"), part, hidden))
        return found

    def style(self, number: str) -> Style:
        place = number_of(number, -1)
        return self.styles[place] if 0 <= place < len(self.styles) else Style()


def is_date_of_1904(root: etree._Element) -> bool:
    properties = child(root, "workbookPr")
    return properties is not None and attribute(properties, "date1904") in ("1", "true")


def rich_text(node: etree._Element) -> str:
    """Of a cell or a comment: its runs, without the readings that stand above Japanese words."""
    parts: list[str] = []
    for one in node:
        name = local(one)
        if name == "t":
            parts.append(one.text or "")
        elif name == "r":
            parts += [inner.text or "" for inner in one if local(inner) == "t"]
    return unescaped("".join(parts))


def unescaped(text: str) -> str:
    """_x000D_ stands for a character that XML cannot hold."""
    if "_x" not in text:
        return text
    first, *others = text.split("_x")
    out = [first]
    for part in others:
        code = part[:4]
        if part[4:5] == "_" and len(code) == 4 and all(char in "0123456789abcdefABCDEF" for char in code):
            out.append(chr(int(code, 16)) + part[5:])
        else:
            out.append(f"_x{part}")
    return "".join(out)


def _shared_texts(package: Package, part: str) -> list[str]:
    return [rich_text(node) for node in package.elements(part, "si")]


def _styles(package: Package, part: str) -> list[Style]:
    root = package.xml(part)
    if root is None:
        return []
    codes = {number_of(attribute(one, "numFmtId")): attribute(one, "formatCode") for one in every(root, "numFmt")}
    fonts = child(root, "fonts")
    bold = [is_on(child(font, "b")) for font in fonts] if fonts is not None else []
    found = []
    cells = child(root, "cellXfs")
    for one in cells if cells is not None else ():
        number, font = number_of(attribute(one, "numFmtId")), number_of(attribute(one, "fontId"))
        code = codes.get(number) or BUILT_IN.get(number, "General")
        found.append(Style(code, 0 <= font < len(bold) and bold[font]))
    return found

"""OpenDocument (.odt, .odp, .ods): headings, lists, tables, notes, boxes; slides as pages; rows as of .xlsx.

What was deleted with changes tracked is left out; pictures and embedded objects are counted, not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element

from server.errors import KnowledgeError
from server.retrieval.loaders.document import Document
from server.retrieval.loaders.outline import Outline, table_row
from server.retrieval.loaders.sheet_rows import add_rows
from server.retrieval.loaders.xml_parts import Package, attribute, local

MAX_REPEATED: Final = 10_000  # rows or cells that one element stands for
_SKIPPED: Final = frozenset(
    [
        "tracked-changes",
        "forms",
        "sequence-decls",
        "variable-decls",
        "user-field-decls",
        "dde-connection-decls",
        "event-listeners",
        "creator",
        "date",
        "date-string",
        "initials",
        "creator-initials",
        "note-citation",
        "ruby-text",
        "calculation-settings",
        "settings",
        "scripts",
        "page-number",
        "page-count",
        "sheet-name",
        "time",
        "automatic-styles",
        "font-face-decls",
    ]
)
_ASIDE: Final = frozenset(
    [
        "frame",
        "custom-shape",
        "text-box",
        "rect",
        "line",
        "ellipse",
        "circle",
        "polygon",
        "path",
        "connector",
        "caption",
        "g",
        "note",
        "annotation",
        "measure",
        "regular-polygon",
        "polyline",
        "control",
    ]
)
_COUNTED: Final = {
    "image": "pictures",
    "object": "embedded objects",
    "object-ole": "embedded objects",
    "plugin": "videos",
}


def load_odt(data: bytes) -> Document:
    package, body = _opened(data, ".odt")
    writer = _Writer(package)
    writer.edges()
    writer.blocks(body)
    return writer.done()


def load_odp(data: bytes) -> Document:
    package, body = _opened(data, ".odp")
    writer = _Writer(package)
    writer.edges()
    pages = [node for node in body.iter() if local(node) == "page"]
    for number, page in enumerate(pages, start=1):
        writer.slide(page, number)
    return writer.done()


def load_ods(data: bytes) -> Document:
    package, body = _opened(data, ".ods")
    writer = _Writer(package)
    writer.edges()
    for table in body.iter():
        if local(table) == "table":
            add_rows(writer.outline.builder, attribute(table, "name"), writer.sheet(table))
            for child in table:
                if local(child) == "shapes":
                    writer.outline.builder.add(writer.flat(child), (attribute(table, "name"),))
    return writer.done()


def _opened(data: bytes, ending: str) -> tuple[Package, Element]:
    package = Package(data, ending)
    if b"encryption-data" in package.read("META-INF/manifest.xml"):
        raise KnowledgeError("the file is encrypted with a password: save it without one")
    content = package.tree("content.xml")
    body = next((node for node in content if local(node) == "body"), None) if content is not None else None
    if body is None:
        raise KnowledgeError(f"not a {ending} file: it is damaged or something else (it has no content)")
    return package, body


class _Writer:
    """Elements to blocks of an outline; counts what is not read."""

    def __init__(self, package: Package) -> None:
        self.outline = Outline()
        self._package = package
        self._objects: dict[str, int] = {}

    def done(self) -> Document:
        for what, count in self._objects.items():
            self.outline.builder.omit(f"{count} {what if count > 1 else what[:-1]}")
        return self.outline.build()

    def edges(self) -> None:
        """Headers and footers, each text once; on slides, what the master has for all of them."""
        styles = self._package.tree("styles.xml")
        said = dict[str, None]()
        for master in styles.iter() if styles is not None else ():
            if local(master) == "master-page":
                for node in master:
                    if local(node) in _ASIDE and attribute(node, "class") in _MASTERS and (text := self.flat(node)):
                        said[f"{attribute(node, 'class').capitalize() or 'Master'}: {text}"] = None
        for node in styles.iter() if styles is not None else ():
            label = _EDGES.get(local(node))
            if label and (text := self.flat(node)) not in _NO_EDGE:
                said[f"{label}: {text}"] = None
        for text in said:
            self.outline.text(text)

    def blocks(self, parent: Element, depth: int = 0) -> None:
        for node in parent:
            name = local(node)
            if name == "h":
                level = attribute(node, "outline-level")
                self._paragraph(node, int(level) if level.isdigit() else 1)
            elif name == "p":
                self._paragraph(node)
            elif name == "list":
                self._list(node, 0)
            elif name == "table":
                self._table(node)
            elif name == "note":
                self._labelled("Endnote" if attribute(node, "note-class") == "endnote" else "Footnote", node)
            elif name == "annotation":
                self._labelled("Comment", node)
            elif name in ("title", "desc"):
                self.outline.text((node.text or "").strip())
            elif name not in _SKIPPED:
                self._count(node)
                self.blocks(node, depth + 1)

    def slide(self, page: Element, number: int) -> None:
        self.outline.restart()
        self.outline.page = number
        for node in page:
            if local(node) == "notes":
                if self.flat(node):
                    self.outline.heading(2, "Notes")
                    self.blocks(node)
            elif attribute(node, "class") == "title":
                self.outline.heading(1, self.flat(node))
            else:
                self.blocks(node)
        self.outline.end_page()

    def sheet(self, table: Element) -> Iterator[tuple[int, list[str]]]:
        """Rows with their numbers. A cell that is merged downwards counts in each of its rows."""
        number, below = 1, dict[int, tuple[str, int]]()  # by column: a merged cell's text, and the rows it still covers
        for row in _rows(table):
            fields: list[str] = []
            for cell in row:
                times = _number(cell, "number-columns-repeated")
                if local(cell) == "covered-table-cell":
                    for column in range(len(fields), len(fields) + min(times, MAX_REPEATED)):
                        text, left = below.pop(column, ("", 0))
                        if left > 1:
                            below[column] = (text, left - 1)
                        fields.append(text)
                elif local(cell) == "table-cell":
                    text = self.flat(cell)
                    if text and (spanned := _number(cell, "number-rows-spanned")) > 1:
                        below[len(fields)] = (text, spanned - 1)
                    fields += [text] * min(times, MAX_REPEATED)
            times = _number(row, "number-rows-repeated")
            filled = any(fields)
            if filled and times > MAX_REPEATED:
                self.outline.builder.omit(f"the repetition of row {number}, which stands {times:,} times")
            for one in range(number, number + min(times, MAX_REPEATED)) if filled else ():
                yield one, fields
            number += times

    def flat(self, parent: Element) -> str:
        """All its words on one line."""
        return " ".join(" ".join(self._pieces(parent)).split())

    # ── parts ────────────────────────────────────────────────────────────────────────────────────

    def _paragraph(self, node: Element, level: int = 0) -> None:
        text, aside = self._inline(node)
        if level:
            self.outline.heading(level, text)
        else:
            self.outline.text(text.strip())
        self._add_aside(aside)

    def _add_aside(self, aside: list[Element]) -> None:
        for node in aside:
            holder = Element("aside")
            holder.append(node)
            self.blocks(holder)

    def _list(self, node: Element, depth: int) -> None:
        for item in node:
            for child in item:
                name = local(child)
                if name == "list":
                    self._list(child, depth + 1)
                elif name in ("p", "h"):
                    text, aside = self._inline(child)
                    if name == "h":
                        level = attribute(child, "outline-level")
                        self.outline.heading(int(level) if level.isdigit() else 1, text)
                    else:
                        self.outline.item(text, depth)
                    self._add_aside(aside)

    def _table(self, node: Element) -> None:
        rows = [[cell for cell in row if local(cell) == "table-cell"] for row in _rows(node)]
        if sum(map(len, rows)) == 1:  # a frame around text
            self.blocks(next(row[0] for row in rows if row))
        else:
            self.outline.table([self.flat(cell) for cell in row] for row in rows)

    def _labelled(self, label: str, node: Element) -> None:
        if text := self.flat(node):
            mark = next(
                (" ".join("".join(one.itertext()).split()) for one in node if local(one) == "note-citation"), ""
            )
            self.outline.text(f"{label}{f' {mark}' if mark else ''}: {text}")

    def _inline(self, node: Element) -> tuple[str, list[Element]]:
        """The words of a paragraph, and what hangs on it."""
        pieces, aside = [node.text or ""], list[Element]()
        for child in node:
            name = local(child)
            if name in _ASIDE:
                aside.append(child)
            elif name not in _SKIPPED:
                pieces.append(_space(child))
                text, inner = self._inline(child)
                pieces.append(text)
                aside += inner
            elif name == "ruby-text" and child.text:
                pieces.append(f" ({child.text})")
            pieces.append(child.tail or "")
        return "".join(pieces), aside

    def _pieces(self, parent: Element) -> Iterator[str]:
        for node in parent:
            name = local(node)
            if name in ("p", "h"):
                text, aside = self._inline(node)
                yield text
                for one in aside:
                    label = {"note": "Note: ", "annotation": "comment: "}.get(local(one), "")
                    self._count(one)
                    if words := " ".join(self._pieces(one)):
                        yield f"({label}{words})" if label else words
            elif name == "table":
                yield " / ".join(
                    filter(None, (table_row([self.flat(one) for one in row if local(one) == "table-cell"])
                                  for row in _rows(node)))
                )  # fmt: skip
            elif name in ("title", "desc"):
                yield node.text or ""
            elif name == "annotation":
                yield f"(comment: {' '.join(self._pieces(node))})"
            elif name not in _SKIPPED:
                self._count(node)
                yield from self._pieces(node)

    def _count(self, node: Element) -> None:
        """A formula is read as it was typed; other objects are not."""
        name = local(node)
        if name == "object" and (inside := attribute(node, "href").removeprefix("./")):
            tree = self._package.tree(f"{inside}/content.xml")
            if tree is not None and local(tree) == "math":
                typed = next((one.text or "" for one in tree.iter() if local(one) == "annotation"), "")
                self.outline.text(typed or " ".join(" ".join(tree.itertext()).split()))
                return
        if name == "image" and self._objects.get("embedded objects") and "Replacements" in attribute(node, "href"):
            return
        if name in _COUNTED:
            self._objects[_COUNTED[name]] = self._objects.get(_COUNTED[name], 0) + 1


_NO_EDGE: Final = ("", "Page", "Page /")  # what is left where a number of a page stood
_MASTERS: Final = ("", "header", "footer")  # the others ask for a title and the like
_EDGES: Final = {f"{edge}{on}": edge.capitalize() for edge in ("header", "footer") for on in ("", "-left", "-first")}


def _space(node: Element) -> str:
    name = local(node)
    if name == "s":
        return " " * min(_number(node, "c"), 100)
    return {"tab": "\t", "line-break": "\n"}.get(name, "")


def _rows(table: Element) -> Iterator[Element]:
    """Also those in groups and headers; not those of tables inside of cells."""
    for node in table:
        name = local(node)
        if name == "table-row":
            yield node
        elif name in ("table-rows", "table-header-rows", "table-row-group"):
            yield from _rows(node)


def _number(node: Element, name: str) -> int:
    value = attribute(node, name)
    return max(1, int(value)) if value.isdigit() and len(value) < 9 else 1

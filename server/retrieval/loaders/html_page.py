"""HTML: the visible text by block elements, with headings as the path.

Scripts, styles and navigation are left out. Works over the flat order of the page's strings, so
depth of nesting costs no stack.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PreformattedString, Tag

from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import BlockKind, Document, DocumentBuilder, HeadingPath

_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_HIDDEN = ["script", "style", "noscript", "template", "svg", "nav", "head", "title", "iframe", "object"]
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *_HEADINGS, "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "legend", "li", "main", "ol", "p",
    "pre", "section", "summary", "table", "ul",
}  # fmt: skip


def load_html(data: bytes) -> Document:
    declared = _CHARSET.search(data[:4096])
    text = decode(data, declared[1].decode("ascii", "ignore") if declared else None)
    soup = BeautifulSoup(text, "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for hidden in soup(_HIDDEN):
        hidden.extract()
    page = _Page(title)
    for node in soup.descendants:
        if isinstance(node, Tag):
            page.tag(node)
        elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            page.string(node)
    return page.finish()


class _Page:
    """Collects strings until the block element around them changes."""

    def __init__(self, title: str) -> None:
        self._builder = DocumentBuilder()
        self._headings = HeadingPath()
        self._headings.enter(0, title)
        self._title = title
        self._block: Tag | None = None
        self._strings: list[str] = []
        self._items: list[str] = []  # neighbouring list items, kept together

    def tag(self, tag: Tag) -> None:
        if tag.name == "br" and self._strings:
            self._strings.append("\n")
        elif tag.name in ("td", "th") and self._strings:
            self._strings.append(" | " if tag.find_previous_sibling(["td", "th"]) else "\n")

    def string(self, node: NavigableString) -> None:
        block = _enclosing_block(node)
        if block is not self._block:
            self._flush()
            self._block = block
        self._strings.append(str(node))

    def finish(self) -> Document:
        self._flush()
        self._flush_items()
        return self._builder.build()

    def _flush(self) -> None:
        block, raw = self._block, "".join(self._strings)
        self._strings = []
        if block is None or not raw.strip():
            return
        name = block.name
        if name == "li":
            self._items.append(f"- {_spaced(raw)}")
            return
        self._flush_items()
        if name in _HEADINGS:
            self._enter(_HEADINGS[name], " ".join(raw.split()))
        elif name == "table":
            self._add_table(raw)
        elif name == "pre":
            self._builder.add(raw.strip("\n"), self._headings.path, kind=BlockKind.CODE)
        else:
            self._builder.add(_spaced(raw), self._headings.path)

    def _flush_items(self) -> None:
        self._builder.add("\n".join(self._items), self._headings.path)
        self._items = []

    def _enter(self, level: int, title: str) -> None:
        """The page's title is the path's first part unless a heading says the same."""
        self._headings.enter(level, title)
        if title == self._title:
            self._headings = HeadingPath()
            self._headings.enter(level, title)

    def _add_table(self, raw: str) -> None:
        rows = [re.sub(r"\s*\|\s*", " | ", " ".join(row.split())).strip(" |") for row in raw.split("\n")]
        rows = [row for row in rows if row]
        self._builder.add("\n".join(rows), self._headings.path, kind=BlockKind.TABLE, header=rows[0])


def _enclosing_block(node: NavigableString) -> Tag | None:
    for parent in node.parents:
        if parent.name in _BLOCKS or parent.name == "[document]":
            return parent
    return None


def _spaced(raw: str) -> str:
    """Single spaces; line breaks only where <br> put them."""
    return "\n".join(filter(None, (" ".join(line.split()) for line in raw.split("\n"))))

"""HTML: the visible text by block elements, with headings as the path.

Scripts, styles and what is hidden are left out, and navigation where it is not most of the page. Works over the flat
order of the page's strings, so depth of nesting costs no stack. Follows no link and runs nothing.
"""

from __future__ import annotations

import re
from typing import Final

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PageElement, PreformattedString, Tag

from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import BlockKind, Document
from server.retrieval.loaders.outline import Outline, table_row

_CHARSET = re.compile(
    rb"""(?:charset\s{0,9}=\s{0,9}|^\s{0,99}<\?xml[^>]{0,200}\sencoding\s{0,9}=\s{0,9})["']?\s{0,9}([\w.:-]{1,40})""",
    re.IGNORECASE,
)
_UNSHOWN: Final = ["script", "style", "noscript", "template", "title", "meta", "link", "base", "datalist"]
_HIDDEN_STYLE = re.compile(r"(?:^|[;\s])(?:display\s{0,9}:\s{0,9}none|visibility\s{0,9}:\s{0,9}hidden)", re.IGNORECASE)
_OPEN_ENDED: Final = {
    "p",
    "li",
    "dt",
    "dd",
    "option",
    "tr",
    "td",
    "th",
}  # without an end tag they seem to hold the rest
_BAD_END = re.compile(r"</(script|style|title|textarea)\s[^<>]{0,200}>", re.IGNORECASE)  # the parser reads over these
_WHITESPACE = re.compile(r"\s+")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *_HEADINGS, "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "legend", "li", "main", "nav",
    "ol", "p", "pre", "section", "summary", "table", "ul",
}  # fmt: skip
_APART: Final = {
    "option",
    "optgroup",
    "button",
    "textarea",
    "select",
    "label",
    "text",
}  # words beside words, without a space
_FIELDS: Final = {"img", "input", "area"}
_UNSEEN_INPUTS: Final = {"hidden", "password", "checkbox", "radio", "file", "color", "range"}


def load_html(data: bytes, declared: str | None = None) -> Document:
    """`declared` is the encoding that whoever sent the page says; else the page's own word counts."""
    named = _CHARSET.search(data[:4096])
    text = decode(data, declared or (named[1].decode("ascii", "ignore") if named else None))
    soup = BeautifulSoup(_BAD_END.sub(r"</\1>", text), "html.parser")
    title = " ".join(soup.title.get_text(" ", strip=True).split()) if soup.title else ""
    page = _Page(title)
    page.captions = _prepare(soup, page.outline)
    for node in soup.descendants:
        if isinstance(node, Tag):
            page.tag(node)
        elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            page.string(node, str(node))
    return page.finish()


# ── before the text is collected ─────────────────────────────────────────────────────────────────


def _prepare(soup: BeautifulSoup, outline: Outline) -> dict[int, str]:
    """Takes out what is not shown, and makes each table the lines of its rows. Returns the captions of tables."""
    for unshown in soup(_UNSHOWN):
        unshown.extract()
    for tag in soup(_is_hidden):
        _take_out(tag)
    if frames := len(soup("iframe", src=True)):
        outline.builder.omit(f"{frames} {'pages' if frames > 1 else 'page'} shown in a frame (iframe)")
    _take_out_navigation(soup)
    captions = {}
    for table in soup("table"):
        if table.find("table") is None and (caption := _lay_out(table)):
            captions[id(table)] = caption
    return captions


def _take_out_navigation(soup: BeautifulSoup) -> None:
    """Unless it holds more than the rest of the page."""
    outer, inner = list[Tag](), set[int]()
    for nav in soup("nav"):
        if id(nav) not in inner:
            outer.append(nav)
            inner.update(id(one) for one in nav("nav"))
    inside = sum(_visible(nav) for nav in outer)
    if inside <= _visible(soup) - inside:
        for nav in outer:
            nav.extract()


def _visible(tag: Tag) -> int:
    return sum(len(string.strip()) for string in tag.strings)


def _is_hidden(tag: Tag) -> bool:
    return tag.has_attr("hidden") or bool(tag.has_attr("style") and _HIDDEN_STYLE.search(str(tag["style"])))


def _take_out(tag: Tag) -> None:
    if tag.name not in _OPEN_ENDED:
        tag.extract()
        return
    for child in list(tag.children):
        if isinstance(child, Tag) and (child.name == tag.name or child.name in _BLOCKS):
            return
        child.extract()


def _words_of(tag: Tag) -> str:
    """What stands for a picture, or in a field of a form."""
    if tag.name != "input":
        return " ".join(str(tag.get("alt") or "").split())
    return (
        "" if str(tag.get("type", "text")).lower() in _UNSEEN_INPUTS else " ".join(str(tag.get("value") or "").split())
    )


def _lay_out(table: Tag) -> str:
    """A table without tables in it becomes lines of text, unless it holds code or headings. Rows and cells are told by
    their begin, since their end tags are often left out. Returns what stands outside of the cells."""
    if table.find(["pre", *_HEADINGS]) is not None:
        return ""
    outside, rows = list[str](), list[list[list[str]]]()
    first = table.find("caption")
    captions = (
        {id(node) for node in first.descendants} if isinstance(first, Tag) and first.find("tr") is None else set()
    )
    for node in table.descendants:
        if isinstance(node, Tag) and node.name == "tr":
            rows.append([])
        elif isinstance(node, Tag) and node.name in ("td", "th"):
            rows = rows or [[]]
            rows[-1].append([])
        elif words := _words(node):
            (rows[-1][-1] if rows and rows[-1] and id(node) not in captions else outside).append(words)
    lines = [line for row in rows if (line := table_row(["".join(cell) for cell in row]))]
    table.clear()
    table.append("\n".join(lines))
    return " ".join("".join(outside).split())


def _words(node: PageElement) -> str:
    """What a node shows in a cell; a space for what parts words."""
    if isinstance(node, Tag):
        return f" {_words_of(node)} " if node.name in _FIELDS else " " if node.name in (*_BLOCKS, *_APART, "br") else ""
    return str(node) if isinstance(node, NavigableString) and not isinstance(node, PreformattedString) else ""


# ── the text ─────────────────────────────────────────────────────────────────────────────────────


class _Page:
    """Collects strings until the block element around them changes."""

    def __init__(self, title: str) -> None:
        self.outline = Outline()
        self.outline.heading(0, title)
        self.captions: dict[int, str] = {}
        self._title = title
        self._block: Tag | None = None
        self._strings: list[str] = []

    def tag(self, tag: Tag) -> None:
        if tag.name == "br" and self._strings:
            self._strings.append("\n")
        elif tag.name in ("td", "th") and self._strings:
            self._strings.append(" | " if tag.find_previous_sibling(["td", "th"]) else "\n")
        elif tag.name in _FIELDS and (words := _words_of(tag)):
            self.string(tag, f" {words} ")
        elif tag.name in _APART and self._strings:
            self._strings.append(" ")
        elif id(tag) in self.captions:
            self._flush()
            self.outline.text(self.captions[id(tag)])

    def string(self, node: PageElement, text: str) -> None:
        block = _enclosing_block(node)
        if block is not self._block:
            self._flush()
            self._block = block
        spaced = block is not None and block.name not in ("pre", "table")
        self._strings.append(_WHITESPACE.sub(" ", text) if spaced else text)

    def finish(self) -> Document:
        self._flush()
        return self.outline.build()

    def _flush(self) -> None:
        block, raw = self._block, "".join(self._strings)
        self._strings = []
        if block is None or not raw.strip(" |\n\t\r"):
            return
        name = block.name
        if name == "li":
            self.outline.item(_spaced(raw))
        elif name in _HEADINGS:
            self._enter(_HEADINGS[name], " ".join(raw.split()))
        elif name == "table":
            self._add_table(raw)
        elif name == "pre":
            self.outline.text(raw.strip("\n"), BlockKind.CODE)
        else:
            self.outline.text(_spaced(raw))

    def _enter(self, level: int, title: str) -> None:
        """The page's title is the path's first part unless a heading says the same."""
        if title == self._title:
            self.outline.restart()
        self.outline.heading(level, title)

    def _add_table(self, raw: str) -> None:
        rows = [re.sub(r"\s*\|\s*", " | ", " ".join(row.split())).strip(" |") for row in raw.split("\n")]
        self.outline.lines(rows)


def _enclosing_block(node: PageElement) -> Tag | None:
    for parent in node.parents:
        if parent.name in _BLOCKS or parent.name == "[document]":
            return parent
    return None


def _spaced(raw: str) -> str:
    """Single spaces; line breaks only where <br> put them."""
    return "\n".join(filter(None, (" ".join(line.split()) for line in raw.split("\n"))))

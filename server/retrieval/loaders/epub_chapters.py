"""E-books (.epub): the chapters in reading order, each as the page it is, under the book's title.

A book with copy protection is refused. Opens nothing outside of the file.
"""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import Final
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from server.errors import KnowledgeError
from server.retrieval.loaders.document import Document, DocumentBuilder
from server.retrieval.loaders.html_page import load_html
from server.retrieval.loaders.outline import add_document
from server.retrieval.loaders.xml_parts import Package, attribute, local

_NOT_DAMAGED: Final = "not a .epub file: it is damaged or something else"
_PAGES: Final = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")


def load_epub(data: bytes) -> Document:
    book = Package(data, ".epub")
    description = _description(book)
    opf = book.tree(description)
    if opf is None:
        raise KnowledgeError(f"{_NOT_DAMAGED} (it has no table of its parts)")
    items = {attribute(node, "id"): node for node in opf.iter() if local(node) == "item"}
    spine = [attribute(node, "idref") for node in opf.iter() if local(node) == "itemref"]
    chapters = [items[name] for name in dict.fromkeys(spine) if name in items]
    names = [_inside(description, attribute(node, "href")) for node in chapters]
    _check_protection(book, names)
    title = next((" ".join((node.text or "").split()) for node in opf.iter() if local(node) == "title"), "")
    builder, missing = DocumentBuilder(), 0
    for node, name in zip(chapters, names, strict=True):
        page = book.read(name)
        missing += not page
        if page and attribute(node, "media-type") in (*_PAGES, ""):
            add_document(builder, _without(load_html(page), title), (title,) if title else ())
    if missing:
        builder.omit(f"{missing} chapters that the book names and does not hold")
    return builder.build()


def _description(book: Package) -> str:
    """The name of the part that lists the others."""
    container = book.tree("META-INF/container.xml")
    for node in container.iter() if container is not None else ():
        if local(node) == "rootfile" and attribute(node, "full-path"):
            return attribute(node, "full-path")
    return next((name for name in book.names if name.endswith(".opf")), "")


def _inside(description: str, href: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(description), unquote(href.partition("#")[0])))


def _check_protection(book: Package, chapters: list[str]) -> None:
    """Fonts may be scrambled; a scrambled chapter is protection."""
    encryption: Element | None = book.tree("META-INF/encryption.xml")
    locked = {unquote(attribute(node, "URI")) for node in encryption.iter()} if encryption is not None else set()
    if locked & set(chapters):
        raise KnowledgeError("the book has copy protection (DRM), so its text is locked")


def _without(page: Document, title: str) -> Document:
    """Chapters often repeat the book's title as their own."""
    if not title:
        return page
    blocks = [
        replace(block, heading=block.heading[1:]) if block.heading[:1] == (title,) else block for block in page.blocks
    ]
    return replace(page, blocks=tuple(blocks))

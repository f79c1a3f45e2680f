"""The text of a Word paragraph as a reader sees it, and what hangs on it: text boxes, notes, comments, charts.

Insertions count, deletions do not. Of a field the result counts; of a ruby its base, with the reading in brackets; what
is formatted as hidden is not shown, and is counted. Knows nothing of headings, lists or tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from lxml import etree

from server.retrieval.loaders.office.drawings import keep_one_alternative
from server.retrieval.loaders.office.equations import linear
from server.retrieval.loaders.office.package import attribute, child, is_on, local
from server.retrieval.loaders.word.fields import NUMBER, SHOWN, mark_fields
from server.retrieval.loaders.word.styles import Styles
from server.retrieval.loaders.word.symbols import symbol

_DELETED: Final = ("del", "moveFrom")
_SKIPPED: Final = frozenset(
    ("pPr", "rPr", "sdtPr", "sdtEndPr", "instrText", "delText", "rt", "tblPr", "trPr", "tcPr", "sectPr", "ffData")
)
_PLAIN: Final = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}


@dataclass(frozen=True, slots=True)
class Attached:
    """Something that hangs on a paragraph. `kind` is the element's name; `node` is where it is or is referred to."""

    kind: str
    node: etree._Element


@dataclass(slots=True)
class Paragraph:
    parts: list[str] = field(default_factory=list)
    attached: list[Attached] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Without spaces at the ends of its lines."""
        return "\n".join(line.strip() for line in "".join(self.parts).split("\n")).strip()


@dataclass(slots=True)
class Unread:
    """What is in the document and is not text."""

    hidden: int = 0  # characters
    pictures: int = 0
    embedded: int = 0
    symbols: set[str] = field(default_factory=set)  # fonts whose signs have no letter


def prepare(root: etree._Element) -> etree._Element:
    """A part's tree with each thing once, without what was deleted, and with its fields known."""
    for node in [*root.iter("{*}tr", "{*}tc")]:
        parent = node.getparent()
        if parent is not None and (
            child(node, "trPr", "del") is not None or child(node, "tcPr", "cellDel") is not None
        ):
            parent.remove(node)
    keep_one_alternative(root, *_DELETED)
    mark_fields(root)
    return root


class WordText:
    """Reads the paragraphs of one part, in their order: a field may reach over several."""

    def __init__(self, styles: Styles, unread: Unread) -> None:
        self._styles, self._unread = styles, unread
        self._in_code: set[str] = set()  # fields whose code is being passed
        self._handlers: dict[str, Callable[[etree._Element, Paragraph], None]] = {
            "t": self._text, "r": self._run, "fldChar": self._field, "ruby": self._ruby, "sym": self._symbol,
            "oMath": self._equation, "textpath": self._word_art, "blip": self._picture, "imagedata": self._picture,
            "object": self._object, "txbxContent": self._attach, "footnoteReference": self._attach,
            "endnoteReference": self._attach, "commentReference": self._attach, "chart": self._attach,
            "relIds": self._attach,
        }  # fmt: skip

    def paragraph(self, node: etree._Element) -> Paragraph:
        found = Paragraph()
        self._walk(node, found)
        return found

    def _walk(self, node: etree._Element, out: Paragraph) -> None:
        for one in node:
            name = local(one)
            handler = self._handlers.get(name)
            if handler:
                handler(one, out)
            elif name in _PLAIN:
                self._put(_PLAIN[name], out)
            elif name not in _SKIPPED:
                self._walk(one, out)

    def _put(self, text: str, out: Paragraph) -> None:
        if not self._in_code:
            out.parts.append(text)

    def _text(self, node: etree._Element, out: Paragraph) -> None:
        self._put(node.text or "", out)

    def _run(self, node: etree._Element, out: Paragraph) -> None:
        if self._is_hidden(node):
            self._unread.hidden += sum(len(one.text or "") for one in node if local(one) == "t")
            for one in node:
                if local(one) == "fldChar":
                    self._field(one, out)
            return
        self._walk(node, out)

    def _is_hidden(self, run: etree._Element) -> bool:
        properties = child(run, "rPr")
        if properties is None:
            return False
        own, style = child(properties, "vanish"), child(properties, "rStyle")
        if own is not None:
            return is_on(own)
        return style is not None and self._styles.is_hidden(attribute(style, "val"))

    def _field(self, node: etree._Element, out: Paragraph) -> None:
        number = node.get(NUMBER)
        if number is None:
            return
        if attribute(node, "fldCharType") == "begin":
            self._put(node.get(SHOWN, ""), out)
            self._in_code.add(number)
        else:
            self._in_code.discard(number)

    def _ruby(self, node: etree._Element, out: Paragraph) -> None:
        base, reading = Paragraph(), Paragraph()
        for one in node:
            if local(one) == "rubyBase":
                self._walk(one, base)
            elif local(one) == "rt":
                self._walk(one, reading)
        above = reading.text
        self._put(f"{base.text}({above})" if above else base.text, out)
        out.attached += base.attached

    def _symbol(self, node: etree._Element, out: Paragraph) -> None:
        font = attribute(node, "font")
        sign = symbol(font, attribute(node, "char"))
        if not sign:
            self._unread.symbols.add(font)
        self._put(sign or "�", out)

    def _equation(self, node: etree._Element, out: Paragraph) -> None:
        before = out.parts[-1][-1:] if out.parts else ""
        self._put(f"{' ' if before.isalnum() else ''}{linear(node)}", out)

    def _word_art(self, node: etree._Element, out: Paragraph) -> None:
        self._put(f" {attribute(node, 'string')} ", out)

    def _picture(self, node: etree._Element, _out: Paragraph) -> None:
        if any(str(key).endswith(("}embed", "}id", "}link")) for key in node.attrib):
            self._unread.pictures += 1

    def _object(self, node: etree._Element, out: Paragraph) -> None:
        if child(node, "OLEObject") is None:
            self._walk(node, out)
        else:
            self._unread.embedded += 1

    def _attach(self, node: etree._Element, out: Paragraph) -> None:
        out.attached.append(Attached(local(node), node))

"""Which paragraphs of a Word document are headings, by their outline level or the name of their style.

An outline level counts in whatever language the style's name is; names count where a program wrote none. Knows nothing
of text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lxml import etree

from server.retrieval.loaders.office.package import attribute, child, is_on, local, number_of

TITLE: Final = 0  # the level of a document's title
_DEEPEST_CHAIN: Final = 30
_TITLES: Final = frozenset(
    (
        "title", "제목", "표제", "タイトル", "表題", "标题", "標題", "titel", "titre", "título", "titolo", "название",
        "заголовок", "otsikko", "tytuł", "název", "başlık", "tittel", "rubrik", "cím", "titlu", "τίτλος", "tiêu đề",
        "judul",
    )
)  # fmt: skip
_HEADINGS: Final = frozenset(
    (
        "heading", "제목", "개요", "見出し", "标题", "標題", "überschrift", "titre", "título", "titolo", "encabezado",
        "заголовок", "kop", "rubrik", "overskrift", "otsikko", "nagłówek", "nadpis", "başlık", "címsor", "titlu",
        "επικεφαλίδα", "tiêu đề", "judul", "หัวเรื่อง", "عنوان", "כותרת",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Numbered:
    """A paragraph's place in a numbering."""

    number: str
    level: int


@dataclass(frozen=True, slots=True)
class _Style:
    name: str
    based_on: str
    properties: etree._Element | None
    hidden: bool | None


class Styles:
    def __init__(self, root: etree._Element | None) -> None:
        self._styles: dict[str, _Style] = {}
        self._default = ""
        self._levels: dict[str, int | None] = {}
        self._chains: dict[str, list[_Style]] = {}
        for node in root if root is not None else ():
            if local(node) == "style":
                self._add(node)

    def _add(self, node: etree._Element) -> None:
        name, based_on = child(node, "name"), child(node, "basedOn")
        vanish = child(node, "rPr", "vanish")
        identity = attribute(node, "styleId")
        self._styles[identity] = _Style(
            "" if name is None else " ".join(attribute(name, "val").split()).casefold(),
            "" if based_on is None else attribute(based_on, "val"),
            child(node, "pPr"),
            None if vanish is None else is_on(vanish),
        )
        if attribute(node, "type") == "paragraph" and attribute(node, "default") in ("1", "true"):
            self._default = identity

    def of(self, paragraph: etree._Element) -> str:
        """The style's id."""
        node = child(paragraph, "pPr", "pStyle")
        return self._default if node is None else attribute(node, "val")

    def level(self, paragraph: etree._Element) -> int | None:
        """TITLE, 1 to 9 for a heading, None for text."""
        own = child(paragraph, "pPr", "outlineLvl")
        if own is not None:
            return _outline(own)
        style = self.of(paragraph)
        if style not in self._levels:
            self._levels[style] = self._level_of(style)
        return self._levels[style]

    def _level_of(self, style: str) -> int | None:
        for one in self._chain(style):
            outline = child(one.properties, "outlineLvl")
            if outline is not None:
                return _outline(outline)
            if one.name in _TITLES:
                return TITLE
            if one.name[-1:] in set("123456789") and one.name[:-1].strip() in _HEADINGS:
                return int(one.name[-1])
        return None

    def numbered(self, paragraph: etree._Element) -> Numbered | None:
        """The paragraph's own numbering, else its style's."""
        own = child(paragraph, "pPr", "numPr")
        for properties in (own, *(child(one.properties, "numPr") for one in self._chain(self.of(paragraph)))):
            number, level = child(properties, "numId"), child(properties, "ilvl")
            if number is not None:
                depth = 0 if level is None else number_of(attribute(level, "val"))
                return Numbered(attribute(number, "val"), min(max(depth, 0), 8))
        return None

    def number_of_style(self, style: str) -> str:
        """The id of the numbering that a style of lists stands for."""
        chain = self._chain(style)[:1]
        node = child(chain[0].properties, "numPr", "numId") if chain else None
        return "" if node is None else attribute(node, "val")

    def is_list(self, style: str) -> bool:
        """By its name, where a numbering is not given."""
        return any(one.name.startswith(("list bullet", "list number")) for one in self._chain(style))

    def is_hidden(self, style: str) -> bool:
        return next((one.hidden for one in self._chain(style) if one.hidden is not None), False)

    def _chain(self, style: str) -> list[_Style]:
        """The style, and those that it is based on."""
        found = self._chains.setdefault(style, [])
        while not found or len(found) < _DEEPEST_CHAIN:
            one = self._styles.get(found[-1].based_on if found else style)
            if one is None:
                break
            found.append(one)
        return found


def _outline(node: etree._Element) -> int | None:
    level = number_of(attribute(node, "val"), 9)
    return level + 1 if 0 <= level < 9 else None

"""The numbers of a Word document's lists and headings, as they are shown: "1.", "가.", "제1조", "IV)".

Counts are kept while paragraphs are asked for in the order of the document. Knows nothing of their text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lxml import etree

from server.retrieval.loaders.office.package import attribute, child, is_on, local, number_of
from server.retrieval.loaders.word.counting import counted
from server.retrieval.loaders.word.styles import Numbered, Styles

BULLET: Final = "-"
_LEVELS: Final = 9
_LONGEST: Final = 40  # characters of a number that is shown


@dataclass(frozen=True, slots=True)
class _Level:
    start: int
    format: str
    text: str
    restart: int  # it starts again behind a level up to this one
    legal: bool


class Numbering:
    def __init__(self, root: etree._Element | None, styles: Styles) -> None:
        self._kinds: dict[str, dict[int, _Level]] = {}  # by abstract number
        self._numbers: dict[str, str] = {}  # the abstract number of each
        self._changes: dict[str, dict[int, int]] = {}  # where a number starts another time
        self._own: dict[str, dict[int, _Level]] = {}
        self._counts: dict[str, list[int | None]] = {}
        links: dict[str, str] = {}
        for node in root if root is not None else ():
            if local(node) == "abstractNum":
                self._kinds[attribute(node, "abstractNumId")] = _levels(node)
                link = child(node, "numStyleLink")
                if link is not None:
                    links[attribute(node, "abstractNumId")] = attribute(link, "val")
            elif local(node) == "num":
                self._add(node)
        for kind, style in links.items():
            self._kinds[kind] = self._kinds.get(self._numbers.get(styles.number_of_style(style), ""), {})

    def _add(self, node: etree._Element) -> None:
        identity, kind = attribute(node, "numId"), child(node, "abstractNumId")
        self._numbers[identity] = "" if kind is None else attribute(kind, "val")
        for change in (one for one in node if local(one) == "lvlOverride"):
            start = child(change, "startOverride")
            if start is not None:
                level = number_of(attribute(change, "ilvl"))
                self._changes.setdefault(identity, {})[level] = number_of(attribute(start, "val"))
            self._own.setdefault(identity, {}).update(_levels(change))

    def label(self, place: Numbered) -> str:
        """The next number at this place; BULLET for an item without one; "" where nothing is shown."""
        kind = self._numbers.get(place.number)
        if kind is None:
            return ""
        levels = {**self._kinds.get(kind, {}), **self._own.get(place.number, {})}
        level = levels.get(place.level)
        if level is None:
            return BULLET
        counts = self._counts.setdefault(kind, [None] * _LEVELS)
        start = self._changes.get(place.number, {}).pop(place.level, None)
        before = counts[place.level]
        counts[place.level] = start if start is not None else level.start if before is None else before + 1
        for below in range(place.level + 1, _LEVELS):
            if below in levels and levels[below].restart > place.level:
                counts[below] = None
        return _shown(level, levels, counts)


def _shown(level: _Level, levels: dict[int, _Level], counts: list[int | None]) -> str:
    if level.format in ("bullet", "none") and "%" not in level.text:
        return BULLET if level.format == "bullet" else level.text.strip()[:_LONGEST]
    out, at = [], 0
    while at < len(level.text):
        char, digit = level.text[at], level.text[at + 1 : at + 2]
        if char == "%" and digit in set("123456789"):
            used = levels.get(int(digit) - 1)
            count = counts[int(digit) - 1]
            number = count if count is not None else used.start if used else 1
            out.append(counted(number, "decimal" if level.legal or used is None else used.format))
            at += 2
        else:
            out.append(char)
            at += 1
    return " ".join("".join(out).split())[:_LONGEST]


def _levels(node: etree._Element) -> dict[int, _Level]:
    found = {}
    for one in (one for one in node if local(one) == "lvl"):
        depth = number_of(attribute(one, "ilvl"), -1)
        if not 0 <= depth < _LEVELS:
            continue
        restart = child(one, "lvlRestart")
        found[depth] = _Level(
            number_of(_value(one, "start"), 0),
            _value(one, "numFmt") or "decimal",
            _value(one, "lvlText")[:_LONGEST],
            depth if restart is None else number_of(attribute(restart, "val")),
            is_on(child(one, "isLgl")),
        )
    return found


def _value(node: etree._Element, name: str) -> str:
    found = child(node, name)
    return "" if found is None else attribute(found, "val")

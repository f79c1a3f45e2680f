"""Footnotes, endnotes and comments of a Word document, found by the references to them. Knows nothing of where those
stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lxml import etree

from server.retrieval.loaders.office.package import Package, attribute, local
from server.retrieval.loaders.word.story import Story
from server.retrieval.loaders.word.text import Attached, prepare

_PARTS: Final = {"footnoteReference": "footnotes", "endnoteReference": "endnotes", "commentReference": "comments"}
_BETWEEN: Final = ("separator", "continuationSeparator", "continuationNotice")
_NAMES: Final = {"footnotes": "Footnote", "endnotes": "Endnote", "comments": "Comment"}


class Notes:
    def __init__(self, package: Package, main: str, story_of: Callable[[str], Story]) -> None:
        self._package, self._main, self._story_of = package, main, story_of
        self._found: dict[str, tuple[Story, dict[str, etree._Element]]] = {}
        self._counts = dict.fromkeys(_NAMES, 0)

    def take(self, reference: Attached) -> tuple[str, Story, list[Attached]] | None:
        """The text of a note, and what hangs on it; each once."""
        kind = _PARTS[reference.kind]
        numbered = attribute(reference.node, "customMarkFollows") not in ("1", "true", "on")
        return self._taken(kind, attribute(reference.node, "id"), numbered)

    def left(self) -> list[tuple[str, Story, list[Attached]]]:
        """Comments that nothing refers to, and the words of the line between text and notes, where it has some."""
        found = [self._taken("comments", identity, False) for identity in [*self._part("comments")[1]]]
        for kind in ("footnotes", "endnotes"):
            story, notes = self._part(kind)
            for node in notes.values():
                if attribute(node, "type") in _BETWEEN:
                    attached: list[Attached] = []
                    found.append(("\n".join(story.lines(node, attached)), story, attached))
        return [one for one in found if one]

    def _taken(self, kind: str, identity: str, numbered: bool) -> tuple[str, Story, list[Attached]] | None:
        story, notes = self._part(kind)
        node = notes.pop(identity, None)
        if node is None:
            return None
        attached: list[Attached] = []
        lines = story.lines(node, attached)
        name = _NAMES[kind]
        if kind == "comments":
            author = " ".join(attribute(node, "author").split())
            name = f"{name} by {author}" if author else name
        elif numbered:
            self._counts[kind] += 1
            name = f"{name} {self._counts[kind]}"
        return (f"{name}: {chr(10).join(lines)}" if lines else ""), story, attached

    def _part(self, kind: str) -> tuple[Story, dict[str, etree._Element]]:
        if kind not in self._found:
            part = next(iter(self._package.related(self._main, kind)), "")
            root = self._package.xml(part) if part else None
            nodes = prepare(root) if root is not None else ()
            notes = {attribute(one, "id"): one for one in nodes if local(one) in ("footnote", "endnote", "comment")}
            self._found[kind] = self._story_of(part), notes
        return self._found[kind]

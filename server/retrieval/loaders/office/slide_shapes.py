"""What stands on one slide: its title, and the texts, tables, charts and diagrams of its shapes in their order.

Knows nothing of the presentation that the slide is in, but for its package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from server.retrieval.loaders.document import BlockKind
from server.retrieval.loaders.office.charts import chart_texts
from server.retrieval.loaders.office.drawings import diagram_lines, paragraph_text, shape_lines
from server.retrieval.loaders.office.package import Package, attribute, child, every, local, target_of

_TITLES = ("title", "ctrTitle")
_REPEATED = ("ftr", "dt", "hdr")  # they stand on every slide


@dataclass(slots=True)
class Shapes:
    """Of one slide, or of its notes."""

    package: Package
    part: str
    title: str = ""
    texts: list[tuple[str, BlockKind]] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    pictures: int = 0
    embedded: int = 0

    def read(self, tree: etree._Element) -> None:
        for node in tree:
            name = local(node)
            if name == "sp":
                self._shape(node)
            elif name == "graphicFrame":
                self._frame(node)
            elif name == "pic":
                self.pictures += 1
            elif name in ("grpSp", "AlternateContent", "Choice", "Fallback"):
                self.read(node)
            elif name == "contentPart":
                self.pictures += 1  # ink

    def _shape(self, node: etree._Element) -> None:
        body, kind = child(node, "txBody"), _placeholder(node)
        lines = [] if body is None else shape_lines(body)
        if kind in _TITLES and not self.title and lines:
            self.title = " ".join(" ".join(lines).split())
        elif kind in _REPEATED:
            self.repeated += lines
        elif kind not in ("sldNum", "sldImg"):
            self._add("\n".join(lines))

    def _frame(self, node: etree._Element) -> None:
        relations = self.package.relations(self.part)
        for table in every(node, "tbl"):
            self._add(table_text(table), BlockKind.TABLE)
        for inner in every(node, "chart"):
            for text, is_table in chart_texts(self.package, target_of(relations, inner, "id")):
                self._add(text, BlockKind.TABLE if is_table else BlockKind.TEXT)
        for inner in every(node, "relIds"):
            data = self.package.take(target_of(relations, inner, "dm"))
            if data is not None:
                self._add("\n".join(diagram_lines(data)))
        self.embedded += sum(1 for _ in every(node, "oleObj"))

    def _add(self, text: str, kind: BlockKind = BlockKind.TEXT) -> None:
        if text.strip():
            self.texts.append((text, kind))


def table_text(table: etree._Element) -> str:
    """A line a row; a merged cell is listed once."""
    rows = []
    for row in every(table, "tr"):
        cells = []
        for cell in row:
            if local(cell) == "tc" and attribute(cell, "hMerge") not in ("1", "true"):
                is_below = attribute(cell, "vMerge") in ("1", "true")
                cells.append("" if is_below else " ".join(_cell_texts(cell)))
        if any(cells):
            rows.append(" | ".join(cells))
    return "\n".join(rows)


def _cell_texts(cell: etree._Element) -> Iterator[str]:
    return filter(None, (paragraph_text(paragraph) for paragraph in every(cell, "p")))


def _placeholder(node: etree._Element) -> str:
    found = next(every(node[0], "ph"), None) if len(node) else None
    return "" if found is None else attribute(found, "type", "body")


def is_shown(slide: etree._Element) -> bool:
    return attribute(slide, "show", "1") not in ("0", "false")

"""Charts of Office files: their words, and the figures that were saved with them as tables.

Knows nothing of where a chart stands, and opens no workbook behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from server.retrieval.loaders.office.drawings import keep_one_alternative, paragraph_text
from server.retrieval.loaders.office.number_format import shown_number
from server.retrieval.loaders.office.package import Package, attribute, child, every, local, number_of

_PLOT = "Chart"  # barChart, lineChart, pie3DChart, …
_VALUES = ("val", "yVal", "bubbleSize")


@dataclass(slots=True)
class _Plot:
    """Series over the same categories."""

    categories: dict[int, str]
    series: list[tuple[str, dict[int, str]]] = field(default_factory=list)


def chart_texts(package: Package, part: str) -> Iterator[tuple[str, bool]]:
    """The chart's words, then its tables; whether it is a table. Nothing where the part was read before."""
    root = package.take(part)
    if root is None:
        return
    keep_one_alternative(root)
    words = [text for paragraph in every(root, "p") if (text := paragraph_text(paragraph))]
    for inner in package.related(part, "chartUserShapes"):
        drawing = package.take(inner)
        words += [] if drawing is None else [text for one in every(drawing, "p") if (text := paragraph_text(one))]
    yield "\n".join(dict.fromkeys(words)), False
    if local(root) == "chartSpace" and child(root, "chartData") is None:
        for plot in _plots(root):
            yield _table(plot), True
    else:
        yield "\n".join(_newer_kinds(root)), True


def _plots(root: etree._Element) -> list[_Plot]:
    """Plots over the same categories are one table."""
    found: dict[tuple[tuple[int, str], ...], _Plot] = {}
    for node in every(root, "plotArea"):
        for plot in node:
            for series in (one for one in plot if local(plot).endswith(_PLOT) and local(one) == "ser"):
                categories = _points(
                    child(series, "cat") if child(series, "cat") is not None else child(series, "xVal")
                )
                key = tuple(sorted(categories.items()))
                entry = found.setdefault(key, _Plot(categories))
                name = " ".join(" ".join(_points(child(series, "tx")).values()).split())
                for values in (one for one in series if local(one) in _VALUES):
                    entry.series.append((name, _points(values)))
    return [*found.values()]


def _points(node: etree._Element | None) -> dict[int, str]:
    """The saved points by their place; the levels of a category side by side."""
    found: dict[int, str] = {}
    if node is None:
        return found
    code = next((one.text or "" for one in every(node, "formatCode")), "General")
    is_number = next(every(node, "numCache"), None) is not None or next(every(node, "numLit"), None) is not None
    for point in every(node, "pt"):
        value = child(point, "v")
        text = "" if value is None else (value.text or "")
        if is_number:
            text = shown_number(text, attribute(point, "formatCode") or code)
        place = number_of(attribute(point, "idx"))
        found[place] = f"{text}, {found[place]}" if place in found else text
    if not found:
        direct = child(node, "v")
        if direct is not None and direct.text:
            found[0] = direct.text
    return found


def _table(plot: _Plot) -> str:
    """A line a category, a column a series."""
    rows = [" | ".join(["", *(name for name, _ in plot.series)])]
    places = sorted({*plot.categories, *(place for _, values in plot.series for place in values)})
    for place in places:
        cells = [plot.categories.get(place, str(place + 1)), *(values.get(place, "") for _, values in plot.series)]
        rows.append(" | ".join(" ".join(cell.split()) for cell in cells))
    return "\n".join(rows) if plot.series else ""


def _newer_kinds(root: etree._Element) -> Iterator[str]:
    """Waterfalls, tree maps and such: each dimension of their data on a line."""
    for data in every(root, "data"):
        for dimension in data:
            for level in every(dimension, "lvl"):
                yield " | ".join(filter(None, ((point.text or "").strip() for point in every(level, "pt"))))

"""PowerPoint: each slide is a page under its title; tables, charts and the speaker's notes included."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from pptx import Presentation
from pptx.chart.chart import Chart
from pptx.shapes.base import BaseShape
from pptx.shapes.graphfrm import GraphicFrame
from pptx.shapes.group import GroupShape
from pptx.table import Table
from pptx.text.text import TextFrame

from server.retrieval.loaders.document import BlockKind, Document, DocumentBuilder
from server.retrieval.loaders.office_zip import check_package


def load_pptx(data: bytes) -> Document:
    check_package(data, ".pptx")
    builder = DocumentBuilder()
    for number, slide in enumerate(Presentation(io.BytesIO(data)).slides, start=1):
        title = slide.shapes.title
        heading = " ".join(title.text_frame.text.split()) if title is not None else ""
        path = (heading,) if heading else ()
        empty = True
        for text, kind in _texts(shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id):
            header = text.split("\n", 1)[0] if kind is BlockKind.TABLE else ""
            builder.add(text, path, kind=kind, page=number, header=header)
            empty = empty and not text.strip()
        if empty:
            builder.add(heading, path, page=number)  # a slide of a title only keeps its words
        notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        if notes is not None:
            builder.add(_paragraphs(notes), (*path, "Notes"), page=number)
    return builder.build()


def _texts(shapes: Iterable[BaseShape]) -> Iterator[tuple[str, BlockKind]]:
    """In the order of the shapes on the slide."""
    for shape in shapes:
        if isinstance(shape, GroupShape):
            yield from _texts(shape.shapes)
        elif isinstance(shape, GraphicFrame):
            if shape.has_table:
                yield _table(shape.table), BlockKind.TABLE
            elif shape.has_chart:
                yield _chart(shape.chart), BlockKind.TABLE
        elif shape.has_text_frame:
            yield _paragraphs(shape.text_frame), BlockKind.TEXT  # type: ignore[attr-defined]


def _paragraphs(frame: TextFrame) -> str:
    """A line a paragraph; those under another one are indented list items."""
    lines = []
    for paragraph in frame.paragraphs:
        text = " ".join(paragraph.text.split())
        if text:
            lines.append(f"{'  ' * paragraph.level}- {text}" if paragraph.level else text)
    return "\n".join(lines)


def _table(table: Table) -> str:
    rows = []
    for row in table.rows:
        cells = [" ".join(cell.text.split()) for cell in row.cells if not cell.is_spanned]
        rows.append(" | ".join(cells).strip(" |"))
    return "\n".join(row for row in rows if row)


def _chart(chart: Chart) -> str:
    """Its figures: a line a category, a column a series."""
    plot = next(iter(chart.plots), None)
    if plot is None:
        return ""
    series = list(plot.series)
    rows = [" | ".join(["", *(one.name for one in series)])]
    for number, category in enumerate(plot.categories):
        values = (one.values[number] if number < len(one.values) else None for one in series)
        rows.append(" | ".join([str(category), *("" if value is None else f"{value:g}" for value in values)]))
    return "\n".join(rows)

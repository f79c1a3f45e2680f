"""Word documents: paragraphs and tables in their order, with heading styles as the path."""

from __future__ import annotations

import io
import re

import docx
from docx.table import Table

from server.retrieval.loaders.document import BlockKind, Document, DocumentBuilder, HeadingPath
from server.retrieval.loaders.office_zip import check_package

_HEADING = re.compile(r"Heading ([1-9])$")


def load_docx(data: bytes) -> Document:
    check_package(data, ".docx")
    builder, headings = DocumentBuilder(), HeadingPath()
    items: list[str] = []
    for part in docx.Document(io.BytesIO(data)).iter_inner_content():
        style = "" if isinstance(part, Table) else str(part.style.name if part.style else "")
        if not isinstance(part, Table) and style.startswith("List") and part.text.strip():
            items.append(f"- {part.text.strip()}")
            continue
        builder.add("\n".join(items), headings.path)
        items = []
        if isinstance(part, Table):
            rows = [row for row in (_row(cells) for cells in part.rows) if row]
            builder.add("\n".join(rows), headings.path, kind=BlockKind.TABLE, header=rows[0] if rows else "")
        elif style == "Title":
            headings.enter(0, part.text.strip())
        elif match := _HEADING.match(style):
            headings.enter(int(match[1]), part.text.strip())
        else:
            builder.add(part.text.strip(), headings.path)
    builder.add("\n".join(items), headings.path)
    return builder.build()


def _row(row: docx.table._Row) -> str:
    """Cells side by side; a merged cell is listed once."""
    texts: list[str] = []
    last = None
    for cell in row.cells:
        if cell._tc is not last:
            texts.append(" ".join(cell.text.split()))
        last = cell._tc
    return " | ".join(texts).strip(" |")

"""Word documents: paragraphs and tables in their order, with heading styles as the path."""

from __future__ import annotations

import io
import re
import zipfile

import docx
from docx.table import Table

from server.errors import KnowledgeError
from server.retrieval.documents import BlockKind, Document, DocumentBuilder, HeadingPath

_OLE = b"\xd0\xcf\x11\xe0"
_MAX_UNPACKED = 512 * 1024 * 1024
_HEADING = re.compile(r"Heading ([1-9])$")


def load_docx(data: bytes) -> Document:
    if data.startswith(_OLE):
        raise KnowledgeError("the document is encrypted or an old .doc: save it as .docx without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_UNPACKED:
                raise KnowledgeError("the document unpacks to more than 512 MB")
    except zipfile.BadZipFile as error:
        raise KnowledgeError("not a Word document (.docx): the file does not begin like one") from error
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

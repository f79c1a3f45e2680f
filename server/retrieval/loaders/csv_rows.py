"""CSV and TSV: each row is a record of 'header: value' lines, with its lines in the file."""

from __future__ import annotations

import csv
import io

from server.errors import KnowledgeError
from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import BlockKind, Document, DocumentBuilder


def load_csv(data: bytes) -> Document:
    """The first row holds the headers. The delimiter is the one of , ; tab | that the header row uses most."""
    text = decode(data)
    return _load(text, max(",;\t|", key=text.split("\n", 1)[0].count))


def load_tsv(data: bytes) -> Document:
    return _load(decode(data), "\t")


def _load(text: str, delimiter: str) -> Document:
    builder = DocumentBuilder()
    headers: list[str] | None = None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    line = 1
    try:
        for row in reader:
            if any(field.strip() for field in row):
                if headers is None:
                    headers = [field.strip() for field in row]
                else:
                    builder.add(record(headers, row), kind=BlockKind.ROW, lines=(line, reader.line_num))
            line = reader.line_num + 1
    except csv.Error as error:
        raise KnowledgeError(f"not a readable CSV, line {reader.line_num}: {error}") from error
    document = builder.build()
    if headers and not document.blocks:  # one row only: it is data, not a header
        builder.add(" | ".join(headers), kind=BlockKind.ROW, lines=(1, 1))
        return builder.build()
    return document


def record(headers: list[str], row: list[str]) -> str:
    """Lines of 'header: value'; what is empty is left out."""
    lines = []
    for column, field in enumerate(row):
        value = " ".join(field.split())
        if value:
            name = headers[column] if column < len(headers) and headers[column] else f"column {column + 1}"
            lines.append(f"{name}: {value}")
    return "\n".join(lines)

"""Rows of a spreadsheet as records of 'header: value' lines, each with its row number. Knows no file format."""

from __future__ import annotations

from collections.abc import Iterable

from server.retrieval.loaders.csv_rows import record
from server.retrieval.loaders.document import BlockKind, DocumentBuilder


def add_rows(builder: DocumentBuilder, sheet: str, rows: Iterable[tuple[int, list[str]]]) -> None:
    """Rows with their numbers, from 1. The first with two filled cells has the headers; what is above it is text."""
    headers: list[str] | None = None
    header_row, no_records = 0, True
    for number, fields in rows:
        filled = sum(map(bool, fields))
        if headers is None and filled > 1:
            headers, header_row = fields, number
        elif headers is None and filled:
            builder.add("".join(fields), (sheet,), lines=(number, number))
        elif headers is not None and filled:
            builder.add(record(headers, fields), (sheet,), kind=BlockKind.ROW, lines=(number, number))
            no_records = False
    if headers and no_records:  # one row only: it is data, not a header
        text = " | ".join(filter(None, headers))
        builder.add(text, (sheet,), kind=BlockKind.ROW, lines=(header_row, header_row))

"""Excel: each row is a record of 'header: value' lines under its sheet's name, with its row number as its line.

The first row with two filled cells holds the headers; what is above it is text. Formulas count with the values
that were saved with them.
"""

from __future__ import annotations

import datetime
import io
import warnings
from collections.abc import Iterable
from typing import Any

import openpyxl

from server.retrieval.loaders.csv_rows import record
from server.retrieval.loaders.document import BlockKind, Document, DocumentBuilder
from server.retrieval.loaders.office_zip import check_package


def load_xlsx(data: bytes) -> Document:
    check_package(data, ".xlsx")
    builder = DocumentBuilder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it reports every feature that it does not keep when saving
        workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        try:
            for sheet in workbook.worksheets:
                sheet.reset_dimensions()  # what a file says of its own size is often wrong
                _add_sheet(builder, sheet.title, sheet.iter_rows(values_only=True))
        finally:
            workbook.close()
    return builder.build()


def _add_sheet(builder: DocumentBuilder, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
    headers: list[str] | None = None
    header_row, no_records = 0, True
    for number, row in enumerate(rows, start=1):
        fields = [_text(value) for value in row]
        filled = sum(map(bool, fields))
        if not filled:
            continue
        lines = (number, number)
        if headers is None and filled > 1:
            headers, header_row = fields, number
        elif headers is None:
            builder.add("".join(fields), (name,), lines=lines)
        else:
            builder.add(record(headers, fields), (name,), kind=BlockKind.ROW, lines=lines)
            no_records = False
    if headers and no_records:  # one row only: it is data, not a header
        builder.add(" | ".join(filter(None, headers)), (name,), kind=BlockKind.ROW, lines=(header_row, header_row))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        value = value.date() if value.time() == datetime.time() else value.replace(microsecond=0)
        return str(value)
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value).strip()

"""Excel 97 to 2003 (.xls): rows as of .xlsx, with values as their formats show them.

A merged cell counts in each of its rows. Comments stand in their cells; text boxes, headers and footers come last.
Charts are counted, not read.
"""

from __future__ import annotations

import io
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import xlrd

from server.errors import KnowledgeError
from server.retrieval.loaders.document import Document, DocumentBuilder
from server.retrieval.loaders.ole_streams import Streams
from server.retrieval.loaders.sheet_rows import add_rows

_FAULTS: Final = (AssertionError, AttributeError, LookupError, NameError, struct.error, TypeError, ValueError)
MAX_MERGED: Final = 1_000_000  # cells that merged ones fill
OLE: Final = b"\xd0\xcf\x11\xe0"
_BEGIN, _CONTINUED, _BOX, _CHART = 0x809, 0x3C, 0x1B6, b"\x20\x00"
_EDGES: Final = {0x14: "Header", 0x15: "Footer"}
_FIELD = re.compile(r'&(?:"[^"]{0,200}"|[0-9]{1,3}|[A-Za-z])')
_QUOTED = re.compile(r'"[^"]{0,200}"|\\.|\[(?!h|m|s)[^\]]{0,40}\]')


def load_xls(data: bytes) -> Document:
    builder = DocumentBuilder()
    try:
        book = _opened(data, formats=True)
    except (xlrd.XLRDError, *_FAULTS):  # of what it reads for formats only, the library refuses more than Excel does
        try:
            book = _opened(data, formats=False)
        except xlrd.XLRDError as error:
            if "encrypted" in str(error).lower():
                raise KnowledgeError("the file is encrypted with a password: save it without one") from error
            raise KnowledgeError(f"not a .xls file: it is damaged or something else ({error})") from error
        builder.omit("the formats of its numbers: dates and percentages stand as plain numbers")
    for sheet in book.sheets():
        add_rows(builder, sheet.name, _rows(book, sheet))
    _add_drawn(builder, data, book)
    return builder.build()


def _opened(data: bytes, *, formats: bool) -> Any:
    return xlrd.open_workbook(file_contents=data, formatting_info=formats, ragged_rows=True, logfile=io.StringIO())


def _add_drawn(builder: DocumentBuilder, data: bytes, book: Any) -> None:
    """What is no cell: text boxes, headers and footers. The library passes these records over."""
    streams = Streams(data, ".xls") if data.startswith(OLE) else None
    stream = (streams.read("Workbook") or streams.read("Book")) if streams else b""
    notes = {" ".join(str(note.text).split()) for sheet in book.sheets() for note in sheet.cell_note_map.values()}
    charts, left, box = 0, 0, ""  # characters of the box that are still to come, and those that came
    for kind, body in _records(stream):
        if kind == _BOX and len(body) >= 12:
            left, box = struct.unpack_from("<H", body, 10)[0], ""
        elif kind == _CONTINUED and left > 0 and body:
            some = body[1:].decode("utf-16-le" if body[0] else "cp1252", "replace")[:left]
            left, box = left - len(some), box + some
            if left <= 0 and " ".join(box.split()) not in notes:
                builder.add(box.replace("\r", "\n").strip())
        elif kind in _EDGES and book.biff_version >= 80 and (text := " ".join(_FIELD.sub(" ", _wide(body)).split())):
            builder.add(f"{_EDGES[kind]}: {text}")
        elif kind == _BEGIN and body[2:4] == _CHART:
            charts += 1
    if charts:
        builder.omit(f"{charts} chart{'s' * (charts > 1)}")


def _records(stream: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(stream):
        kind, size = struct.unpack_from("<HH", stream, at)
        yield kind, stream[at + 4 : at + 4 + size]
        at += 4 + size


def _wide(body: bytes) -> str:
    """A string with its length in characters and a byte that says how wide these are."""
    if len(body) < 3:
        return ""
    size = struct.unpack_from("<H", body)[0]
    return (
        body[3 : 3 + 2 * size].decode("utf-16-le", "replace")
        if body[2] & 1
        else body[3 : 3 + size].decode("cp1252", "replace")
    )


def _rows(book: Any, sheet: Any) -> Iterator[tuple[int, list[str]]]:
    merged = _merged(sheet)
    notes: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for (row, column), note in sorted(sheet.cell_note_map.items()):
        notes[row].append((column, " ".join(str(note.text).split())))
    for row in range(sheet.nrows):
        fields = [_shown(book, sheet, row, column) for column in range(sheet.row_len(row))]
        for column, (top, left) in merged.get(row, {}).items():
            fields += [""] * (column + 1 - len(fields))
            fields[column] = fields[column] or _shown(book, sheet, top, left)
        for column, note in notes.get(row, ()):
            fields += [""] * (column + 1 - len(fields))
            fields[column] = f"{fields[column]} (comment: {note})".strip()
        yield row + 1, fields


def _merged(sheet: Any) -> dict[int, dict[int, tuple[int, int]]]:
    """By row and column of those that a merged cell covers below its top, that cell."""
    found: dict[int, dict[int, tuple[int, int]]] = {}
    left_over = MAX_MERGED
    for top, bottom, left, _ in sheet.merged_cells:
        rows = range(top + 1, min(bottom, sheet.nrows))
        left_over -= len(rows)
        if left_over < 0:
            break
        for row in rows:
            found.setdefault(row, {})[left] = (top, left)
    return found


def _shown(book: Any, sheet: Any, row: int, column: int) -> str:
    if row >= sheet.nrows or column >= sheet.row_len(row):
        return ""
    kind, value = sheet.cell_type(row, column), sheet.cell_value(row, column)
    if kind == xlrd.XL_CELL_TEXT:
        return str(value).strip()
    if kind == xlrd.XL_CELL_BOOLEAN:
        return "TRUE" if value else "FALSE"
    if kind == xlrd.XL_CELL_ERROR:
        return str(xlrd.error_text_from_code.get(value, "#ERROR"))
    if kind not in (xlrd.XL_CELL_NUMBER, xlrd.XL_CELL_DATE):
        return ""
    formats = book.formatting_info
    shape = book.format_map.get(book.xf_list[sheet.cell_xf_index(row, column)].format_key) if formats else None
    pattern = _QUOTED.sub("", shape.format_str if shape else "").split(";")[0]
    return _date(value, book.datemode, pattern) if kind == xlrd.XL_CELL_DATE else _number(value, pattern)


def _number(value: float, pattern: str) -> str:
    decimals = len(pattern.partition(".")[2]) - len(pattern.partition(".")[2].lstrip("0#?"))
    if "%" in pattern:
        return f"{round(value * 100, max(decimals, 2)):.15g}%"
    digits = pattern.strip()
    if digits and set(digits) == {"0"} and value == int(value):
        return f"{int(value):0{min(len(digits), 40)}d}"
    return f"{value:.15g}"


def _date(value: float, mode: int, pattern: str) -> str:
    """Dates as ISO 8601; lengths of time and times of day by the clock."""
    minutes = round(value * 24 * 60)
    if "[h" in pattern.lower() or 0 <= value < 1:
        return f"{minutes // 60:02d}:{minutes % 60:02d}"
    try:
        year, month, day, hour, minute, second = xlrd.xldate_as_tuple(value, mode)
    except xlrd.xldate.XLDateError:
        return f"{value:.15g}"
    date = f"{year:04d}-{month:02d}-{day:02d}"
    return f"{date} {hour:02d}:{minute:02d}:{second:02d}" if hour or minute or second else date

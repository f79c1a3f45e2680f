"""CSV and TSV: each row is a record of 'header: value' lines, with its lines in the file.

The delimiter is the one that gives the most rows the same number of fields. What stands above the first row with that
many fields is text, and that row holds the headers, unless it has figures where the row below has such, too.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final, Literal

from server.errors import KnowledgeError
from server.retrieval.loaders.decoding import decode
from server.retrieval.loaders.document import MAX_CHARS, BlockKind, Document, DocumentBuilder

_DELIMITERS: Final = ",;\t|"
_SAMPLE_ROWS: Final = 100
_MOST_TITLES: Final = 10
_SAMPLE_CHARS: Final = 256 * 1024
_FIGURE: Final = frozenset("0123456789.,-+:/%$€£¥₩ ()원円元")


@dataclass(frozen=True, slots=True)
class _Row:
    fields: list[str]
    lines: tuple[int, int]


def load_csv(data: bytes) -> Document:
    return _load(decode(data), _DELIMITERS)


def load_tsv(data: bytes) -> Document:
    return _load(decode(data), "\t")


def _load(text: str, delimiters: str) -> Document:
    csv.field_size_limit(MAX_CHARS)  # of the whole process; the file's own bound comes before
    declared = _declared(text)
    delimiter = declared or _delimiter(text, delimiters)
    builder = DocumentBuilder()
    rows = _rows(text, delimiter, skip=1 if declared else 0)
    sample = [*islice(rows, _SAMPLE_ROWS)]
    width = _usual_width(sample)
    start = _header_place(sample, width)
    for row in sample[:start]:
        builder.add(_joined(row), lines=row.lines)
    table = _Table(builder)
    if start < len(sample) and (start + 1 == len(sample) or not _is_data(sample[start], sample[start + 1])):
        table.take_header(sample[start])
        start += 1
    for row in sample[start:]:
        table.add(row, width)
    for row in rows:
        table.add(row, width)
    table.end()
    return builder.build()


class _Table:
    def __init__(self, builder: DocumentBuilder) -> None:
        self._builder = builder
        self._headers: list[str] = []
        self._lines = (1, 1)
        self._used: set[int] = set()

    def take_header(self, row: _Row) -> None:
        self._headers, self._lines = [" ".join(field.split()) for field in row.fields], row.lines

    def add(self, row: _Row, width: int) -> None:
        """A line of one field in a table of several is a remark, or the end of a section: it is said as it is."""
        if not self._headers or (len(row.fields) == 1 and width > 1):
            text = _joined(row)
        else:
            text = record(self._headers, row.fields)
            self._used |= {column for column, field in enumerate(row.fields) if field.strip()}
        self._builder.add(text, kind=BlockKind.ROW, lines=row.lines)

    def end(self) -> None:
        """Headers that no record has named are text, too."""
        unused = [name for column, name in enumerate(self._headers) if name and column not in self._used]
        if unused:
            names = " | ".join(unused)
            self._builder.add(f"No values: {names}" if self._used else names, kind=BlockKind.ROW, lines=self._lines)


def record(headers: list[str], row: list[str]) -> str:
    """Lines of 'header: value'; what is empty is left out."""
    lines = []
    for column, field in enumerate(row):
        value = " ".join(field.split())
        if value:
            name = headers[column] if column < len(headers) and headers[column] else f"column {column + 1}"
            lines.append(f"{name}: {value}")
    return "\n".join(lines)


def _declared(text: str) -> str:
    """Of a first line "sep=;", which is for Excel."""
    first = text[:16].split("\n", 1)[0].strip("\r \"'")
    return first[4] if len(first) == 5 and first[:4].lower() == "sep=" else ""


def _delimiter(text: str, delimiters: str) -> str:
    """By the rows of a sample; between equals the one that is not followed by a space, as commas of prose are."""
    sample = text[:_SAMPLE_CHARS]
    if len(sample) < len(text):
        sample = sample[: sample.rfind("\n") + 1] or sample
    return max(delimiters, key=lambda delimiter: _fit(sample, delimiter))


def _fit(sample: str, delimiter: str) -> tuple[float, float, int]:
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
    rows = [row for row in islice(reader, _SAMPLE_ROWS) if any(field.strip() for field in row)]
    widths = Counter(len(row) for row in rows if len(row) > 1)
    if not widths:
        return (0.0, 0.0, 0)
    width, count = max(widths.items(), key=lambda one: (one[1], one[0]))
    spaced = sum(field[:1] == " " for row in rows for field in row[1:])
    return (count / len(rows), -spaced / sum(map(len, rows)), width)


def _rows(text: str, delimiter: str, skip: int) -> Iterator[_Row]:
    """Those with something in them. A quote that nobody closed would make one field of the rest of the file: from its
    row on, quotes are characters like others."""
    last: _Row | None = None
    for row in _parsed(text, delimiter, skip, csv.QUOTE_MINIMAL):
        if last is not None:
            yield last
        last = row
    if last is None:
        return
    if last.lines[1] > last.lines[0]:
        first = last.lines[0] - 1
        if text[_offset(text, first) :].count('"') % 2:
            yield from _parsed(text, delimiter, first, csv.QUOTE_NONE)
            return
    yield last


def _parsed(text: str, delimiter: str, skip: int, quoting: Literal[0, 3]) -> Iterator[_Row]:
    """From the line behind the first `skip`."""
    source = io.StringIO(text[_offset(text, skip) :], newline="")
    reader = csv.reader(source, delimiter=delimiter, skipinitialspace=True, quoting=quoting)
    line = skip + 1
    try:
        for fields in reader:
            last = reader.line_num + skip
            if any(field.strip() for field in fields):
                yield _Row(fields, (line, last))
            line = last + 1
    except csv.Error as error:
        raise KnowledgeError(f"not a readable CSV, line {line}: {error}") from error


def _offset(text: str, lines: int) -> int:
    """Where the line behind that many begins."""
    start = 0
    for _ in range(lines):
        start = text.find("\n", start) + 1 or len(text)
    return start


def _filled(row: _Row) -> int:
    return sum(bool(field.strip()) for field in row.fields)


def _usual_width(rows: list[_Row]) -> int:
    widths = Counter(len(row.fields) for row in rows)
    return max(widths, key=lambda width: (widths[width], width), default=0)


def _header_place(rows: list[_Row], width: int) -> int:
    """Behind the titles: rows of one field, and shorter ones with a blank line after them."""
    place = 0
    for at, (row, below) in enumerate(pairwise(rows[:_MOST_TITLES])):
        if len(row.fields) < width and below.lines[0] > row.lines[1] + 1:
            place = at + 1
    return next((at for at, row in enumerate(rows) if at >= place and (_filled(row) > 1 or width < 2)), len(rows))


def _joined(row: _Row) -> str:
    return " | ".join(" ".join(field.split()) for field in row.fields if field.strip())


def _is_data(first: _Row, below: _Row) -> bool:
    """A first row with figures above figures. Years alone stand in headers."""
    figures = [place for place, field in enumerate(first.fields) if _is_figure(field)]
    if figures and all(_is_year(first.fields[place]) for place in figures) and len(figures) < len(first.fields):
        return any(place < len(below.fields) and _is_year(below.fields[place]) for place in figures)
    return any(place < len(below.fields) and _is_figure(below.fields[place]) for place in figures)


def _is_figure(field: str) -> bool:
    field = field.strip()
    return 0 < len(field) <= 40 and any(char.isdigit() for char in field) and set(field) <= _FIGURE


def _is_year(field: str) -> bool:
    field = field.strip()
    return len(field) == 4 and field.isdecimal() and field[:2] in ("19", "20")

"""The rows of a sheet as records: where each table's header is, and what each value is called.

A table begins at the sheet's first row with two filled cells, at a table that the file names, and behind a blank row
where what follows looks like a header: words alone, under a title of their own, in other columns, in bold, or above
figures. A header has several rows where cells of one are merged over those below. A value that is merged over rows
belongs to each of them. Knows nothing of XML.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from server.retrieval.loaders.document import BlockKind, DocumentBuilder
from server.retrieval.loaders.sheets.rows import NUMBER, WORDS, Area, Cell, Frame, Row

HIDDEN_ROW: Final = "(hidden row)"
HIDDEN_COLUMN: Final = "(hidden column)"
_AHEAD: Final = 8  # rows that are looked at to find a header
_MOST_HEADER_ROWS: Final = 4
_MOST_MERGED: Final = 100  # values that go down at the same time


class SheetTables:
    """Adds one sheet's rows to a document. `notes` are lines about a row beside its cells; those that were added are
    taken out of it."""

    def __init__(
        self, builder: DocumentBuilder, path: tuple[str, ...], frame: Frame, named: Iterable[Area],
        notes: dict[int, list[str]],
    ) -> None:  # fmt: skip
        self._builder, self._path, self._frame, self._notes = builder, path, frame, notes
        self._named = {place.top for place in named}
        self._merged: dict[int, list[Area]] = {}
        for place in frame.merged:
            self._merged.setdefault(place.top, []).append(place)
        self._down: dict[int, tuple[int, Cell]] = {}  # by column: the last row of the merged cell, and its value
        self._headers: dict[int, str] = {}
        self._header_rows = (0, 0)
        self._unused: set[int] = set()
        self._worded: set[int] = set()  # columns with words in this table, …
        self._figured: set[int] = set()  # … and with figures
        self._started = False

    def add(self, source: Iterable[Row]) -> None:
        rows, ahead = iter(source), deque[Row]()
        before = 0
        while _fill(ahead, rows):
            row = ahead[0]
            may_begin = not self._started or row.number > before + 1 or row.number in self._named
            count = self._begin([*_together(ahead)]) if may_begin else 0
            if not count:
                self._record(row)
            for _ in range(count or 1):
                before = ahead.popleft().number
        self._end_table()

    def _begin(self, rows: list[Row]) -> int:
        """Takes a title or a header at the head of these rows, and says how many rows that was."""
        first = rows[0]
        if self._is_title(rows):
            self._builder.add("\n".join(self._texts(first)), self._path, lines=(first.number, first.number))
            if self._started and len(rows) > 1 and len(rows[1].cells) > 1 and _only_words(rows[1]) and len(rows) > 2:
                return 1 + self._take_header(rows[1:])
            return 1
        if self._is_header(rows):
            return self._take_header(rows)
        self._started = True
        return 0

    def _is_title(self, rows: list[Row]) -> bool:
        row = rows[0]
        if len(row.cells) > 1 or row.number in self._named or self._from_above(row):
            return False
        if len(rows) > 1 and self._is_above(row, rows[1]):
            return False
        column = next(iter(row.cells))
        return not self._headers or column not in self._headers or column == min(self._headers)

    def _is_header(self, rows: list[Row]) -> bool:
        first, below = rows[0], rows[1:2]
        if first.number in self._named:
            return True
        if not self._started:
            return not (below and _is_like(first, below[0]))
        if not below or not _only_words(first) or len(first.cells) < 2 or self._from_above(first):
            return False
        figures = {column for column, cell in below[0].cells.items() if cell.kind != WORDS and column in first.cells}
        return (
            not set(first.cells) <= set(self._headers)
            or [cell.text for cell in first.cells.values()] == [*self._headers.values()]
            or (_is_bold(first) and not _is_bold(below[0]))
            or bool(figures - (self._worded & self._figured))
        )

    def _is_above(self, row: Row, below: Row) -> bool:
        """Both are rows of one header: a cell of the first is merged over some cells of the second."""
        if not _only_words(below):
            return False
        for place in self._merged.get(row.number, ()):
            under = sum(place.left <= column <= place.right for column in below.cells)
            if under > 1 and place.bottom == row.number and (len(row.cells) > 1 or under < len(below.cells)):
                return True
        return False

    def _take_header(self, rows: list[Row]) -> int:
        self._end_table()
        count = 1
        while count < min(len(rows), _MOST_HEADER_ROWS) and self._is_above(rows[count - 1], rows[count]):
            count += 1
        taken = rows[:count]
        columns = {column for row in taken for column in row.cells}
        parts: dict[int, list[str]] = {}
        for row in taken:
            for column, text in self._spread(row, columns).items():
                parts.setdefault(column, []).append(text)
        for column, texts in sorted(parts.items()):
            name = " ".join(" ".join(texts).split())
            self._headers[column] = f"{name} {HIDDEN_COLUMN}" if self._frame.hides(column) else name
        self._started, self._unused = True, set(self._headers)
        self._header_rows = (taken[0].number, taken[-1].number)
        about = [line for row in taken for line in self._about(row)]
        self._builder.add("\n".join(about), self._path, lines=self._header_rows)
        return count

    def _spread(self, row: Row, columns: set[int]) -> dict[int, str]:
        """A header's texts by column, each in all columns that it is merged over."""
        texts = {column: cell.text for column, cell in row.cells.items()}
        for place in self._merged.get(row.number, ()):
            if place.left in row.cells and place.right > place.left:
                inside = (column for column in columns if place.left <= column <= place.right)
                texts.update(dict.fromkeys(inside, row.cells[place.left].text))
        return texts

    def _end_table(self) -> None:
        """Headers that no record has named are text, too."""
        if self._unused:
            names = [name for column, name in self._headers.items() if column in self._unused]
            text = " | ".join(names) if len(names) == len(self._headers) else f"No values: {' | '.join(names)}"
            self._builder.add(text, self._path, kind=BlockKind.ROW, lines=self._header_rows)
        self._headers, self._unused, self._down = {}, set(), {}
        self._worded, self._figured = set(), set()

    # ── records ──

    def _record(self, row: Row) -> None:
        cells = {**self._from_above(row), **row.cells}
        for place in self._merged.get(row.number, ()):
            if place.bottom > row.number and place.left in row.cells and len(self._down) < _MOST_MERGED:
                self._down[place.left] = (place.bottom, row.cells[place.left])
        self._unused -= cells.keys()
        for column, cell in row.cells.items():
            (self._worded if cell.kind == WORDS else self._figured).add(column)
        if self._headers:
            texts = [f"{self._name(column)}: {_line(cell)}" for column, cell in sorted(cells.items())]
        else:
            texts = [" | ".join(_line(cell) for _, cell in sorted(cells.items()))]
        text = "\n".join([*texts, *self._about(row)])
        self._builder.add(text, self._path, kind=BlockKind.ROW, lines=(row.number, row.number))

    def _from_above(self, row: Row) -> dict[int, Cell]:
        """Values that are merged down into this row."""
        self._down = {column: one for column, one in self._down.items() if one[0] >= row.number}
        return {column: cell for column, (_, cell) in self._down.items()}

    def _name(self, column: int) -> str:
        plain = f"column {column + 1}"
        return self._headers.get(column) or (f"{plain} {HIDDEN_COLUMN}" if self._frame.hides(column) else plain)

    def _texts(self, row: Row) -> list[str]:
        return [*(cell.text for cell in row.cells.values()), *self._about(row)]

    def _about(self, row: Row) -> list[str]:
        return [*([HIDDEN_ROW] if row.hidden else []), *self._notes.pop(row.number, ())]


def _fill(ahead: deque[Row], rows: Iterator[Row]) -> bool:
    while len(ahead) < _AHEAD:
        row = next(rows, None)
        if row is None:
            break
        ahead.append(row)
    return bool(ahead)


def _together(ahead: deque[Row]) -> Iterator[Row]:
    """Up to the next blank row."""
    for at, row in enumerate(ahead):
        if at and row.number != ahead[at - 1].number + 1:
            return
        yield row


def _line(cell: Cell) -> str:
    return " ".join(cell.text.split())


def _only_words(row: Row) -> bool:
    """Years count as words: they stand in headers."""
    return all(cell.kind == WORDS or _is_year(cell) for cell in row.cells.values())


def _is_year(cell: Cell) -> bool:
    return cell.kind == NUMBER and len(cell.text) == 4 and cell.text.isdigit() and cell.text[:2] in ("19", "20")


def _is_bold(row: Row) -> bool:
    return all(cell.bold for cell in row.cells.values())


def _is_like(first: Row, below: Row) -> bool:
    """A first row that is data: figures above figures of the same kind, and not years."""
    figures = [(column, cell) for column, cell in first.cells.items() if cell.kind != WORDS and not _is_year(cell)]
    return any(column in below.cells and below.cells[column].kind == cell.kind for column, cell in figures)

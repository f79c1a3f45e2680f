"""Words with their places on a page to paragraphs, in the order in which a person reads them.

Words become rows by their heights. An empty strip that runs through many rows parts columns, read one after the other,
where both sides are prose; else the rows are a table's, read as they stand. Rows near each other are a paragraph.
Knows nothing of PDF. Places are in points, x along the text and y down from its first line, so any direction of
writing is the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

MAX_COLUMN_DEPTH: Final = 3  # a set of columns inside a column
# In sizes of the text, which are about 1.2 times those that its font is set to:
_GUTTER: Final = 0.7  # least width of the strip between columns
_CELL_GAP: Final = 1.5  # … and between the cells of a row, which two spaces keep apart
_SECTION_GAP: Final = 0.9  # empty height that ends a set of columns
_PARAGRAPH_GAP: Final = 0.4  # … and a paragraph, beyond the usual distance of its region's rows
_SAME_LINE: Final = 0.5  # … of the smaller one: distance between the middles of two words of one line
_SAME_LINE_AT_MOST: Final = 0.15  # … where two lines would stand one over the other
_LETTER_GAP: Final = 0.15  # between two pieces of one word
_OTHER_SIZE: Final = 1.25  # times as large: another paragraph
_PROSE_WIDTH: Final = 18  # letters in a row of a column of prose on average; one of East Asia counts as two
_PROSE_FILL: Final = 0.7  # of the column's width that half of its rows fill at least
_PROSE_ROWS: Final = 3
_MOST_STRIPS: Final = 64  # of one row; the widest
_TRIED_STRIPS: Final = 4
_WIDE: Final = ("W", "F")
_UNSPACED: Final = ("CJK ", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH")  # names of scripts without spaces
RIGHT_TO_LEFT: Final = ("R", "AL")  # as unicodedata.bidirectional says it

Strip = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Word:
    """`size` is the height of its text. `spaced`: a space stands before it in the file."""

    text: str
    left: float
    right: float
    middle: float
    size: float
    spaced: bool = True


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str
    top: float


@dataclass(frozen=True, slots=True)
class _Row:
    words: tuple[Word, ...]  # from left to right
    top: float
    bottom: float
    size: float


def paragraphs(words: list[Word]) -> list[Paragraph]:
    found: list[Paragraph] = []
    for lines in _regions(words, MAX_COLUMN_DEPTH):
        for part in _split_by_distance(lines):
            text = _joined(part)
            if found and _goes_on(found[-1].text, text):  # from one column to the next
                found[-1] = Paragraph(f"{found[-1].text[:-1]}{text}", found[-1].top)
            else:
                found.append(Paragraph(text, part[0].top))
    return found


# ── rows and columns ─────────────────────────────────────────────────────────────────────────────


def _regions(words: list[Word], depth: int) -> Iterator[list[_Row]]:
    """Lines that belong together, in reading order."""
    if not words:
        return
    size = median(word.size for word in words)
    pending: list[_Row] = []
    for rows, strips in _runs(_rows(words), size):
        sides = _columns(rows, strips) if depth else None
        if sides is None:
            pending += rows
            continue
        if pending:
            yield _lines(pending)
        pending = []
        for side in sides:
            yield from _regions(side, depth - 1)
    if pending:
        yield _lines(pending)


def _rows(words: Iterable[Word]) -> list[_Row]:
    """From the top. Where the lines of two columns are not level, one row holds several of both."""
    rows: list[list[Word]] = []
    reach = float("-inf")
    for word in sorted(words, key=lambda one: one.middle - one.size / 4):
        if word.middle - word.size / 4 >= reach:
            rows.append([])
        rows[-1].append(word)
        reach = max(reach, word.middle + word.size / 4)
    return [_row(row) for row in rows]


def _row(words: list[Word]) -> _Row:
    ordered = tuple(sorted(words, key=lambda one: one.left))
    top = min(word.middle - word.size / 2 for word in ordered)
    bottom = max(word.middle + word.size / 2 for word in ordered)
    return _Row(ordered, top, bottom, median(word.size for word in ordered))


def _runs(rows: list[_Row], size: float) -> Iterator[tuple[list[_Row], list[Strip]]]:
    """Rows one after the other, with the strips between words that are empty in all of them."""
    run: list[_Row] = []
    strips: list[Strip] = []
    inner: list[Strip] = []
    for row in rows:
        own = _strips(row, _GUTTER * size)
        common = _common(strips, own, _GUTTER * size) if run else own
        common_inner = _inner(common)
        ends = bool(run) and row.top - run[-1].bottom > _SECTION_GAP * size
        if run and (ends or (not common_inner and (inner or _inner(own)))):
            yield run, inner
            run, common, common_inner = [], own, _inner(own)
        run.append(row)
        strips, inner = common, common_inner
    if run:
        yield run, inner


def _strips(row: _Row, least: float) -> list[Strip]:
    """What is empty in the row, from the far left to the far right."""
    found, reach = [], float("-inf")
    for word in row.words:
        if word.left - reach >= least:
            found.append((reach, word.left))
        reach = max(reach, word.right)
    found.append((reach, float("inf")))
    return sorted(sorted(found, key=_narrowness)[:_MOST_STRIPS]) if len(found) > _MOST_STRIPS else found


def _narrowness(strip: Strip) -> float:
    return strip[0] - strip[1]


def _inner(strips: list[Strip]) -> list[Strip]:
    """Those with words on either side."""
    return [strip for strip in strips if strip[0] != float("-inf") and strip[1] != float("inf")]


def _common(first: list[Strip], second: list[Strip], least: float) -> list[Strip]:
    found, one, other = [], 0, 0
    while one < len(first) and other < len(second):
        left, right = max(first[one][0], second[other][0]), min(first[one][1], second[other][1])
        if right - left >= least:
            found.append((left, right))
        if first[one][1] < second[other][1]:
            one += 1
        else:
            other += 1
    return found


def _columns(rows: list[_Row], strips: list[Strip]) -> tuple[list[Word], list[Word]] | None:
    """The words on either side of the widest strip with prose on both; None where there is none such."""
    words = [word for row in rows for word in row.words]
    for left, right in sorted(strips, key=_narrowness)[:_TRIED_STRIPS]:
        sides = [word for word in words if word.right <= left], [word for word in words if word.left >= right]
        if all(map(_is_prose, sides)):
            return sides
    return None


def _is_prose(words: list[Word]) -> bool:
    """Its lines are long, and most fill the column: names and numbers in a table's column do not."""
    rows = _rows(words)
    if len(rows) < _PROSE_ROWS or sum(_width(word.text) + 1 for word in words) < _PROSE_WIDTH * len(rows):
        return False
    widths = [row.words[-1].right - row.words[0].left for row in rows]
    return median(widths) >= _PROSE_FILL * max(widths)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in _WIDE else 1 for char in text)


# ── lines to text ────────────────────────────────────────────────────────────────────────────────


def _lines(rows: list[_Row]) -> list[_Row]:
    """Each row's words by the line they stand on."""
    found: list[_Row] = []
    for row in rows:
        for line in _level(row.words, _SAME_LINE):
            found += map(_row, _level(line, _SAME_LINE_AT_MOST) if _overlap(line) else [line])
    return found


def _level(words: Iterable[Word], tolerance: float) -> list[list[Word]]:
    lines: list[list[Word]] = []
    for word in sorted(words, key=lambda one: one.middle):
        before = lines[-1][-1] if lines else word
        if not lines or word.middle - before.middle > tolerance * min(word.size, before.size):
            lines.append([])
        lines[-1].append(word)
    return lines


def _overlap(words: list[Word]) -> bool:
    """Two of them share a place: they are not of one line."""
    reach = float("-inf")
    for word in sorted(words, key=lambda one: one.left):
        if reach - word.left > _SAME_LINE * word.size:
            return True
        reach = max(reach, word.right)
    return False


def _split_by_distance(lines: list[_Row]) -> Iterator[list[_Row]]:
    distances = [max(0.0, below.top - above.bottom) for above, below in pairwise(lines)]
    usual = median(distances or [0.0])
    part = lines[:1]
    for above, below in pairwise(lines):
        larger, smaller = max(above.size, below.size), min(above.size, below.size)
        if below.top - above.bottom > usual + _PARAGRAPH_GAP * smaller or larger > _OTHER_SIZE * smaller:
            yield part
            part = []
        part.append(below)
    yield part


def _joined(lines: list[_Row]) -> str:
    end = max(line.words[-1].right for line in lines)
    parts: list[str] = []
    for number, line in enumerate(lines):
        own = _line_text(line)
        before = lines[number - 1]
        if number and _goes_on(parts[-1], own):
            parts[-1] = parts[-1][:-1]
        elif number and not (_goes_on_unspaced(parts[-1], own) and before.words[-1].right > end - 2 * before.size):
            parts.append("\n")
        parts.append(own)
    return "".join(parts)


def _goes_on(before: str, after: str) -> bool:
    """A word that a hyphen parts."""
    return before[-1:] == "-" and before[-2:-1].isalpha() and after[:1].islower()


def _goes_on_unspaced(before: str, after: str) -> bool:
    return all(unicodedata.name(char, "").startswith(_UNSPACED) for char in (before[-1], after[0]))


def _line_text(line: _Row) -> str:
    words = line.words
    parts = [words[0].text]
    for before, word in pairwise(words):
        gap = (word.left - before.right) / line.size
        if gap > _CELL_GAP:
            parts.append("  ")
        elif word.spaced or gap > _LETTER_GAP:
            parts.append(" ")
        parts.append(word.text)
    if 2 * sum(map(_is_right_to_left, words)) > len(words):
        parts.reverse()
    return "".join(parts)


def _is_right_to_left(word: Word) -> bool:
    return any(unicodedata.bidirectional(char) in RIGHT_TO_LEFT for char in word.text)

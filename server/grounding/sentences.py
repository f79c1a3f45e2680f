"""An answer's sentences, with the citation marks that belong to each.

Markdown is looked through: code is left out, headings are recognised, list marks and quotation marks stand before a
sentence. A mark after a sentence's end (`… days. [1] Gifts …`) belongs to the sentence before it, unless the paragraph
begins with a mark. A sentence with several marks is taken apart at each, since each then stands for what is before it.
Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.words import content_words, markdown, sentences

CITATION_MARK = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\](?![(:])")
MIN_CONTENT_WORDS = 2  # content words that make a part of a sentence a claim of its own, …
PART_CHARS = 100  # … in so much of it before its mark

_BOLD_HEADING = re.compile(r"\s*(?P<bold>\*\*|__)(?:(?!(?P=bold))[^.!?。])+(?P=bold)\s*:?\s*$")
_PREFIX = re.compile(r"\s*(?:>\s*)*(?:(?:[-*+•]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?)?")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.{1,2000}?)(?<!`)\1(?!`)")
_ADDRESS = re.compile(r"(?<=\])\([^)\s]{0,1000}\)")


@dataclass(frozen=True, slots=True)
class CitationMark:
    """`[1, 3]` as it stands in an answer, at `start` to `end`."""

    start: int
    end: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sentence:
    """`text` is the sentence without its marks; `start` and `end` bound it in the answer, marks inside."""

    start: int
    end: int
    text: str
    marks: tuple[CitationMark, ...] = ()
    is_heading: bool = False
    is_whole: bool = True  # False for the last one of an answer that was cut off

    @property
    def cited(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(number for mark in self.marks for number in mark.numbers))


def split_sentences(answer: str, *, complete: bool = True) -> list[Sentence]:
    """In order. `complete` is False for an answer that was stopped or ran into its limit."""
    marks = list(find_citation_marks(answer))
    plain = _blank_out(answer, [(mark.start, mark.end) for mark in marks])
    plain = _blank_out(plain, [match.span() for match in _ADDRESS.finditer(plain)])
    found: list[Sentence] = []
    for start, end, is_heading in _blocks(plain, marks):
        inside = _between(marks, start, end)
        found += _block_sentences(plain, start, end, inside, is_heading=is_heading)
    if found and not complete and not re.search(r"[.!?…。！？][\"'”’»)*_\]\s]*$", found[-1].text):
        last = found[-1]
        found[-1] = Sentence(last.start, last.end, last.text, last.marks, last.is_heading, is_whole=False)
    return found


def find_citation_marks(answer: str) -> Iterator[CitationMark]:
    """All citation marks outside of code."""
    code = _merged([*markdown.fenced_code(answer), *(match.span() for match in _CODE_SPAN.finditer(answer))])
    for match in CITATION_MARK.finditer(answer):
        if not _is_inside(match.start(), code):
            yield CitationMark(match.start(), match.end(), tuple(int(part) for part in match[1].split(",")))


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, those that overlap as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _is_inside(at: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Of spans in order that do not overlap."""
    before = bisect_right(spans, at, key=lambda span: span[0]) - 1
    return before >= 0 and at < spans[before][1]


def _between(marks: Sequence[CitationMark], start: int, end: int) -> list[CitationMark]:
    """Of marks in order, those that begin there."""
    first, stop = (bisect_left(marks, at, key=lambda mark: mark.start) for at in (start, end))
    return [*marks[first:stop]]


def _blank_out(text: str, spans: list[tuple[int, int]]) -> str:
    """With spaces in place of the spans, so that offsets stay."""
    parts, at = [], 0
    for start, end in spans:
        parts += [text[at:start], " " * (end - start)]
        at = end
    return "".join([*parts, text[at:]])


def _blocks(text: str, marks: list[CitationMark]) -> Iterator[tuple[int, int, bool]]:
    """Paragraphs, list items, table rows and headings: (start of the words, end, whether it is a heading). A line that
    begins with a mark begins a paragraph; one of marks alone goes on with what is before it."""
    fences = list(markdown.fenced_code(text))
    open_block: tuple[int, int] | None = None
    rows = 0
    for at, line in markdown.lines(text):
        end = at + len(line)
        inside = _between(marks, at, end)
        kind = "code" if _is_inside(at, fences) else _line_kind(line, has_marks=bool(inside))
        words = at + len(line) - len(line.lstrip())
        first = at + _PREFIX.match(line).end()  # type: ignore[union-attr]  # matches everything
        leading = [mark.start for mark in inside if mark.start < first]
        leads = first > words or bool(leading)
        first = min([first, *leading])
        if open_block is not None and (kind == "marks" or (kind == "words" and not leads)):
            open_block = (open_block[0], end)
            continue
        if open_block is not None:
            yield *open_block, False
            open_block = None
        rows = rows + 1 if kind == "row" else rows if kind == "rule" else 0
        if kind == "row":  # without the bars at its ends
            begin = min([at + len(line) - len(line.lstrip(" \t|")), *(mark.start for mark in inside)])
            yield begin, max([at + len(line.rstrip(" \t|")), *(mark.end for mark in inside)]), rows == 1
        elif kind == "heading":
            yield first, end, True
        elif kind in ("words", "marks"):
            open_block = (first, end)
    if open_block is not None:
        yield *open_block, False


def _line_kind(line: str, *, has_marks: bool) -> str:
    if not line.strip():
        return "marks" if has_marks else "blank"
    if markdown.is_break(line) or markdown.is_table_rule(line):
        return "rule"
    if line.lstrip().startswith("|"):
        return "row"
    return "heading" if markdown.heading(line) or _BOLD_HEADING.match(line) else "words"


def _block_sentences(
    plain: str, start: int, end: int, marks: list[CitationMark], *, is_heading: bool
) -> Iterator[Sentence]:
    spans = [_trim(plain, *span) for span in ([(start, end)] if is_heading else sentences(plain, start, end))]
    spans = [span for span in spans if re.search(r"\w", plain[slice(*span)])]
    if not spans:
        if marks:
            yield Sentence(marks[0].start, marks[-1].end, "", tuple(marks))
        return
    leading = bool(marks) and marks[0].start < spans[0][0]
    marks_of_span: list[list[CitationMark]] = [[] for _ in spans]
    for mark in marks:
        at = min(bisect_right(spans, mark.start, key=lambda span: span[1]), len(spans) - 1)
        if mark.start < spans[at][0] and at > 0 and not leading:
            at -= 1
        marks_of_span[at].append(mark)
    for (first, last), own in zip(spans, marks_of_span, strict=True):
        if leading or is_heading:
            yield _sentence(plain, first, last, own, is_heading=is_heading)
        else:
            yield from _split_at_marks(plain, first, last, own)


def _split_at_marks(plain: str, start: int, end: int, marks: list[CitationMark]) -> Iterator[Sentence]:
    """One sentence, or what stands before each of its marks."""
    own: list[CitationMark] = []
    at = start
    for number, mark in enumerate(marks):
        own.append(mark)
        following = marks[number + 1].start if number + 1 < len(marks) else end
        if mark.end < end and _is_substantial(plain[at : mark.start]) and _is_substantial(plain[mark.end : following]):
            yield _sentence(plain, at, mark.end, own)
            at, own = mark.end, []
    yield _sentence(plain, at, end, own)


def _is_substantial(text: str) -> bool:
    return len(content_words(text[-PART_CHARS:])) >= MIN_CONTENT_WORDS


def _sentence(plain: str, start: int, end: int, marks: list[CitationMark], *, is_heading: bool = False) -> Sentence:
    start, end = _trim(plain, start, end)
    text = plain[start:end]
    if marks:
        start, end = min(start, marks[0].start), max(end, marks[-1].end)
    return Sentence(start, end, text, tuple(marks), is_heading)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, max(start, start + len(piece.strip()))

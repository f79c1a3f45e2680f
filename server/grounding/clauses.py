"""A passage in pieces that each say one thing: clauses of prose, cells of tables, whole records.

A number belongs to the words of its own piece: "cards take 5 days, PayPal one day" says nothing of PayPal and 5. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from server.grounding.quantities import Quantity, parse_text
from server.words import sentences, terms

READ_CHARS: Final = 8_000  # of a passage; one that is longer is no prose

_BREAK = re.compile(
    r"[;；:]\s|,\s+(?=\D)|[、，]|\s(?=(?:but|while|whereas)\s)"
    r"|(?<=[이하되]며)\s|(?<=지만)\s|(?<=[하되있없이]고)\s"
)
_ENTRY = re.compile(r"[^\n:|]{1,40}: ")
_CELL = re.compile(r"[^|]+")


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of a passage that says one thing; `start` and `end` bound the sentence or row that it is in."""

    start: int
    end: int
    text: str
    words: frozenset[str]
    quantities: tuple[Quantity, ...]
    continues_topic: bool  # it goes on with what the clause before it is about


def split_clauses(text: str) -> Iterator[Clause]:
    """Clauses of prose, cells of tables (each with the names of its row and column), whole records; of the first
    `READ_CHARS`."""
    text = text[:READ_CHARS]
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and sum(bool(_ENTRY.match(line)) for line in lines) >= 0.6 * len(lines):
        yield _clause(0, len(text), text, continues_topic=False)
        return
    at = 0
    header: list[str] | None = None
    prose_from: int | None = None
    for line in text.split("\n"):
        start, at = at, at + len(line) + 1
        if not line.lstrip().startswith("|"):
            prose_from = start if prose_from is None else prose_from
            header = None
            continue
        if prose_from is not None:
            yield from _prose(text, prose_from, start)
            prose_from = None
        cells = [cell.strip() for cell in _CELL.findall(line.strip().strip("|"))]
        if header is None:
            header = cells
        elif any(re.search(r"\w", cell) for cell in cells):
            for number, cell in enumerate(cells[1:] or cells, 1 if len(cells) > 1 else 0):
                column = header[number] if number < len(header) else ""
                yield _clause(start, start + len(line), f"{cells[0]} {column} {cell}", continues_topic=False)
    if prose_from is not None:
        yield from _prose(text, prose_from, len(text))


def _prose(text: str, start: int, end: int) -> Iterator[Clause]:
    for first, last in sentences(text, start, end):
        at = first
        for cut in [*(match.end() for match in _BREAK.finditer(text, first, last)), last]:
            if text[at:cut].strip():
                yield _clause(first, last, text[at:cut], continues_topic=True)
            at = cut


def _clause(start: int, end: int, text: str, *, continues_topic: bool) -> Clause:
    parsed = parse_text(text)
    return Clause(start, end, text, frozenset(terms(parsed.rest)), parsed.quantities, continues_topic)

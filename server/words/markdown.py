"""Which lines of Markdown are code, headings, rules or rows of a table (CommonMark 0.31, GitHub's tables).

For who reads texts that people and models write, where fences stand inside of lists at any depth: their indentation is
not counted. Linear in the text. Pure functions; knows nothing of sentences, chunks or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_FENCE = re.compile(r"[ \t]*(?:(?P<ticks>`{3,})[^`]*|(?P<tildes>~{3,}).*)$")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
_BREAK = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_RULE_CELL = re.compile(r":?-+:?")


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with the offset of its begin."""
    at = 0
    for line in text.split("\n"):
        yield at, line
        at += len(line) + 1


def fenced_code(text: str) -> Iterator[tuple[int, int]]:
    """Spans of fenced code, fences included; one that nothing closes goes on to the end. A fence closes with the same
    sign, at least as often, and nothing behind it."""
    opened: tuple[int, str] | None = None
    for at, line in lines(text):
        match = _FENCE.match(line)
        if match is None:
            continue
        mark = match["ticks"] or match["tildes"]
        if opened is None:
            opened = (at, mark)
        elif mark.startswith(opened[1]) and line.strip() == mark:
            yield opened[0], at + len(line)
            opened = None
    if opened is not None:
        yield opened[0], len(text)


def heading(line: str) -> tuple[int, str] | None:
    """(level, title as it is written) of a line '## Title'; None for any other."""
    match = _HEADING.match(line)
    return (len(match[1]), line[match.end() :]) if match else None


def is_break(line: str) -> bool:
    """A line between parts: ***, ---, ___."""
    return _BREAK.match(line.rstrip()) is not None


def is_table_rule(line: str) -> bool:
    """The line under a table's headers: |---|:--:|."""
    rule = line.strip()
    if "-" not in rule or "|" not in rule:
        return False
    cells = rule.removeprefix("|").removesuffix("|").split("|")
    return all(_RULE_CELL.fullmatch(cell.strip(" \t")) for cell in cells)

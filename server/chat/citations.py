"""Finds `[n]` in an answer and says which passage each points to."""

from __future__ import annotations

import re

from server.chat.events import Citation
from server.types import Passage

_MARK = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


def find_citations(text: str, passages: tuple[Passage, ...]) -> tuple[tuple[Citation, ...], tuple[int, ...]]:
    """Each cited passage once, in order of first mention; and the numbers that point to none."""
    numbers: list[int] = []
    for mark in _MARK.finditer(text):
        numbers += [int(part) for part in mark.group(1).split(",")]
    unique = list(dict.fromkeys(numbers))
    valid = tuple(Citation(n, passages[n - 1].id) for n in unique if 1 <= n <= len(passages))
    return valid, tuple(n for n in unique if not 1 <= n <= len(passages))

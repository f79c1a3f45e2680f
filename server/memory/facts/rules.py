"""Extracts the statements worth storing from a message. English and Korean; the user's own words only.

Knows nothing of storage, recall or models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from server.memory.facts import english, korean
from server.memory.facts.findings import Finding
from server.memory.reading import dates
from server.memory.reading.own_words import Span, sentences
from server.memory.reading.sensitive import is_prompt_injection, is_sensitive
from server.types import MemoryKind

MAX_FINDINGS = 10  # of one message; a longer list is pasted
_REMEMBER_REQUEST = re.compile(
    r"\b(?:remember|memori[sz]e|don't forget|do not forget|never forget|make a note|save (?:this|that|it))\b"
    r"|기억|잊지|까먹지|메모|저장해",
    re.IGNORECASE,
)


def extract(text: str, at: float | None = None) -> tuple[Finding, ...]:
    """Statements in the order of the message, each quoted by its position. `text` is `reading.clean`.

    `at` is when it was said (seconds since 1970; None: now), from which "next Friday" is counted.

    Deterministic and linear in the text. Nothing that looks like a secret comes out.
    """
    found: list[Finding] = []
    for span, in_sentence in _by_sentence(text, at):
        if not is_prompt_injection(span.source):
            found += [finding for finding in in_sentence if not is_sensitive(text[finding.start : finding.end])]
        if len(found) >= MAX_FINDINGS:
            break
    return tuple(found[:MAX_FINDINGS])


def extract_held_back(text: str, at: float | None = None) -> tuple[Finding, ...]:
    """What the user asked to be remembered and `extract` leaves out, with its `reason`. `text` is `reading.clean`.

    "secret": it looks like a password, a key or a number of the kind. "order": it would change what the model is.
    """
    found: list[Finding] = []
    for span, in_sentence in _by_sentence(text, at):
        if in_sentence and _REMEMBER_REQUEST.search(span.masked):
            is_injection = is_prompt_injection(span.source)
            found += [
                replace(finding, reason="order" if is_injection else "secret")
                for finding in in_sentence
                if is_injection or is_sensitive(text[finding.start : finding.end])
            ]
    return tuple(found[:MAX_FINDINGS])


def _by_sentence(text: str, at: float | None) -> Iterator[tuple[Span, tuple[Finding, ...]]]:
    previous: Span | None = None
    for span in sentences(text, at):
        found = english.find(span, previous)
        if not found and span.korean:
            found = korean.find(span, previous)
        yield span, tuple(_with_date(finding, span) for finding in found)
        previous = span


def _with_date(finding: Finding, span: Span) -> Finding:
    """A plain fact that says 'tomorrow' gets the date, or it would mean another day when it is read."""
    if finding.kind is not MemoryKind.FACT:
        return finding
    day = dates.find_date(finding.text, span.at, prefer_future=True)
    if day is None or not day.is_relative:
        return finding
    return replace(finding, text=f"{finding.text.rstrip('.')} ({day.iso}).")

"""A message in, the statements worth keeping out. English and Korean; the user's own words only."""

from __future__ import annotations

from dataclasses import replace

from server.memory import english, korean
from server.memory.findings import Finding
from server.memory.reading import Span, sentences
from server.memory.sensitive import is_sensitive

MOST_FINDINGS = 10  # of one message; a longer list is pasted


def extract(text: str, at: float | None = None) -> tuple[Finding, ...]:
    """Statements in the order of the message, each quoted by its position. `text` is `reading.clean`.

    `at` is when it was said (seconds since 1970; None: now), from which "next Friday" is counted.

    Deterministic and linear in the text. Nothing that looks like a secret comes out.
    """
    found: list[Finding] = []
    earlier: Span | None = None
    for span in sentences(text, at):
        here = english.find(span, earlier)
        if not here and span.korean:
            here = korean.find(span, earlier)
        found += [finding for finding in here if not is_sensitive(text[finding.start : finding.end])]
        earlier = span
        if len(found) >= MOST_FINDINGS:
            break
    return tuple(found[:MOST_FINDINGS])


def held_back(text: str, at: float | None = None) -> tuple[Finding, ...]:
    """What the user asked to be remembered and `extract` left out, with its `reason`. `text` is `reading.clean`."""
    found: list[Finding] = []
    earlier: Span | None = None
    for span in sentences(text, at):
        here = english.find(span, earlier) or (korean.find(span, earlier) if span.korean else ())
        found += [replace(one, reason="secret") for one in here if is_sensitive(text[one.start : one.end])]
        earlier = span
    return tuple(found[:MOST_FINDINGS])

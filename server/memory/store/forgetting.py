"""Which memories "forget that I …" means. A partial match is left alone: deleting cannot be undone."""

from __future__ import annotations

from collections.abc import Sequence

from server.memory.facts.findings import normalised
from server.memory.facts.rules import extract
from server.memory.recall.question import parse_intent
from server.memory.recall.relevance import QueryWord, memory_terms, parse_query
from server.memory.store.statement import one_line, slot_of_statement
from server.memory.store.table import Row

MIN_OVERLAP = 0.99  # share of the words of what is to be forgotten that a memory must have


def matching_rows(about: str, rows: Sequence[Row]) -> list[Row]:
    """The rows that say `about`, answer the question it names ("my name") or have all its words, with their older
    and newer answers."""
    statements = [one_line(about), *(one_line(found.text) for found in extract(about))]
    same = {normalised(text) for text in statements if text}
    slots = {slot.name for text in statements if (slot := slot_of_statement(text))}
    matches = [row for row in rows if row["normal"] in same or (row["slot"] in slots and not row["subject"])]
    if not matches:
        named = parse_intent(about).slots
        matches = [row for row in rows if row["slot"] in named and not row["subject"]]
    if not matches:
        words = parse_query(about).words
        matches = [
            row for row in rows if _overlap(words, memory_terms(f"{row['text']} {row['subject']}")) >= MIN_OVERLAP
        ]
    questions = {(row["slot"], row["subject"]) for row in matches if row["slot"]}
    ids = {row["id"] for row in matches}
    return [row for row in rows if row["id"] in ids or (row["slot"], row["subject"]) in questions]


def _overlap(words: Sequence[QueryWord], terms: frozenset[str]) -> float:
    """How much of the words the memory has; 0 where there are none."""
    total = sum(word.weight for word in words)
    return sum(word.weight for word in words if word.is_in(terms)) / total if total else 0.0

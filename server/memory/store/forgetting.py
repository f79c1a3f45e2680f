"""Which memories "forget that I …" means. What fits only by half is left alone: deleting cannot be undone."""

from __future__ import annotations

from collections.abc import Sequence

from server.memory.facts.findings import normal
from server.memory.facts.rules import extract
from server.memory.recall.question import asked
from server.memory.recall.relevance import Unit, read, terms
from server.memory.store.statement import flat, slot_in
from server.memory.store.table import Row

FITS = 0.99  # share of the words of what is to be forgotten


def meant(about: str, rows: Sequence[Row]) -> list[Row]:
    """The rows that say `about`, answer the question it names ("my name") or have all its words, with their older
    and newer answers."""
    said = [flat(about), *(flat(found.text) for found in extract(about))]
    same = {normal(text) for text in said if text}
    slots = {slot.name for text in said if (slot := slot_in(text))}
    direct = [row for row in rows if row["normal"] in same or (row["slot"] in slots and not row["subject"])]
    if not direct:
        named = asked(about).slots
        direct = [row for row in rows if row["slot"] in named and not row["subject"]]
    if not direct:
        units = read(about).units
        direct = [row for row in rows if _share(units, terms(f"{row['text']} {row['subject']}")) >= FITS]
    questions = {(row["slot"], row["subject"]) for row in direct if row["slot"]}
    ids = {row["id"] for row in direct}
    return [row for row in rows if row["id"] in ids or (row["slot"], row["subject"]) in questions]


def _share(units: Sequence[Unit], memory: frozenset[str]) -> float:
    """How much of the words the memory has; 0 where there are none."""
    total = sum(unit.weight for unit in units)
    return sum(unit.weight for unit in units if unit.is_in(memory)) / total if total else 0.0

"""Which memories "forget that I …" means. What fits only by half is left alone: deleting cannot be undone."""

from __future__ import annotations

from collections.abc import Sequence

from server.memory.findings import normal
from server.memory.relevance import terms
from server.memory.rules import extract
from server.memory.statement import flat, slot_in
from server.memory.table import Row
from server.memory.vectors import Vectors


def meant(about: str, rows: Sequence[Row], vectors: Vectors) -> list[Row]:
    said = [flat(about), *(found.text for found in extract(about))]
    same = {normal(text) for text in said}
    slots = {slot.name for text in said if (slot := slot_in(text))}
    wanted = terms(about)
    direct = [
        row
        for row in rows
        if row["normal"] in same or row["slot"] in slots or (wanted and wanted <= terms(row["text"]))
    ]
    questions = {(row["slot"], row["subject"]) for row in direct if row["slot"]}
    ids = {row["id"] for row in direct}
    return [row for row in rows if row["id"] in ids or (row["slot"], row["subject"]) in questions]

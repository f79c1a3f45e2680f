"""Checks of a text that is to be stored: one clean line within the rules, with its kind and its slot."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from server.config import MemorySettings
from server.errors import InvalidInput, TooLarge
from server.memory.facts.findings import IDENTITY_SLOTS, Finding, Slot, slot_of
from server.memory.facts.rules import extract
from server.memory.reading.own_words import clean
from server.memory.reading.sensitive import is_sensitive
from server.types import MemoryKind

# Zero-width and direction marks, which hide text; the joiner of emoji and scripts stays.
_INVISIBLE = frozenset("\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")


@dataclass(frozen=True, slots=True)
class PendingMemory:
    """A checked memory with its vector, ready to be written."""

    finding: Finding
    quote: str
    slot: Slot | None
    vector: bytes


def given_times(found: Finding) -> dict[str, float]:
    """The times that a statement of what is known brings with it."""
    times = {"valid_from": found.valid_from, "valid_to": found.valid_to}
    return {name: at for name, at in times.items() if at is not None}


def one_line(text: str) -> str:
    """One line without control characters: a memory is a line of the prompt and must not end it."""
    text = clean(text)
    if text.isprintable():  # nearly every text
        return " ".join(text.split())
    spaced = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text)
    return " ".join("".join(char for char in spaced if char not in _INVISIBLE).split())


def validated(text: str, settings: MemorySettings, *, confirmed: bool = False) -> str:
    """`one_line`, or InvalidInput (nothing left, a secret that the user has not `confirmed`) and TooLarge."""
    most = settings.max_chars
    if len(text) > 100 * most:  # not worth cleaning
        raise _too_large(len(text), most)
    line = one_line(text)
    if not line:
        raise InvalidInput("a memory needs some text: write what is to be kept, or delete the memory")
    if len(line) > most:
        raise _too_large(len(line), most)
    if is_sensitive(line) and not confirmed:
        raise InvalidInput(
            "this looks like a password, a key, a card number or an identity number; memories are put into "
            "prompts, so it is not kept: leave the number out"
        )
    return line


def slot_of_statement(text: str) -> Slot | None:
    """The slot that the whole of `text` fills, typed in the first person or stored in the third."""
    found = _whole_finding(text)
    return slot_of(text) or (slot_of(found.text) if found else None)


def kind_of_statement(text: str) -> MemoryKind:
    found = _whole_finding(text)
    if found:
        return found.kind
    slot = slot_of(text)
    if slot is None:
        return MemoryKind.FACT
    return MemoryKind.IDENTITY if slot.name in IDENTITY_SLOTS else MemoryKind.PREFERENCE


def _whole_finding(text: str) -> Finding | None:
    """The finding that is the whole of `text`."""
    found = extract(text)
    return found[0] if len(found) == 1 and found[0].end - found[0].start >= len(text.strip(" .!。")) else None


def _too_large(length: int, most: int) -> TooLarge:
    return TooLarge(
        f"a memory may have at most {most:,} characters and this has {length:,}: shorten it, or raise memory.max_chars"
    )

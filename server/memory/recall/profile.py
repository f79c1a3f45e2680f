"""The profile: the few memories that are part of every prompt. How to address the user, and their standing orders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from server.memory.facts.findings import ADDRESS, NAME
from server.types import MemoryKind

PROFILE_SLOTS = ("language", "speech level", ADDRESS, NAME)
INSTRUCTION_RANK = len(PROFILE_SLOTS)  # standing orders come after the slots
NOT_IN_PROFILE = INSTRUCTION_RANK + 1

# A preference for how answers are, not for a thing.
_ANSWER_STYLE = re.compile(
    r"\b(?:answers?|repl(?:y|ies)|responses?|explanations?|explained|summar(?:y|ies)|bullet|emojis?|tone|formal|informal|casual"
    r"|concise|brief|terse|verbose|detailed|details|step by step|step-by-step|tables?|examples?|metric|imperial|celsius"
    r"|fahrenheit|kilomet\w+|units?|markdown|code comments?|plain (?:text|language|english)|jargon|dark mode)\b"
    r"|답변|대답|답을|설명|말투|존댓말|반말|높임말|이모지|이모티콘|예시|간결|짧은|짧게|자세한|자세히|표로|단위|요약",
    re.IGNORECASE,
)

_Row = TypeVar("_Row", bound=Mapping[str, Any])


def profile_rank(row: Mapping[str, Any]) -> int:
    """The position in the profile, or `NOT_IN_PROFILE`."""
    if row["subject"]:
        return NOT_IN_PROFILE
    if row["slot"] in PROFILE_SLOTS:
        return PROFILE_SLOTS.index(row["slot"])
    is_style = row["kind"] == MemoryKind.PREFERENCE and _ANSWER_STYLE.search(row["text"])
    return INSTRUCTION_RANK if row["kind"] == MemoryKind.INSTRUCTION or is_style else NOT_IN_PROFILE


def in_profile_order(rows: Iterable[_Row]) -> list[_Row]:
    """The profile first, then the rest; each as it came."""
    return sorted(rows, key=profile_rank)

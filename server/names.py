"""What may be the name of a folder of knowledge: one rule for prompt files, the API and the page. Knows no disk."""

from __future__ import annotations

import unicodedata
from typing import Final

from server.words import normalize

MAX_FOLDER_CHARS: Final = 64
FOLDER_RULE: Final = (
    f'1 to {MAX_FOLDER_CHARS} letters of any script, digits, spaces or signs but / \\ < > : " | ? *, '
    "with no dot or space first or last"
)
_REFUSED: Final = frozenset('/\\<>:"|?*')


def folder_name(text: str) -> str | None:
    """The name in its composed Unicode form, as it is stored and compared; None for what cannot name a folder."""
    if not 0 < len(text) <= 4 * MAX_FOLDER_CHARS:  # before it is composed
        return None
    name = normalize(text, "NFC")
    if len(name) > MAX_FOLDER_CHARS or name != name.strip() or name[0] == "." or name[-1] == ".":
        return None
    if any(char in _REFUSED or unicodedata.category(char)[0] == "C" for char in name):
        return None
    return name

"""Which script a text is written in, by its letters. Pure functions."""

from __future__ import annotations

import re
from typing import Final

_HANGUL = re.compile("[\uac00-\ud7a3\u3131-\u318e]")
_SCRIPTS: Final = (
    ("hangul", re.compile("[\uac00-\ud7a3]")),
    ("kana", re.compile("[\u3040-\u30ff]")),
    ("han", re.compile("[\u3400-\u9fff]")),
    ("latin", re.compile("[A-Za-z\u00c0-\u024f]")),
)


def has_hangul(text: str) -> bool:
    """Whether a Korean syllable or a single letter of one (ㅋㅋ) stands in it."""
    return _HANGUL.search(text) is not None


def detect_script(text: str) -> str:
    """The script of most letters, a syllable of Korean counting as much as two Latin letters; '' without letters."""
    counts = {name: len(pattern.findall(text)) * (1 if name == "latin" else 2) for name, pattern in _SCRIPTS}
    if counts["kana"]:
        counts["kana"] += counts.pop("han")
    best = max(counts, key=lambda name: counts[name])
    other = sum(char.isalpha() for char in text) if not counts[best] else 0
    return best if counts[best] else ("other" if other else "")

"""Which scripts a text is written in, by its letters. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_HANGUL = re.compile("[\uac00-\ud7a3\u3131-\u318e]")
_LATIN: Final = "latin"
_OTHER: Final = "other"
_SCRIPTS: Final = (
    ("hangul", re.compile("[\uac00-\ud7a3]")),
    ("kana", re.compile("[\u3040-\u30ff]")),
    ("han", re.compile("[\u3400-\u9fff]")),
    (_LATIN, re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")),
    ("cyrillic", re.compile("[\u0400-\u052f]")),
    ("greek", re.compile("[\u0370-\u03ff]")),
    ("hebrew", re.compile("[\u0590-\u05ff]")),
    ("arabic", re.compile("[\u0600-\u06ff\u0750-\u077f]")),
    ("devanagari", re.compile("[\u0900-\u097f]")),
    ("thai", re.compile("[\u0e00-\u0e7f]")),
)
_NUMBERS: Final = {name: number for number, name in enumerate((*(name for name, _ in _SCRIPTS), _OTHER), start=1)}
_SYLLABLES: Final = {"hangul": 2, "kana": 2, "han": 2}  # a character says as much as so many letters


def has_hangul(text: str) -> bool:
    """Whether a Korean syllable or a single letter of one (ㅋㅋ) stands in it."""
    return _HANGUL.search(text) is not None


def script_shares(text: str) -> Mapping[str, float]:
    """The share of each script among a text's letters, a syllable counting as two; {} without letters.

    Han beside kana is Japanese, and counted as kana. Letters of scripts that have no name here are "other".
    """
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS}
    letters = sum(map(str.isalpha, text))
    rest = letters - sum(counts.values())
    counts = {name: count * _SYLLABLES.get(name, 1) for name, count in counts.items()}
    if counts["kana"]:
        counts["kana"] += counts.pop("han")
    if not any(counts.values()) and rest > 0:
        counts[_OTHER] = rest
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items() if count}


def detect_script(text: str) -> str:
    """The script of most letters, a syllable of Korean counting as much as two Latin letters; '' without letters."""
    shares = script_shares(text)
    return max(shares, key=lambda name: shares[name]) if shares else ""


def script_number(text: str) -> int:
    """The script of most letters as a small number, so that arrays can hold it; 0 without letters."""
    return _NUMBERS.get(detect_script(text), 0)

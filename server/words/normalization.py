"""Unicode normal forms in linear time, whatever the text.

A normaliser sorts each run of combining marks, which takes the square of the run's length and lets no other thread run
meanwhile. So a longer run is broken first, as in the Stream-Safe Text Process (UAX #15, section 13): after 30 marks
stands U+034F COMBINING GRAPHEME JOINER, which is not shown. Nothing is left out, so texts that differ go on to differ.
Text that people write has no such runs and stays as it is. Pure functions; knows nothing of what a text is for.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

MOST_MARKS: Final = 30
JOINER: Final = "\u034f"

# Canonical combining class above 0, and the few signs of class 0 that decompose into such marks alone.
_MARKS = "".join(filter(unicodedata.combining, map(chr, range(0x300, 0x20000)))) + "\u0f73\u0f75\u0f81\uff9e\uff9f"
_FULL_RUN = re.compile(f"[{_MARKS}]{{{MOST_MARKS}}}(?=[{_MARKS}])")
# Thirty times as fast, since `re` looks up single characters beyond U+FFFF one by one; takes some letters for marks.
_NEARLY_MARK = f"[{''.join(mark for mark in _MARKS if mark <= chr(0xFFFF))}\U00010000-{max(_MARKS)}]"
_MAY_BE_LONG_RUN = re.compile(f"{_NEARLY_MARK}{_NEARLY_MARK}{{{MOST_MARKS}}}")


def normalize(text: str, form: Form) -> str:
    """`text` in that form, with no run of more than 30 combining marks."""
    if text.isascii():
        return text
    return _broken(unicodedata.normalize(form, _broken(text)))  # again: a letter's decomposition can lengthen a run


def _broken(text: str) -> str:
    return _FULL_RUN.sub(rf"\g<0>{JOINER}", text) if _MAY_BE_LONG_RUN.search(text) else text


def printable(name: str) -> str:
    """A file's name as UTF-8 can carry it: on disk it may hold any bytes, which Python reads as lone surrogates."""
    return name.encode(errors="backslashreplace").decode()

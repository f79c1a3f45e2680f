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

import numpy as np

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

MOST_MARKS: Final = 30
JOINER: Final = "\u034f"

# Canonical combining class above 0, and the few signs of class 0 that decompose into such marks alone.
_MARKS = "".join(filter(unicodedata.combining, map(chr, range(0x300, 0x20000)))) + "\u0f73\u0f75\u0f81\uff9e\uff9f"
_IS_MARK = np.zeros(0x20000, dtype=np.bool_)
_IS_MARK[[ord(mark) for mark in _MARKS]] = True
_FULL_RUN = re.compile(f"[{_MARKS}]{{{MOST_MARKS}}}(?=[{_MARKS}])")


def normalize(text: str, form: Form) -> str:
    """`text` in that form, with no run of more than 30 combining marks."""
    if text.isascii():
        return text
    return _broken(
        unicodedata.normalize(form, _broken(text))
    )  # again: what a letter decomposes into makes a run longer


def _broken(text: str) -> str:
    return _FULL_RUN.sub(rf"\g<0>{JOINER}", text) if _has_long_run(text) else text


def _has_long_run(text: str) -> bool:
    if len(text) <= MOST_MARKS:
        return False
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    places = np.flatnonzero(_IS_MARK[np.minimum(codes, len(_IS_MARK) - 1)])
    return bool(np.any(places[MOST_MARKS:] - places[:-MOST_MARKS] == MOST_MARKS))

"""The words of a PDF's page with their places, and the paragraphs they make.

Words and letters are PDFium's. Where a font does not say which letters it draws, its words are left out and counted.
Text in another direction than most of the page's comes after it. Knows nothing of the document around the page.
"""

from __future__ import annotations

import ctypes
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from pypdfium2 import PdfTextPage, raw

from server.retrieval.loaders.pdf_layout import RIGHT_TO_LEFT, Paragraph, Word, paragraphs

MAX_PLACED: Final = 200_000  # characters of one page; one with more is read in the order of the file
_HYPHENS: Final = "\ufffe\x02"  # PDFium's for a hyphen at the end of a line whose word goes on
_PLAIN: Final = {ord(hyphen): "" for hyphen in _HYPHENS} | {ord("\r"): ""}
_UNREADABLE: Final = ("Co", "Cn", "Cc", "Cs")  # Unicode's categories of private use, and of no character
_EAST_ASIAN: Final = ("W", "F")  # widths, as Unicode says them
_DOWN: Final = 3  # quarter turns of text that runs from the top to the bottom
_OTHER_LINE: Final = 0.7  # of a letter's height between two letters that are not on one line
_SAME_COLUMN: Final = 0.3  # … and between the middles of two that stand one above the other
_PUNCTUATION: Final = ".,:;!?()[]\"'“”‘’«»…·•-–—/%"
_REGULAR: Final = 0.6  # share of words that look like words, where the font is not trusted


@dataclass(frozen=True, slots=True)
class PageText:
    """`letters` are the characters in the paragraphs, `unreadable` those that were left out."""

    paragraphs: tuple[Paragraph, ...]
    letters: int
    unreadable: int


def page_text(page: PdfTextPage) -> PageText:
    count = max(0, raw.FPDFText_CountChars(page))
    text = page.get_text_range() if count else ""
    if count > MAX_PLACED:
        plain = text.translate(_PLAIN)
        readable = "".join(char for char in plain if char in "\n\t" or _is_readable(char))
        return PageText((Paragraph(readable, 0.0),), len(readable), len(plain) - len(readable))
    pieces = _pieces(page, text)
    trusted = _look_like_words([piece.word.text for piece in pieces if len(piece.mapped) < len(piece.word.text)])
    words: dict[int, list[Word]] = {}
    unreadable = 0
    for piece in pieces:
        word = piece.word
        readable = "".join(filter(_is_readable, word.text if trusted else piece.mapped))
        if len(word.text) > 1 or not piece.mapped:  # a single one of private use is the bullet of a list
            unreadable += len(word.text) - len(readable)
        if readable:
            words.setdefault(piece.turn, []).append(replace(word, text=readable))
    found: list[Paragraph] = []
    for turn in sorted(words, key=lambda one: -len(words[one])):
        found += paragraphs(words[turn])
    return PageText(tuple(found), sum(len(one.text) for one in found), unreadable)


def _is_readable(char: str) -> bool:
    return unicodedata.category(char) not in _UNREADABLE and char != "\ufffd"


def _look_like_words(texts: list[str]) -> bool:
    """Some fonts do not say which letters they draw, though their codes are those of the letters; others' are numbers
    of pictures, which make strings such as "3HQČå"."""
    words = [bare for text in texts if len(bare := text.strip(_PUNCTUATION)) > 1]
    regular = sum(word.isdecimal() or (word.isalpha() and word[1:].islower()) for word in words)
    return regular >= _REGULAR * len(words) and bool(words)


# ── words and their places ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Piece:
    """`turn`: quarter turns to the left, of its writing on the page. `mapped`: those letters of the word that its font
    says."""

    word: Word
    turn: int
    mapped: str


def _pieces(page: PdfTextPage, text: str) -> list[_Piece]:
    """Words, each on one line, in the order of the file."""
    found: list[_Piece] = []
    same = raw.FPDFText_CountChars(page) == len(text)
    for start, end in _spans(text):
        places = range(start, end) if same else [_place(page, at) for at in range(start, end)]
        before = text[start - 1 : start]
        found += _parts(page, text[start:end], places, spaced=before.isspace() and before != "\n")
    return [_downwards(piece) for piece in found] if _is_vertical(found) else found


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Of words; a hyphen at the end of a line ends one."""
    start = 0
    for at, char in enumerate(text):
        if char.isspace():
            if start < at:
                yield start, at
            start = at + 1
        elif char in _HYPHENS:
            if start < at:
                yield start, at + 1
            start = at + 1
    if start < len(text):
        yield start, len(text)


def _place(page: PdfTextPage, at: int) -> int:
    """PDFium counts letters otherwise than the characters of its text."""
    return int(raw.FPDFText_GetCharIndexFromTextIndex(page, at))


def _parts(page: PdfTextPage, text: str, places: Sequence[int], *, spaced: bool) -> Iterator[_Piece]:
    """The word; or its letters, where the file draws them in another order or on several lines."""
    turn = round(-max(0.0, raw.FPDFText_GetCharAngle(page, places[0])) / (math.pi / 2)) % 4
    if text[-1] in _HYPHENS:
        text = f"{text[:-1]}-"
    first, last = _box(page, places[0], turn), _box(page, places[-1], turn)
    size = max(first[3] - first[2], 1.0)
    apart = abs(last[2] + last[3] - first[2] - first[3]) / 2 > _OTHER_LINE * size
    if apart or (last[0] < first[0] and unicodedata.bidirectional(text[0]) not in RIGHT_TO_LEFT):
        for letter, place in zip(text, places, strict=True):
            word = _word(letter, _box(page, place, turn), spaced=apart and spaced)
            yield _Piece(word, turn, _mapped(page, letter, (place,)))
            spaced = False
        return
    box = (min(first[0], last[0]), max(first[1], last[1]), first[2], first[3])
    yield _Piece(_word(text, box, spaced=spaced), turn, _mapped(page, text, places))


def _word(text: str, box: tuple[float, float, float, float], *, spaced: bool) -> Word:
    left, right, top, bottom = box
    return Word(text, left, right, (top + bottom) / 2, max(bottom - top, 1.0), spaced)


def _mapped(page: PdfTextPage, text: str, places: Sequence[int]) -> str:
    unmapped = [raw.FPDFText_HasUnicodeMapError(page, place) == 1 for place in places]
    return "".join(char for char, bad in zip(text, unmapped, strict=True) if not bad) if any(unmapped) else text


def _box(page: PdfTextPage, place: int, turn: int) -> tuple[float, float, float, float]:
    """A letter's left, right, top and bottom along its own direction of writing."""
    rect = raw.FS_RECTF()
    raw.FPDFText_GetLooseCharBox(page, place, ctypes.byref(rect))
    left, right = sorted((_finite(rect.left), _finite(rect.right)))
    bottom, top = sorted((_finite(rect.bottom), _finite(rect.top)))
    return (
        (left, right, -top, -bottom), (bottom, top, left, right), (-right, -left, bottom, top),
        (-top, -bottom, -right, -left),
    )[turn]  # fmt: skip


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _is_vertical(pieces: list[_Piece]) -> bool:
    """Most of it are letters of East Asia that stand one below the other."""
    below = 0
    for one, two in pairwise(pieces):
        a, b = one.word, two.word
        if one.turn == two.turn == 0 and len(a.text) == 1 and unicodedata.east_asian_width(a.text) in _EAST_ASIAN:
            beside = abs(a.left + a.right - b.left - b.right) / 2
            below += beside < _SAME_COLUMN * a.size and _OTHER_LINE / 2 < (b.middle - a.middle) / a.size < 2
    return 2 * below > len(pieces)


def _downwards(piece: _Piece) -> _Piece:
    """As text that runs down, its lines from the right to the left."""
    if piece.turn:
        return piece
    word = piece.word
    top, bottom = word.middle - word.size / 2, word.middle + word.size / 2
    turned = replace(
        word, left=top, right=bottom, middle=-(word.left + word.right) / 2, size=max(word.right - word.left, 1.0)
    )
    return replace(piece, word=turned, turn=_DOWN)

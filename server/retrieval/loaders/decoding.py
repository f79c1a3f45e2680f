"""Bytes of a text file to text with plain line ends.

A byte-order mark decides; then UTF-16 by its zero bytes; then encodings of seven bits (ISO-2022, in mail from Japan
and Korea); then strict UTF-8; then what the file says of itself, in the encoding that programs mean by it; then CP949
(which holds EUC-KR) where the result is Korean; then CP1252 where accented letters are single between ASCII; then
charset-normalizer's best guess. Text that is really a binary file is refused.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

from charset_normalizer import from_bytes

from server.errors import KnowledgeError

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MEANT: Final = {  # by what is declared
    "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "euc-kr": "cp949", "ks_c_5601-1987": "cp949",
    "ks_c_5601-1989": "cp949", "ks_c_5601": "cp949", "ksc5601": "cp949", "x-windows-949": "cp949",
    "windows-949": "cp949", "windows-950": "cp950",
    "shift_jis": "cp932", "shift-jis": "cp932", "sjis": "cp932", "x-sjis": "cp932", "windows-31j": "cp932",
    "big5": "big5hkscs", "x-x-big5": "big5hkscs", "tis-620": "cp874", "iso-8859-1": "cp1252", "latin1": "cp1252",
    "us-ascii": "cp1252", "ascii": "cp1252", "iso-8859-9": "cp1254", "iso-2022-jp": "iso2022_jp_2",
    "x-user-defined": "cp1252",
}  # fmt: skip
_WESTERN: Final = ("cp1252", "windows-1252", "iso-8859-15", "latin-1")  # every byte is a letter: it proves nothing
_SEVEN_BITS: Final = ("iso2022", "iso-2022", "hz", "hz-gb-2312", "utf-7")
_NOT_ENCODINGS: Final = ("punycode", "idna", "unicode_escape", "raw_unicode_escape")  # Python's own, for names and code
_SHIFTS = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$", "iso2022_jp_2"), (b"\x1b(J", "iso2022_jp_2"))
_SAMPLE = 64 * 1024
_HIGH_PAIR = re.compile(rb"[\x80-\xff]{2}")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def decode(data: bytes, declared: str | None = None) -> str:
    """The text, with `\\n` line ends and without a byte-order mark.

    `declared` is an encoding that the file itself names (HTML). Raises KnowledgeError when no
    encoding fits or the content is not text.
    """
    text = _decode_any(data, declared)
    if len(_CONTROL.findall(text[:_SAMPLE])) > 0.01 * len(text[:_SAMPLE]):
        raise KnowledgeError("the content is not text: a binary file with a text file's name")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode_any(data: bytes, declared: str | None) -> str:
    for bom, name in _BYTE_ORDER_MARKS:
        if data.startswith(bom):
            return _required(_decode_strictly(data, name))
    declared = _MEANT.get(declared.strip().lower(), declared.strip().lower()) if declared else None
    for candidate in (_utf16(data), _seven_bits(data, declared), "utf-8", None if declared in _WESTERN else declared):
        text = _decode_strictly(data, candidate) if candidate else None
        if text is not None:
            return text
    korean = _decode_strictly(data, "cp949") if declared not in _WESTERN or _HIGH_PAIR.search(data) else None
    if korean is not None and _is_korean(korean):
        return korean
    if not _HIGH_PAIR.search(data):
        western = _decode_strictly(data, "cp1252")
        if western is not None:
            return western
    best = from_bytes(data[: 8 * _SAMPLE]).best()
    return _required(_decode_strictly(data, best.encoding) if best is not None else None)


def _required(text: str | None) -> str:
    if text is None:
        raise KnowledgeError("the encoding is not recognised, or the content is not text: save the file as UTF-8")
    return text


def _decode_strictly(data: bytes, name: str) -> str | None:
    if name.replace("-", "_") in _NOT_ENCODINGS:
        return None
    try:
        return data.decode(name)
    except (ValueError, LookupError):
        return None


def _utf16(data: bytes) -> str | None:
    """UTF-16 without a mark: one byte of most pairs is zero in Western text, or many in mixed text."""
    sample = data[:_SAMPLE]
    pairs = len(sample) // 2
    if not pairs or len(data) % 2:
        return None
    low, high = sample[0::2].count(0), sample[1::2].count(0)
    if high > 0.1 * pairs and high > 4 * low:
        return "utf-16-le"
    if low > 0.1 * pairs and low > 4 * high:
        return "utf-16-be"
    return None


def _seven_bits(data: bytes, declared: str | None) -> str | None:
    """ISO-2022 and its like look like plain ASCII to every other encoding."""
    if declared and declared.startswith(_SEVEN_BITS):
        return declared
    sample = data[:_SAMPLE]
    if b"\x1b" not in sample or not data.isascii():
        return None
    return next((name for shift, name in _SHIFTS if shift in sample), None)


def _is_korean(text: str) -> bool:
    """Most letters outside ASCII are Hangul syllables. Other encodings read as CP949 give rare Chinese."""
    foreign = [char for char in text[:_SAMPLE] if ord(char) > 127 and char.isalpha()]
    hangul = sum("가" <= char <= "힣" for char in foreign)
    return bool(foreign) and hangul >= 0.7 * len(foreign)

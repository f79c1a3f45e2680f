"""Numbers in the ways in which lists are numbered: IV, b, 가, 三, ⑤. Knows nothing of lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_ROMAN: Final = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
    (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
_LATIN: Final = "abcdefghijklmnopqrstuvwxyz"
_CYRILLIC: Final = "абвгдежзиклмнопрстуфхцчшщыэюя"
_LETTERS: Final = {
    "ganada": "가나다라마바사아자차카타파하", "chosung": "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊㅋㅌㅍㅎ",
    "aiueo": "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン",
    "aiueoFullWidth": "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン",
    "iroha": "イロハニホヘトチリヌルヲワカヨタレソツネナラムウヰノオクヤマケフコエテアサキユメミシヱヒモセス",
    "irohaFullWidth": "イロハニホヘトチリヌルヲワカヨタレソツネナラムウヰノオクヤマケフコエテアサキユメミシヱヒモセス",
    "ideographTraditional": "甲乙丙丁戊己庚辛壬癸", "ideographZodiac": "子丑寅卯辰巳午未申酉戌亥",
}  # fmt: skip
_HAN: Final = "〇一二三四五六七八九"
_HANGUL: Final = "영일이삼사오육칠팔구"


def counted(number: int, kind: str) -> str:
    """By the name that Word has for it; in plain digits where the kind is another, or ends before."""
    if not 0 < number < 1_000_000:
        return str(number)
    if kind in _LETTERS:
        letters = _LETTERS[kind]
        return letters[(number - 1) % len(letters)]
    shape = _SHAPES.get(kind)
    return shape(number) if shape else str(number)


def _roman(number: int) -> str:
    if number > 3_999:
        return str(number)
    out = []
    for value, sign in _ROMAN:
        out.append(sign * (number // value))
        number %= value
    return "".join(out)


def _alphabet(letters: str, number: int) -> str:
    """a … z, aa, bb, …"""
    times, place = divmod(number - 1, len(letters))
    return letters[place] * (times + 1) if times < 20 else str(number)


def _by_tens(number: int, digits: str, units: str) -> str:
    """二十三: each digit with its unit; a one before a unit is not said."""
    if number > 9_999:
        return str(number)
    out = []
    for place, digit in zip(range(len(str(number)) - 1, -1, -1), map(int, str(number)), strict=True):
        if digit:
            out.append(("" if digit == 1 and place else digits[digit]) + units[place])
    return "".join(out).strip()


def _each_digit(number: int, digits: str) -> str:
    return "".join(digits[int(digit)] for digit in str(number))


def _circled(number: int) -> str:
    return chr(ord("①") + number - 1) if number <= 20 else f"({number})"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _han(number: int) -> str:
    return _by_tens(number, _HAN, " 十百千")


_SHAPES: Final[dict[str, Callable[[int], str]]] = {
    "decimalZero": lambda number: f"{number:02d}",
    "upperRoman": _roman,
    "lowerRoman": lambda number: _roman(number).lower(),
    "upperLetter": lambda number: _alphabet(_LATIN, number).upper(),
    "lowerLetter": lambda number: _alphabet(_LATIN, number),
    "russianUpper": lambda number: _alphabet(_CYRILLIC, number).upper(),
    "russianLower": lambda number: _alphabet(_CYRILLIC, number),
    "ordinal": _ordinal,
    "decimalEnclosedCircle": _circled,
    "decimalEnclosedCircleChinese": _circled,
    "ideographEnclosedCircle": lambda number: f"({_han(number)})",
    "decimalFullWidth": lambda number: _each_digit(number, "０１２３４５６７８９"),
    "numberInDash": lambda number: f"- {number} -",
    "ideographDigital": lambda number: _each_digit(number, _HAN),
    "japaneseDigitalTenThousand": lambda number: _each_digit(number, _HAN),
    "koreanDigital": lambda number: _each_digit(number, _HANGUL),
    "koreanDigital2": lambda number: _each_digit(number, _HAN),
    "koreanCounting": lambda number: _by_tens(number, _HANGUL, " 십백천"),
    **dict.fromkeys(
        ("chineseCounting", "chineseCountingThousand", "japaneseCounting", "taiwaneseCounting",
         "taiwaneseCountingThousand"), _han,
    ),
}  # fmt: skip

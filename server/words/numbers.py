"""Numbers, months and weekdays in words, English and Korean: data alone, whose meaning in a text its reader decides."""

from __future__ import annotations

from typing import Final

_SMALL = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_KOREAN = ("한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉", "열")  # as they stand before a counter

ENGLISH_NUMBERS: Final = {word: value for value, word in enumerate(_SMALL, 1)}
ENGLISH_TENS: Final = {word: 10 * value for value, word in enumerate(_TENS, 2)}
KOREAN_NUMBERS: Final = {word: value for value, word in enumerate(_KOREAN, 1)}
KOREAN_DAYS: Final = {
    "하루": 1, "이틀": 2, "사흘": 3, "나흘": 4, "닷새": 5, "엿새": 6, "열흘": 10, "보름": 15, "일주일": 7,
}  # fmt: skip

MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
SHORT_MONTHS: Final = tuple(month[:3] for month in MONTHS)
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

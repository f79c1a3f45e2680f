"""Numbers, dates, times and amounts in a text, so that two texts can be asked whether they say the same.

Units of one dimension are made one ("24 hours" is "1 day", "24개월" is "2년", "오후 2시" is "14:00"); numbers in words
count where they have a unit. English, Korean and, for dates and times, Japanese and Chinese. Pure functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from server.words import fold, numbers, terms

READ_CHARS: Final = 20_000

_UNITS: Final[dict[str, tuple[str, float, str]]] = {  # dimension and size of one, and its names
    "second": ("time", 1 / 60, "seconds?|secs?|초|秒"),
    "minute": ("time", 1, "minutes?|mins?|분|分(?!の)"),
    "hour": ("time", 60, "hours?|hrs?|시간|時間|小时"),
    "day": ("time", 1440, "days?|영업일|일간|일|日間?|天"),
    "week": ("time", 10080, "weeks?|주간|주일|주(?!문|차|소|년)|週間?|周"),
    "month": ("month", 1, "months?|개월|달|か月|ヶ月|个月"),
    "year": ("month", 12, "years?|yrs?|년|年間?"),
    "eur": ("eur", 1, "eur(?:os?)?|€|유로|ユーロ|欧元"),
    "usd": ("usd", 1, r"usd|us\$|dollars?|\$|달러|ドル|美元"),
    "krw": ("krw", 1, "krw|won|₩|원(?!칙|래|하|인)|ウォン"),
    "gbp": ("gbp", 1, "gbp|pounds?|£|파운드"),
    "jpy": ("jpy", 1, "jpy|yen|¥|円|엔"),
    "cny": ("cny", 1, "cny|rmb|yuan|元|위안"),
    "percent": ("percent", 1, r"%|percent|per cent|퍼센트|프로(?!그|필|세)|パーセント"),
    "kg": ("mass", 1000, "kg|kilograms?|kilos?|킬로그램"),
    "gram": ("mass", 1, "g|grams?|그램"),
    "km": ("length", 1000, "km|kilomet(?:er|re)s?|킬로미터"),
    "metre": ("length", 1, "m|met(?:er|re)s?|미터"),
    "cm": ("length", 0.01, "cm|centimet(?:er|re)s?|센티미터"),
    "mm": ("length", 0.001, "mm|millimet(?:er|re)s?|밀리미터"),
    "litre": ("volume", 1, "l|lit(?:er|re)s?|리터"),
    "gb": ("bytes", 1000, "gb|기가바이트"),
    "mb": ("bytes", 1, "mb|메가바이트"),
    "degree": ("degree", 1, "°c?|degrees?|도(?![로록움착])"),
    "point": ("point", 1, "points?|포인트"),
}
_WORDS: Final = {**numbers.ENGLISH_NUMBERS, **numbers.ENGLISH_TENS, "a": 1, "an": 1}
_LARGE: Final = {"천": 1e3, "만": 1e4, "억": 1e8, "万": 1e4, "億": 1e8, "亿": 1e8,
                 "thousand": 1e3, "million": 1e6, "billion": 1e9}  # fmt: skip

_UNIT = "|".join(f"(?P<{name}>{names})" for name, (_, _, names) in _UNITS.items())
_NUMBER = r"\d+(?:[.,]\d+)*"
_LARGE_NAME = "|".join(_LARGE)
_MONTH = rf"(?P<month>{'|'.join(numbers.SHORT_MONTHS)})[a-z]*\.?"
_LATIN_END = r"(?![a-z])"

_CODE = re.compile(r"(?<![\w€$£¥₩])(?!(?:eur|usd|krw|gbp|jpy|cny)\d)[a-z]{1,8}[-_]?\d[\w-]*")
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<!\d)(?P<y>\d{4})[-./](?P<m>\d{1,2})[-./](?P<d>\d{1,2})(?!\d)",
        r"(?:(?P<y>\d{4})\s*[년年]\s*)?(?P<m>\d{1,2})\s*[월月]\s*(?P<d>\d{1,2})\s*[일日号]",
        rf"(?<!\d)(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? (?P<y>\d{{4}}))?(?![a-z])",
        rf"(?<![a-z]){_MONTH} (?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?!\d)(?:,? (?P<y>\d{{4}}))?",
        r"(?<!\d)(?P<d>\d{1,2})\.\s?(?P<m>\d{1,2})\.(?:\s?(?P<y>\d{4}))?(?!\d)",
    )
)
_CLOCK_TIMES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<!\d)(?P<h>\d{1,2}):(?P<min>\d{2})(?!\d)(?:\s*(?P<half>[ap])\.?m\b\.?)?",
        r"(?<!\d)(?P<h>\d{1,2})\s*(?P<half>[ap])\.?m\b\.?",
        r"(?:(?P<half>오전|오후|아침|저녁|밤|새벽|午前|午後|上午|下午)\s*)?(?P<h>\d{1,2})\s*(?:시(?!간)|時(?!間)|点)"
        r"(?:\s*(?P<min>\d{1,2})\s*[분分])?",
    )
)
_PM_MARKERS = ("p", "오후", "저녁", "밤", "午後", "下午")
_AMOUNT = re.compile(
    rf"(?:(?P<before>[€$£¥₩]|\b(?:eur|usd|krw|gbp|jpy|cny|kg|cm|km)\b)\s*:?\s*)?"
    rf"(?P<number>{_NUMBER})(?:\s*(?P<large>{_LARGE_NAME}){_LATIN_END}(?:\s*(?P<rest>{_NUMBER})\s*(?P<small>천)?)?)?"
    rf"(?:[\s-]*(?:(?:working|business|calendar|full|whole|more)[\s-]+)?(?:{_UNIT}){_LATIN_END})?(?P<tail>[가-힣]+|[\u4e00-\u9fff]?[\u3040-\u309f]+)?"
)
_COUNTED_NOUN = re.compile(r"[\s-]*([a-z]{3,})|\s?([가-힣\u4e00-\u9fff])")
_DURATION_LEAD_IN = re.compile(r"(?:for|within|in|after|about|than|takes?|lasts?|kept|up to|over)\s+$")
_IN_WORDS = re.compile(
    rf"(?<![\w-])(?P<word>{'|'.join(_WORDS)})[\s-]+"
    rf"(?:(?:working|business|calendar|full|whole|more)[\s-]+)?(?:{_UNIT}){_LATIN_END}"
)
_PLAIN_WORD = re.compile(rf"(?<![\w-])(?P<word>{'|'.join(word for word in _WORDS if len(word) > 2)})(?![\w-])")
_IN_KOREAN = re.compile(
    rf"(?<![가-힣])(?:(?P<days>{'|'.join(numbers.KOREAN_DAYS)})"
    rf"|(?P<word>{'|'.join(numbers.KOREAN_NUMBERS)})\s?(?:(?P<time>시간|달|주)|장|개|번|명|가지|곳|대|권|병|통|배|단계))[가-힣]*"
)
_RANGE = re.compile(r"\s*(?:[-–—~〜]|to|and|or|에서|부터)\s*")


@dataclass(frozen=True, slots=True)
class Quantity:
    """`size` is in the dimension's own unit; `raw` is the number as written. `kind` is "" without a known unit, and
    `noun` then what is counted. An optional one ("two ways", "a day") need not be in the other text."""

    kind: str
    size: float
    raw: float
    optional: bool = False
    noun: str = ""

    def equals(self, other: Quantity) -> bool:
        if {self.kind, other.kind} == {"clock", "hour"}:
            return self.size % 720 == other.size % 720
        if self.kind == other.kind and (self.kind or self.noun == other.noun):
            return math.isclose(self.size, other.size)
        if (self.kind and other.kind) or not (self.noun + other.noun).isascii():
            return False
        return math.isclose(self.raw, other.raw)

    def conflicts_with(self, other: Quantity) -> bool:
        """Another number of the same kind: where one stands, the other is wrong."""
        return (
            (self.kind, self.noun) == (other.kind, other.noun)
            and bool(self.kind or self.noun)
            and not (self.equals(other) or other.optional)
        )

    def is_among(self, others: Iterable[Quantity]) -> bool:
        return any(self.equals(other) for other in others)


@dataclass(frozen=True, slots=True)
class ParsedText:
    """What a text counts; `codes` are names with numbers in them (bl-100); `rest` is the text without all these."""

    quantities: tuple[Quantity, ...]
    codes: frozenset[str]
    rest: str


def parse_text(text: str) -> ParsedText:
    """The quantities of a text (of its first `READ_CHARS`), in no order."""
    rest = fold(text[:READ_CHARS])
    found: list[Quantity] = []
    codes: set[str] = set()

    def take(pattern: re.Pattern[str], make: object) -> None:
        nonlocal rest

        def replaced(match: re.Match[str]) -> str:
            made = make(match)  # type: ignore[operator]  # a callable of the match
            found.extend(made)
            return " " if made else match[0]

        rest = pattern.sub(replaced, rest)

    for match in _CODE.finditer(rest):
        codes.add(match[0])
    rest = _CODE.sub(" ", rest)
    for pattern in _DATES:
        take(pattern, _date)
    for pattern in _CLOCK_TIMES:
        take(pattern, _clock)
    amounts, rest = _amounts(rest)
    found += amounts
    take(_IN_WORDS, _in_words)
    take(_IN_KOREAN, _in_korean)
    take(_PLAIN_WORD, lambda match: [Quantity("", _WORDS[match["word"]], _WORDS[match["word"]], optional=True)])
    return ParsedText(tuple(dict.fromkeys(found)), frozenset(codes), rest)


def _amounts(text: str) -> tuple[list[Quantity], str]:
    """Numbers with their units. In "2-3 days" both are days."""
    matches = list(_AMOUNT.finditer(text))
    found = [_amount(match, text) for match in matches]
    for at in range(len(found) - 2, -1, -1):
        between = text[matches[at].end() : matches[at + 1].start()]
        following = found[at + 1]
        if not found[at].kind and following.kind and following.raw and _RANGE.fullmatch(between):
            scale = following.size / following.raw
            found[at] = replace(found[at], kind=following.kind, size=found[at].raw * scale)
    return found, _AMOUNT.sub(" ", text)


def _amount(match: re.Match[str], text: str) -> Quantity:
    value = number(match["number"])
    if match["large"]:
        value *= _LARGE[match["large"]]
        if match["rest"]:
            value += number(match["rest"]) * (1e3 if match["small"] else 1)
    if match["before"]:
        for kind, size, names in _UNITS.values():
            if re.fullmatch(names, match["before"]):
                return Quantity(kind, value * size, value)
    kind, size = _unit(match)
    is_year = 1000 <= value < 2100 and value.is_integer() and "," not in match["number"]
    if match["year"] and is_year:
        return Quantity("calendar year", value, value)
    if kind:
        return Quantity(kind, value * size, value)
    counted = _COUNTED_NOUN.match(text, match.end("number") if match["tail"] is None else match.start("tail"))
    noun = (counted[2] or "".join(terms(counted[1])[:1])) if counted else ""
    return Quantity("calendar year" if is_year and not noun else "", value, value, noun=noun)


def number(text: str) -> float:
    """1,000 and 1.000 are a thousand where three digits follow a comma; 19,90 and 19.90 are a price."""
    plain = re.sub(r",(?=\d{3}(?:\D|$))", "", text)
    whole, _, fraction = plain.replace(",", ".").rpartition(".")
    return float(f"{whole.replace('.', '')}.{fraction}") if whole else float(fraction)


def _unit(match: re.Match[str]) -> tuple[str, float]:
    for name, (kind, size, _) in _UNITS.items():
        if match[name]:
            return kind, size
    return "", 1.0


def _date(match: re.Match[str]) -> list[Quantity]:
    groups = match.groupdict()
    month = numbers.SHORT_MONTHS.index(groups["month"]) + 1 if groups.get("month") else int(groups["m"])
    day = int(groups["d"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return []
    found = [Quantity("date", month * 100 + day, month * 100 + day)]
    if groups.get("y"):
        found.append(Quantity("calendar year", int(groups["y"]), int(groups["y"])))
    return found


def _clock(match: re.Match[str]) -> list[Quantity]:
    groups = match.groupdict()
    hour, minute = int(groups["h"]), int(groups.get("min") or 0)
    if hour > 24 or minute > 59:
        return []
    half = groups["half"]
    if half is not None:
        hour = hour % 12 + (12 if half in _PM_MARKERS else 0)
    exact = half is not None or ":" in match[0]
    return [Quantity("clock" if exact else "hour", hour * 60 + minute, hour)]


def _in_words(match: re.Match[str]) -> list[Quantity]:
    value = _WORDS[match["word"]]
    kind, size = _unit(match)
    optional = match["word"] in ("a", "an") and not _DURATION_LEAD_IN.search(
        match.string, max(0, match.start() - 20), match.start()
    )
    return [Quantity(kind, value * size, value, optional=optional)]


def _in_korean(match: re.Match[str]) -> list[Quantity]:
    if match["days"]:
        days = numbers.KOREAN_DAYS[match["days"]]
        return [Quantity("time", days * 1440, days)]
    value = numbers.KOREAN_NUMBERS[match["word"]]
    kind, size = {"시간": ("time", 60), "주": ("time", 10080), "달": ("month", 1)}.get(match["time"], ("", 1))
    return [Quantity(kind, value * size, value, optional=not kind)]

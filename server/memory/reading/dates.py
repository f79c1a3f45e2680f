"""Which days a text names, counted from the day it was said. English and Korean.

"on Tuesday", "last week", "지난주 화요일", "3월 14일부터 16일까지". A day begins at midnight and a week on Monday,
where the server stands or in `zone`. A day without a year is the nearest one: in the past, or in the future with
`prefer_future`. "Next Friday" is the Friday of next week. Knows nothing of memories.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.words import numbers

Day = datetime.date
Zone = datetime.tzinfo | None
READ_CHARS = 1_000

_NUMBERS = numbers.ENGLISH_NUMBERS | {"a": 1, "an": 1, "a couple of": 2, "a few": 3, "several": 5}
_KOREAN_NUMBERS = numbers.KOREAN_NUMBERS | {"몇": 3}

_COUNT = rf"(?P<n>\d{{1,3}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})"
_UNIT = r"(?P<unit>day|week|month|year)s?"
_MONTH = rf"(?P<month>{'|'.join(numbers.MONTHS)}|{'|'.join(numbers.SHORT_MONTHS)}|sept)\b\.?"
_WEEKDAY = rf"(?P<weekday>{'|'.join(numbers.WEEKDAYS)})"
_DAY = r"(?P<day>3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_LEAD_WORDS = ("in", "of", "since", "from", "to", "until", "till", "by", "between", "and")
_LEADS = "(?:" + "|".join(rf"(?<=\b{word} )" for word in _LEAD_WORDS) + ")"
_KO_COUNT = rf"(?P<n>\d{{1,3}}|{'|'.join(_KOREAN_NUMBERS)})"
_KO_WEEKDAY = r"(?P<weekday>[월화수목금토일])요일"
_KO_SIDE = r"(?P<side>지지난|저저번|다다음|지난|저번|이번|다음|담)"
_SIDES = {"지지난": -2, "저저번": -2, "지난": -1, "저번": -1, "이번": 0, "다음": 1, "담": 1, "다다음": 2,
          "last": -1, "past": -1, "previous": -1, "this": 0, "next": 1, "coming": 1}  # fmt: skip
_TO_DAY = re.compile(
    r"\s*(?:부터|에서|~|-|–|to|through|until|till|and)\s*(?:the\s+)?(?P<day>3[01]|[12]\d|[1-9])(?:일|st|nd|rd|th)?(?!\d|월|시)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DateMention:
    """[start, end) in seconds since 1970, and where the words stand. `is_relative`: they mean another day tomorrow."""

    start: float
    end: float
    first_day: Day
    last_day: Day
    text_start: int
    text_end: int
    is_relative: bool = False

    @property
    def iso(self) -> str:
        """'2026-11-27', or '2026-11-23 to 2026-11-29'."""
        return str(self.first_day) if self.first_day == self.last_day else f"{self.first_day} to {self.last_day}"


@dataclass(frozen=True, slots=True)
class _Reference:
    today: Day
    prefer_future: bool

    def nearest(self, make: Callable[[int], Day]) -> Day:
        """The day that `make` gives for a year: the last one that is over or today, or the next to come."""
        year = self.today.year
        if self.prefer_future:
            return make(year) if make(year) >= self.today else make(year + 1)
        return make(year) if make(year) <= self.today else make(year - 1)


_Range = tuple[Day, Day]  # both ends inside
_Rule = Callable[[re.Match[str], _Reference], _Range]


def named_period(text: str, at: float, zone: Zone = None) -> tuple[float, float] | None:
    """The time that `text` names as [from, to) in seconds since 1970; None where it names none.

    `at` is when the text was said. "Between March and May" and "3월부터 5월까지" are one time; "since Monday" ends
    where the day of `at` does.
    """
    first = find_date(text, at, zone)
    if first is None:
        return None
    stop = first.text_end
    before, after = text[max(0, first.text_start - 12) : first.text_start].lower(), text[stop : stop + 12]
    to = _TO_DAY.match(text, stop)
    if to and first.first_day == first.last_day and int(to["day"]) > first.last_day.day:  # '3월 14일부터 16일까지'
        with contextlib.suppress(ValueError):
            return first.start, _range(first.last_day, first.last_day.replace(day=int(to["day"])), zone)[1]
    second = find_date(text[stop:], at, zone)
    if second and second.start >= first.start and _is_range(before, text[stop : stop + second.text_start], after):
        return first.start, second.end
    if re.search(r"\bsince\s+(?:the\s+)?$", before) or re.match(r"\s*(?:부터|이후|이래)", after):
        return first.start, max(first.end, _range(_day(at, zone), _day(at, zone), zone)[1])
    return first.start, first.end


def _is_range(before: str, between: str, after: str) -> bool:
    if re.search(r"\b(?:from|between)\s+(?:the\s+)?$", before):
        return re.fullmatch(r"\s*(?:to|till|until|through|and|-|–)\s+(?:the\s+)?", between, re.IGNORECASE) is not None
    return re.match(r"\s*(?:부터|에서)\s*", after) is not None and len(between) <= 6


def find_date(text: str, at: float, zone: Zone = None, *, prefer_future: bool = False) -> DateMention | None:
    """The first words of `text` that name a day or days, the longest of those that begin together."""
    reference = _Reference(_day(at, zone), prefer_future)
    best: tuple[int, int, _Range, bool] | None = None
    for pattern, rule, is_relative in _RULES:
        for found in pattern.finditer(text, 0, READ_CHARS):
            try:
                days = rule(found, reference)
            except (ValueError, OverflowError):  # 31 February, or a year that no calendar has
                continue
            key = (found.start(), -found.end())
            if best is None or key < (best[0], -best[1]):
                best = (found.start(), found.end(), days, is_relative)
            break
    if best is None:
        return None
    begin, stop, (first, last), is_relative = best
    try:
        start, end = _range(first, last, zone)
    except (ValueError, OverflowError, OSError):
        return None
    return DateMention(start, end, first, last, begin, stop, is_relative)


def find_future_date(text: str, at: float | None) -> DateMention | None:
    """The day to come that `text` names, said at `at` (None: now); None for days that are over."""
    said = time.time() if at is None else at
    found = find_date(text, said, prefer_future=True)
    return found if found and found.end > said else None


def strip_date(text: str, at: float | None) -> tuple[DateMention | None, str]:
    """The day that `text` names and the text without it: 'moved to Seoul last year' → 'moved to Seoul'."""
    found = find_date(text, time.time() if at is None else at)
    if found is None:
        return None, text
    lead = re.compile(r"\s*\b(?:in|on|since|back in|at|from|of|early|late)\s*$", re.IGNORECASE)
    head = lead.sub("", text[: found.text_start])
    tail = re.sub(r"^(?:에는|에|까지는?|부터|이후로|은|는|쯤)(?=\s|$)", "", text[found.text_end :])
    return found, " ".join(f"{head} {tail}".split())


def _day(at: float, zone: Zone) -> Day:
    return datetime.datetime.fromtimestamp(at, zone).date()


def _range(first: Day, last: Day, zone: Zone) -> tuple[float, float]:
    start = datetime.datetime.combine(first, datetime.time(), zone)
    end = datetime.datetime.combine(last + datetime.timedelta(days=1), datetime.time(), zone)
    return start.timestamp(), end.timestamp()


# ── calendar ─────────────────────────────────────────────────────────────────────────────────────


def _plus(day: Day, *, days: int = 0, months: int = 0) -> Day:
    """Months are kept inside the month: a month before 31 March is the last of February."""
    if months:
        number = day.year * 12 + day.month - 1 + months
        year, month = divmod(number, 12)
        day = Day(year, month + 1, min(day.day, _last_of(year, month + 1).day))
    return day + datetime.timedelta(days=days)


def _last_of(year: int, month: int) -> Day:
    following = Day(year + month // 12, month % 12 + 1, 1)
    return following - datetime.timedelta(days=1)


def _week(today: Day, weeks: int = 0) -> _Range:
    monday = today - datetime.timedelta(days=today.weekday() - 7 * weeks)
    return monday, _plus(monday, days=6)


def _month(day: Day) -> _Range:
    return day.replace(day=1), _last_of(day.year, day.month)


def _year(year: int) -> _Range:
    return Day(year, 1, 1), Day(year, 12, 31)


def _one(day: Day) -> _Range:
    return day, day


def _calendar_unit(today: Day, unit: str, steps: int) -> _Range:
    """The week, month, year, weekend or day that lies `steps` away."""
    if unit == "week":
        return _week(today, steps)
    if unit == "weekend":
        monday, sunday = _week(today, steps)
        return _plus(monday, days=5), sunday
    if unit == "month":
        return _month(_plus(today.replace(day=1), months=steps))
    if unit == "year":
        return _year(today.year + steps)
    return _one(_plus(today, days=steps))


def _shifted(today: Day, unit: str, steps: int) -> Day:
    days = {"day": 1, "week": 7}
    if unit in days:
        return _plus(today, days=days[unit] * steps)
    return _plus(today, months=steps * (12 if unit == "year" else 1))


def _number(word: str) -> int:
    low = word.lower()
    return int(low) if low.isdigit() else _NUMBERS.get(low) or _KOREAN_NUMBERS.get(low) or numbers.KOREAN_DAYS[low]


def _month_number(word: str) -> int:
    return numbers.SHORT_MONTHS.index(word[:3].lower()) + 1


def _weekday(reference: _Reference, weekday: int, side: int | None) -> Day:
    """`side`: -1 the last one, 0 of this week, 1 of next week; None the nearest."""
    if side is None or side == -1:
        ahead, today = reference.prefer_future and side is None, reference.today.weekday()
        steps = (weekday - today - 1) % 7 + 1 if ahead else -((today - weekday - 1) % 7 + 1)
        return _plus(reference.today, days=steps)
    return _plus(_week(reference.today, side)[0], days=weekday)


def _calendar(reference: _Reference, year: str | None, month: int, day: str | None) -> _Range:
    """A day or a month, of the year that is named or of the nearest."""
    if day is not None:
        number = int(day)
        return _one(Day(int(year), month, number) if year else reference.nearest(lambda of: Day(of, month, number)))
    if year:
        return _month(Day(int(year), month, 1))
    if reference.prefer_future:
        return _month(reference.nearest(lambda of: _last_of(of, month)))
    return _month(reference.nearest(lambda of: Day(of, month, 1)))


# ── the words ────────────────────────────────────────────────────────────────────────────────────

_FIXED = {
    "day before yesterday": -2, "day after tomorrow": 2, "yesterday": -1, "last night": -1, "tomorrow": 1, "today": 0,
    "tonight": 0, "this morning": 0, "this afternoon": 0, "this evening": 0, "earlier today": 0,
    "그끄저께": -3, "그저께": -2, "그제": -2, "엊그제": -2, "엊그저께": -2, "어제": -1, "어저께": -1, "어젯밤": -1,
    "간밤": -1,
    "오늘": 0, "내일모레": 2, "내일": 1, "낼": 1, "모레": 2, "글피": 3,
}  # fmt: skip
_ENGLISH_FIXED = "|".join(sorted((word for word in _FIXED if word.isascii()), key=len, reverse=True))
_KOREAN_FIXED = "|".join(sorted((word for word in _FIXED if not word.isascii()), key=len, reverse=True))
_KOREAN_UNITS = {"주말": "weekend", "주": "week", "달": "month", "월": "month", "개월": "month", "해": "year",
                 "년": "year", "일": "day", "주일": "week"}  # fmt: skip
_KOREAN_YEARS = {"재작년": -2, "작년": -1, "지난해": -1, "올해": 0, "금년": 0, "내년": 1, "내후년": 2}


def _fixed(found: re.Match[str], reference: _Reference) -> _Range:
    return _one(_plus(reference.today, days=_FIXED[" ".join(found["word"].lower().split())]))


def _side_unit(found: re.Match[str], reference: _Reference) -> _Range:
    unit = found["unit"].lower()
    return _calendar_unit(reference.today, _KOREAN_UNITS.get(unit, unit), _SIDES[found["side"].lower()])


def _period(found: re.Match[str], reference: _Reference) -> _Range:
    """'the last three weeks', '최근 3일': up to today; 'the next two weeks': from today."""
    unit, steps = found["unit"].lower(), _number(found["n"])
    unit = _KOREAN_UNITS.get(unit, unit)
    if found["side"].lower() in ("next", "coming", "다음", "앞으로"):
        return reference.today, _shifted(reference.today, unit, steps)
    return _shifted(reference.today, unit, -steps), reference.today


def _ago(found: re.Match[str], reference: _Reference) -> _Range:
    return _one(_shifted(reference.today, found["unit"].lower(), -_number(found["n"])))


def _in(found: re.Match[str], reference: _Reference) -> _Range:
    return _one(_shifted(reference.today, found["unit"].lower(), _number(found["n"])))


def _named_weekday(found: re.Match[str], reference: _Reference) -> _Range:
    side = found["side"] or found["week"]
    number = numbers.WEEKDAYS.index(found["weekday"].lower())
    if found["week"]:
        return _one(_plus(_week(reference.today, _SIDES[found["week"].lower()])[0], days=number))
    return _one(_weekday(reference, number, _SIDES[side.lower()] if side else None))


def _date(found: re.Match[str], reference: _Reference) -> _Range:
    return _calendar(reference, found["year"], _month_number(found["month"]), found["day"])


def _month_alone(found: re.Match[str], reference: _Reference) -> _Range:
    month, year, side = _month_number(found["month"]), found["year"], found["side"]
    if side and not year:
        steps = _SIDES[side.lower()]
        first = _Reference(_plus(reference.today, days=steps), steps > 0).nearest(lambda of: Day(of, month, 1))
        return _month(Day(reference.today.year, month, 1) if steps == 0 else first)
    return _calendar(reference, year, month, None)


def _iso(found: re.Match[str], reference: _Reference) -> _Range:
    return _one(Day(int(found["year"]), int(found["month"]), int(found["day"])))


def _year_alone(found: re.Match[str], reference: _Reference) -> _Range:
    return _year(int(found["year"]))


def _korean_weekday(found: re.Match[str], reference: _Reference) -> _Range:
    number = "월화수목금토일".index(found["weekday"])
    side = _SIDES[found["side"]] if found["side"] else None
    if side is not None and found["week"]:  # '지난주 화요일'
        return _one(_plus(_week(reference.today, side)[0], days=number))
    return _one(_weekday(reference, number, side))


def _korean_ago(found: re.Match[str], reference: _Reference) -> _Range:
    steps = -1 if found["where"].startswith("전") else 1
    if found["days"]:
        return _one(_plus(reference.today, days=steps * numbers.KOREAN_DAYS[found["days"]]))
    return _one(_shifted(reference.today, _KOREAN_UNITS[found["unit"]], steps * _number(found["n"])))


def _korean_year(found: re.Match[str], reference: _Reference) -> _Range:
    year = reference.today.year + _KOREAN_YEARS[found["word"]]
    if not found["month"]:
        return _year(year)
    return _calendar(reference, str(year), int(found["month"]), found["day"])


def _korean_date(found: re.Match[str], reference: _Reference) -> _Range:
    return _calendar(reference, found["year"], int(found["month"]), found["day"])


def _korean_day(found: re.Match[str], reference: _Reference) -> _Range:
    """'14일' alone: the nearest one."""
    day, step = reference.today.replace(day=1), 1 if reference.prefer_future else -1
    for months in range(0, 3 * step, step):
        first = _plus(day, months=months)
        if int(found["day"]) <= _last_of(first.year, first.month).day:
            that = first.replace(day=int(found["day"]))
            if (that >= reference.today) if reference.prefer_future else (that <= reference.today):
                return _one(that)
    raise ValueError(found[0])


def _rule(pattern: str, rule: _Rule, *, is_relative: bool = True) -> tuple[re.Pattern[str], _Rule, bool]:
    return re.compile(pattern, re.IGNORECASE), rule, is_relative


_RULES = (
    _rule(rf"\b(?:the )?(?P<word>{_ENGLISH_FIXED})\b", _fixed),
    _rule(r"\b(?:over |during )?(?:the )?(?P<side>last|past|previous|this|next|coming) "
          r"(?P<unit>weekend|week|month|year)\b", _side_unit),
    _rule(rf"\b(?:the )?(?P<side>last|past|next|coming) {_COUNT} {_UNIT}\b", _period),
    _rule(rf"\b{_COUNT} {_UNIT} ago\b", _ago),
    _rule(rf"\b(?:in {_COUNT} {_UNIT}(?: time)?)\b", _in),
    _rule(rf"\b{_COUNT} {_UNIT} from (?:now|today)\b", _in),
    _rule(rf"(?<!every )(?<!each )\b(?:(?P<side>last|this|next|coming) )?{_WEEKDAY}\b"
          r"(?: (?:of )?(?P<week>last|this|next) week\b)?(?! (?:nights|mornings|afternoons|evenings))", _named_weekday),
    _rule(rf"\b{_MONTH} {_DAY}\b(?!:)(?:,? {_YEAR}\b)?", _date, is_relative=False),
    _rule(rf"\b{_DAY} (?:of )?{_MONTH}(?:,? {_YEAR}\b)?", _date, is_relative=False),
    _rule(rf"{_LEADS}{_MONTH}(?:,? {_YEAR}\b)?(?P<side>(?!))?", _month_alone, is_relative=False),
    _rule(rf"\b(?P<side>last|this|next) {_MONTH}(?P<year>(?!))?", _month_alone),
    _rule(rf"\b{_MONTH},? {_YEAR}\b(?P<side>(?!))?", _month_alone, is_relative=False),
    _rule(r"\b(?P<year>(?:19|20)\d\d)[-/.](?P<month>0?[1-9]|1[0-2])[-/.](?P<day>3[01]|[12]\d|0?[1-9])\b", _iso,
          is_relative=False),
    _rule(rf"{_LEADS}{_YEAR}\b(?![-/.]\d)", _year_alone, is_relative=False),
    # ── Korean ──
    _rule(rf"(?<![가-힣])(?P<word>{_KOREAN_FIXED})(?!러)", _fixed),
    _rule(rf"{_KO_SIDE}\s?(?P<unit>주말|주|달|해)(?![가-힣]*요일)(?!\s?[월화수목금토일]요일)", _side_unit),
    _rule(rf"(?P<side>지난|최근|앞으로|다음)\s?{_KO_COUNT}\s?(?P<unit>주일|주|일|개월|달|년)(?:간|\s?동안)?", _period),
    _rule(rf"(?:{_KO_SIDE}\s?(?P<week>주)?\s?)?(?<!매주 ){_KO_WEEKDAY}(?!마다)", _korean_weekday),
    _rule(rf"(?:(?P<days>{'|'.join(numbers.KOREAN_DAYS)})|{_KO_COUNT}\s?(?P<unit>주일|주|일|개월|달|년))"
          r"\s?(?P<where>전|후|뒤)(?![가-힣]*반)", _korean_ago),
    _rule(rf"(?P<word>{'|'.join(_KOREAN_YEARS)})(?:\s?(?P<month>1[0-2]|[1-9])월(?:\s?(?P<day>3[01]|[12]\d|[1-9])일)?)?",
          _korean_year),
    _rule(r"(?:(?P<year>(?:19|20)\d\d)년\s?)?(?<!\d)(?P<month>1[0-2]|[1-9])월(?:\s?(?P<day>3[01]|[12]\d|[1-9])일(?!간))?",
          _korean_date, is_relative=False),
    _rule(r"(?P<year>(?:19|20)\d\d)년(?!\s?\d{1,2}월)", _year_alone, is_relative=False),
    _rule(r"(?<![\d월.])(?<!월 )(?P<day>3[01]|[12]\d|[1-9])일(?=에|부터|까지|날|\s?[오아저점새]|,|$)", _korean_day),
)  # fmt: skip

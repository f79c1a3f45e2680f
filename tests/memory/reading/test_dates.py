"""Days named in words, in both languages, counted from Saturday, 21 November 2026."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.memory.reading.dates import find_date, named_period
from tests.timing import takes_at_most

SEOUL = ZoneInfo("Asia/Seoul")
AT = datetime.datetime(2026, 11, 21, 15, tzinfo=SEOUL).timestamp()


def days(text: str) -> str:
    """'first..last', the last one inside."""
    found = named_period(text, AT, SEOUL)
    if found is None:
        return ""
    first, last = (datetime.datetime.fromtimestamp(value, SEOUL) for value in found)
    assert (first.hour, last.hour) == (0, 0)
    return f"{first.date()}..{last.date() - datetime.timedelta(days=1)}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what did we decide on Tuesday?", "2026-11-17..2026-11-17"),
        ("on Saturday", "2026-11-14..2026-11-14"),
        ("last Tuesday", "2026-11-17..2026-11-17"),
        ("Tuesday of last week", "2026-11-10..2026-11-10"),
        ("next Friday", "2026-11-27..2026-11-27"),
        ("yesterday", "2026-11-20..2026-11-20"),
        ("the day before yesterday", "2026-11-19..2026-11-19"),
        ("the day after tomorrow", "2026-11-23..2026-11-23"),
        ("last week", "2026-11-09..2026-11-15"),
        ("this month", "2026-11-01..2026-11-30"),
        ("last weekend", "2026-11-14..2026-11-15"),
        ("the last three days", "2026-11-18..2026-11-21"),
        ("two days ago", "2026-11-19..2026-11-19"),
        ("a month ago", "2026-10-21..2026-10-21"),
        ("in 3 weeks", "2026-12-12..2026-12-12"),
        ("March 14", "2026-03-14..2026-03-14"),
        ("14th of March, 2025", "2025-03-14..2025-03-14"),
        ("in May", "2026-05-01..2026-05-31"),
        ("in December", "2025-12-01..2025-12-31"),
        ("since 2019", "2019-01-01..2026-11-21"),
        ("since Monday", "2026-11-16..2026-11-21"),
        ("between March and May", "2026-03-01..2026-05-31"),
        ("from March 3 to 9", "2026-03-03..2026-03-09"),
        ("on 2026-02-28", "2026-02-28..2026-02-28"),
        ("화요일에 뭐라고 했지?", "2026-11-17..2026-11-17"),
        ("지난 화요일", "2026-11-17..2026-11-17"),
        ("지난주 화요일", "2026-11-10..2026-11-10"),
        ("다음 주 금요일", "2026-11-27..2026-11-27"),
        ("이번 주 월요일", "2026-11-16..2026-11-16"),
        ("어제 얘기한 거", "2026-11-20..2026-11-20"),
        ("그저께", "2026-11-19..2026-11-19"),
        ("지난주", "2026-11-09..2026-11-15"),
        ("지지난주", "2026-11-02..2026-11-08"),
        ("지난달", "2026-10-01..2026-10-31"),
        ("지난 주말", "2026-11-14..2026-11-15"),
        ("작년", "2025-01-01..2025-12-31"),
        ("작년 3월", "2025-03-01..2025-03-31"),
        ("내년 5월 5일", "2027-05-05..2027-05-05"),
        ("3일 전", "2026-11-18..2026-11-18"),
        ("사흘 뒤", "2026-11-24..2026-11-24"),
        ("두 달 전", "2026-09-21..2026-09-21"),
        ("3월 14일", "2026-03-14..2026-03-14"),
        ("2025년 3월", "2025-03-01..2025-03-31"),
        ("14일에", "2026-11-14..2026-11-14"),
        ("31일에", "2026-10-31..2026-10-31"),
        ("2019년부터", "2019-01-01..2026-11-21"),
        ("3월부터 5월까지", "2026-03-01..2026-05-31"),
        ("3월 14일부터 16일까지", "2026-03-14..2026-03-16"),
        ("최근 3일", "2026-11-18..2026-11-21"),
    ],
)
def test_days_that_are_named(text: str, expected: str) -> None:
    assert days(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I may go",
        "march on",
        "every Tuesday",
        "매주 화요일",
        "every day",
        "30 February",
        "2월 30일",
        "2026-02-30",
        "version 2.10",
        "the second one",
        "안내 일정",
        "9999년",
        "in 2,000 words",
    ],
)
def test_what_is_no_day(text: str) -> None:
    assert named_period(text, AT, SEOUL) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("on Friday", "2026-11-27"), ("March 14", "2027-03-14"), ("in May", "2027-05-01 to 2027-05-31"),
     ("토요일", "2026-11-28"), ("3월 14일", "2027-03-14"), ("14일에", "2026-12-14"),
     ("11월", "2026-11-01 to 2026-11-30")],
)  # fmt: skip
def test_days_ahead(text: str, expected: str) -> None:
    found = find_date(text, AT, SEOUL, prefer_future=True)
    assert found is not None
    assert found.iso == expected


def test_a_mention_has_its_position_and_whether_it_is_relative() -> None:
    text = "the exam is next Friday at ten"
    found = find_date(text, AT, SEOUL)
    assert found is not None
    assert text[found.text_start : found.text_end] == "next Friday"
    assert found.is_relative
    fixed = find_date("on March 14, 2027", AT, SEOUL)
    assert fixed is not None
    assert not fixed.is_relative


def test_the_day_is_the_zones_own() -> None:
    late = datetime.datetime(2026, 11, 21, 20, tzinfo=datetime.UTC).timestamp()  # the 22nd in Seoul
    seoul, utc = find_date("today", late, SEOUL), find_date("today", late, datetime.UTC)
    assert seoul is not None
    assert utc is not None
    assert (seoul.iso, utc.iso) == ("2026-11-22", "2026-11-21")


@given(st.text(max_size=200), st.floats(0, 4e9))
def test_any_text_is_read(text: str, at: float) -> None:
    found = named_period(text, at)
    assert found is None or found[0] < found[1]


@pytest.mark.parametrize("piece", ["last ", "1", "the ", "3월 ", "지난 ", "a", "two ", "in 3 ", "every "])
def test_no_shape_is_slow(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert takes_at_most(0.5, lambda: named_period(text, AT))

"""Which question a text answers, and which texts say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.memory.facts.findings import Slot, normalised, slot_of


@pytest.mark.parametrize(
    ("text", "slot"),
    [
        ("Name is Mina Kim.", Slot("name", "Mina Kim")),
        ("이름은 민아.", Slot("name", "민아")),
        ("내 이름은 민아", Slot("name", "민아")),
        ("Wants to be called Jun.", Slot("address", "Jun")),
        ("Goes by Jun", Slot("address", "Jun")),
        ("호칭은 대표님.", Slot("address", "대표님")),
        ("Wants answers in Korean.", Slot("language", "Korean")),
        ("Prefers polite Korean (존댓말).", Slot("speech level", "존댓말")),
        ("Prefers casual Korean (반말).", Slot("speech level", "반말")),
        ("Lives in Busan.", Slot("home", "Busan")),
        ("부산에 살아요.", Slot("home", "부산")),
        ("Is 34 years old.", Slot("age", "34")),
    ],
)
def test_slots(text: str, slot: Slot) -> None:
    assert slot_of(text) == slot


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The gate is blue.",
        "Name is Mina. Lives in Busan.",
        "The user's name is long",
        "Works as a nurse.",
        "살아요",
    ],
)
def test_texts_without_a_slot(text: str) -> None:
    assert slot_of(text) is None


def test_opposite_tastes_answer_one_question_and_two_things_two() -> None:
    one, other = slot_of("Likes black coffee."), slot_of("Really hates black coffee.")
    third = slot_of("Likes green tea.")
    assert one is not None
    assert other is not None
    assert third is not None
    assert one.name == other.name != third.name
    assert one.value != other.value
    korean, opposite = slot_of("커피를 좋아해요."), slot_of("커피를 싫어해요.")
    assert korean is not None
    assert opposite is not None
    assert korean.name == opposite.name
    assert korean.value != opposite.value


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("The gate is blue.", "the GATE is blue!"),
        ("Likes a cup of tea", "Likes cup of tea"),
        ("It’s ｂｌｕｅ", "It's blue"),
        ("회의는 3시예요.", "회의는 3시입니다"),
        ("주차장은 지하에 있어요", "주차장은 지하에있습니다"),
    ],
)
def test_the_same_in_other_dress(one: str, two: str) -> None:
    assert normalised(one) == normalised(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Room 12", "Room 13"),
        ("Version 1.5", "Version 15"),
        ("Likes C", "Likes C++"),
        ("Likes C", "Likes C#"),
        ("The gate is open", "The gate is not open"),
        ("커피를 좋아해요", "커피를 안 좋아해요"),
        ("-5 degrees", "5 degrees %"),
    ],
)
def test_what_differs_stays_different(one: str, two: str) -> None:
    assert normalised(one) != normalised(two)


@given(st.text(max_size=200))
def test_normal_is_stable(text: str) -> None:
    assert normalised(normalised(text)) == normalised(normalised(normalised(text)))

"""First person into third, and quoted where that is not safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.memory.facts.person import as_sentence, third_person_verb, to_third_person, with_they


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("I prefer short answers", "Prefers short answers."),
        ("I am allergic to nuts", "Is allergic to nuts."),
        ("I'm from Seoul", "Is from Seoul."),
        ("I’m from Seoul", "Is from Seoul."),
        ("I have two kids", "Has two kids."),
        ("I've lived here since May", "Has lived here since May."),
        ("I'll be away in June", "Will be away in June."),
        ("I never eat meat", "Never eats meat."),
        ("I usually also work late", "Usually also works late."),
        ("I don't drive", "Doesn't drive."),
        ("I can't swim", "Can't swim."),
        ("I moved to Busan in 2020", "Moved to Busan in 2020."),
        ("I need my glasses when I read", "Needs their glasses when they read."),
        ("I study law", "Studies law."),
        ("I teach myself Rust", "Teaches themselves Rust."),
        ("I play with my dog when I'm home", "Plays with their dog when they are home."),
        ("my dog is called Rex", "The user's dog is called Rex."),
        ("My wife gave me a watch", "The user's wife gave them a watch."),
        ("the gate is blue", "The gate is blue."),
        ("The gate is blue!!!", "The gate is blue."),
        ("저는 매주 산에 가요", "사용자는 매주 산에 가요."),
        ("내 차는 흰색이야", "사용자의 차는 흰색이야."),
        ("회의는 3시야", "회의는 3시야."),
    ],
)
def test_first_person_becomes_third(said: str, kept: str) -> None:
    assert to_third_person(said) == kept


@pytest.mark.parametrize(
    "said",
    [
        "we ship on Fridays",
        "our office is closed",
        "Jun and I are married",
        "the key is in my bag",
        "우리 팀은 다섯 명이야",
    ],
)
def test_what_does_not_turn_is_quoted(said: str) -> None:
    assert to_third_person(said) == f'Said: "{said}"'


@pytest.mark.parametrize(
    ("verb", "form"),
    [
        ("like", "likes"), ("watch", "watches"), ("wish", "wishes"), ("fix", "fixes"), ("go", "goes"), ("do", "does"),
        ("have", "has"), ("carry", "carries"), ("play", "plays"), ("need", "needs"), ("moved", "moved"),
        ("went", "went"), ("must", "must"), ("won't", "won't"), ("AM", "is"),
    ],
)  # fmt: skip
def test_third_person(verb: str, form: str) -> None:
    assert third_person_verb(verb) == form


def test_the_first_person_inside_a_phrase() -> None:
    assert (
        with_they("it when I was with my mother and me myself")
        == "it when they were with their mother and them themselves"
    )
    assert with_they("Mimi's iMac") == "Mimi's iMac"


@pytest.mark.parametrize(
    ("text", "closed"), [("a b", "A b."), ("a b.", "A b."), ("a b!", "A b!"), (" 가 ", "가."), ("", ".")]
)
def test_sentences_are_closed(text: str, closed: str) -> None:
    assert as_sentence(text) == closed


@given(st.text(min_size=1, max_size=200))
def test_any_text_becomes_one_line(text: str) -> None:
    assert len(to_third_person(text).splitlines()) <= 1

"""Which sentences say a memory, and which texts mention it."""

from __future__ import annotations

import pytest

from server.memory import Wording
from server.types import Memory, MemoryKind

NUTS = ("Is allergic to peanuts.", "I'm allergic to peanuts")
KOREAN = ("땅콩 알레르기가 있어요.", "땅콩 알레르기가 있어요")
CAFE = ("Likes the Café Zoë.", "I like the Café Zoë")
FLAT = ("Lives at 1,200 Hill Road.", "I live at 1,200 Hill Road")


def wording(*said: tuple[str, str]) -> Wording:
    return Wording([
        Memory(number, MemoryKind.FACT, text, quote, None, None, 1.0, 1.0)
        for number, (text, quote) in enumerate(said)
    ])  # fmt: skip


def cut(text: str, *said: tuple[str, str], own: bool) -> list[str]:
    return [text[start:end] for start, end in wording(*said).sentences(text, own=own)]


@pytest.mark.parametrize(
    ("text", "said", "gone"),
    [
        ("Hi! I'm allergic to peanuts. What now?", NUTS, ["I'm allergic to peanuts."]),
        ("hi, I am allergic to peanuts!", NUTS, ["hi, I am allergic to peanuts!"]),  # the rules find the same in it
        ("Peanuts make some people allergic.", NUTS, []),  # in words of its own
        ("Peanuts?", NUTS, []),
        ("저는 땅콩 알레르기가 있어요. 뭘 먹죠?", KOREAN, ["저는 땅콩 알레르기가 있어요."]),
        ("I like the Cafe\u0301 Zoe\u0308. Bye.", CAFE, ["I like the Cafe\u0301 Zoe\u0308."]),
        ("I live at 1,200 Hill Road. Bye.", FLAT, ["I live at 1,200 Hill Road."]),
    ],
)
def test_sentences_of_the_user(text: str, said: tuple[str, str], gone: list[str]) -> None:
    assert cut(text, said, own=True) == gone


def test_sentences_of_an_answer_go_where_they_have_all_the_words() -> None:
    text = "Since peanuts make you allergic, avoid them. Peanuts are everywhere. Fine."
    assert cut(text, NUTS, own=False) == ["Since peanuts make you allergic, avoid them."]


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("Peanuts make people allergic.", True),
        ("Are peanuts healthy?", True),
        ("The sky is blue.", False),
        ("", False),
    ],
)
def test_mentions(text: str, mentions: bool) -> None:
    assert wording(NUTS, KOREAN).mentioned_in(text) is mentions


def test_of_many_memories_each_is_found() -> None:
    many = [(f"Likes thing{number}a.", f"I like thing{number}a") for number in range(500)]
    assert cut("I like thing77a. And thing9.", *many, own=True) == ["I like thing77a."]

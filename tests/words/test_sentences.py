"""Where sentences end."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.words import sentences


def cut(text: str, **options: int) -> list[str]:
    return [text[start:end] for start, end in sentences(text, **options)]


@pytest.mark.parametrize("text", [
    "It closes at six.|We open again at nine.",
    "Really?|Yes!|Well…|Maybe.",
    'He said "stop."|Then he left.',
    "Dr. Kim and mrs. Han came.|They sat.",
    "See No. 7 and Fig. 2 for that.|Then go on.",
    "No.|The list holds three pieces.",
    "J. S. Bach wrote it.|Others played.",
    "Bring cups, plates, etc. for ten.",
    "It costs 3.5 EUR or 1,000 won.|Ask us.",
    "운영 시간은 9시부터입니다.|주말은 쉽니다.",
    "오전에 가능합니다|오후는 어렵습니다",
    "서울에서 일하니까 자주 못 가요",
    "그럴 수 있습니까|네 그럼요",
    "저는 매운 걸 못 먹어요 라고 했다",
    "저는 비건이에요|그래서 우유도 안 마셔요",
    "진짜 좋아요~|다음에 또 가요",
    "월요일~ 금요일에 엽니다",
    "3~5일 걸립니다.|반품은 7~14일입니다.",
], ids=lambda text: text[:20])  # fmt: skip
def test_sentences_end_where_a_reader_would_say(text: str) -> None:
    assert cut(text.replace("|", " ")) == text.split("|")


@pytest.mark.parametrize("text", ["좋아요.|그리고 내일 봐요", "会議は三時です。|場所は二階です。", "어디예요?|여기요"])
def test_some_ends_need_no_space(text: str) -> None:
    assert cut(text.replace("|", "")) == text.split("|")


def test_a_line_that_goes_on_in_lower_case_was_wrapped() -> None:
    assert cut("The fee is due\nwithin a week\nAsk us") == ["The fee is due\nwithin a week", "Ask us"]


def test_in_chats_only_a_long_line_was_wrapped() -> None:
    assert cut("i like tea\ni live in seoul", wrapped_from=50) == ["i like tea", "i live in seoul"]
    long = "i have been working on the night shift of a hospital\nfor six years now"
    assert cut(long, wrapped_from=50) == [long]


def test_a_part_of_a_text_can_be_asked_for() -> None:
    text = "One. Two. Three."
    assert [text[a:b] for a, b in sentences(text, 5, 9)] == ["Two."]
    assert [text[a:b] for a, b in sentences(text, 5)] == ["Two.", "Three."]


@given(st.text(alphabet='ab .!?\n"요다니까~。1', max_size=200))
def test_nothing_but_space_is_lost_and_spans_are_in_order(text: str) -> None:
    at = 0
    for start, end in sentences(text):
        assert at <= start <= end <= len(text)
        assert not text[at:start].strip()
        at = end
    assert not text[at:].strip()


@pytest.mark.parametrize("piece", ["a. ", ".", "요 ", "~", "\n", "니까 ", '?" ', "etc. ", "1. "])
def test_hostile_text_is_cut_in_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.perf_counter()
    list(sentences(text))
    assert time.perf_counter() - began < 3

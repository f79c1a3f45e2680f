"""Which sentences of a message are the user's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.memory.reading.own_words import MASK, READ_CHARS, SENTENCE_CHARS, Span, clean, mask, sentences


def read(text: str) -> list[str]:
    return [span.source for span in sentences(clean(text))]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("One two. Three four! Five six?", ["One two", "Three four", "Five six"]),
        ("I weigh 70.5 kg. See example.com today.", ["I weigh 70.5 kg", "See example.com today"]),
        ("Ask Dr. Lee. Then Mr. Kim.", ["Ask Dr. Lee", "Then Mr. Kim"]),
        ("line one\nline two", ["line one", "line two"]),
        ("저는 민아예요. 부산에 살아요.", ["저는 민아예요", "부산에 살아요"]),
        ("저는 민아예요.부산에 살아요", ["저는 민아예요", "부산에 살아요"]),
        ("저는 민아입니다 부산에 살아요 커피를 좋아해요", ["저는 민아입니다", "부산에 살아요", "커피를 좋아해요"]),
        ("저는 좋아해요 라고 말했어", ["저는 좋아해요 라고 말했어"]),
        ("필요 없는 말은 빼 줘", ["필요 없는 말은 빼 줘"]),
        ("ok. ya. no.", []),
    ],
)
def test_sentences(text: str, cut: list[str]) -> None:
    assert read(text) == cut


def test_a_wrapped_line_is_no_new_sentence() -> None:
    wrapped = "The service should pick a method by itself, and it must\nalways use the most secure one."
    assert len(read(wrapped)) == 1
    assert read("short line\nanother one") == ["short line", "another one"]
    assert read("The service should pick a method by itself, and well\nAlways use it") == [
        "The service should pick a method by itself, and well",
        "Always use it",
    ]


def test_a_question_is_known_by_its_mark() -> None:
    marks = {span.source: span.question for span in sentences("Is it? It is. 정말？ 정말로 그래?!")}
    assert marks == {"Is it": True, "It is": False, "정말로 그래": True}


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ('say "one two" now', "one two"),
        ("say “one two” now", "one two"),
        ("say 'one two' now", "one two"),
        ("'민아'라고 해", "민아"),
        ("run `rm -rf` now", "rm -rf"),
        ("「하나」 둘", "하나"),
        ("a\n```py\nsecret\n```\nb", "secret"),
        ("a\n~~~\nsecret", "secret"),
        ("a\n> secret\nb", "secret"),
    ],
)
def test_other_peoples_words_are_masked_in_place(text: str, hidden: str) -> None:
    masked = mask(text)
    at = text.index(hidden)
    assert len(masked) == len(text)
    assert masked[at : at + len(hidden)] == MASK * len(hidden)


@pytest.mark.parametrize(
    "text", ["I don't think it's Mina's", "5'10\" tall", "rock 'n roll", 'an open " quote', "a > b"]
)
def test_apostrophes_and_lone_marks_hide_nothing(text: str) -> None:
    assert MASK not in mask(text)


def test_a_curly_apostrophe_reads_as_a_straight_one() -> None:
    assert mask("I’m") == "I'm"


@pytest.mark.parametrize(
    "text",
    [
        "Translate this to Korean:\nI am here. I am there.",
        "Summarize: I am here.",
        "Fix the grammar in this text\nI is here",
        "Here is the letter:\nDear all. I am here.",
        "다음 글을 요약해 줘.\n저는 여기 있어요.",
        "The customer wrote: I am here.",
        "Imagine a knight. I am here.",
    ],
)
def test_material_and_plays_end_the_reading(text: str) -> None:
    assert read(f"First of all. {text}") == ["First of all"]


@pytest.mark.parametrize(
    "text",
    [
        "Remember: it is blue",
        "About me: it is blue",
        "기억해 줘: 파란색이야",
        "See https://example.org/x for it",
        "It is 10:30 now",
    ],
)
def test_own_labels_do_not(text: str) -> None:
    assert read(f"{text}. And more") == [text, "And more"]


def test_a_long_message_gives_only_whole_sentences_of_its_ends() -> None:
    text = "Start here. " + "middle " * 5_000 + "cut. End here."
    assert read(text) == ["Start here", "End here"]
    long = "x" * (SENTENCE_CHARS + 1)
    assert read(f"Start here. {long}. End here.") == ["Start here", "End here"]
    numbered = "".join(f"Sentence {n:05d}. " for n in range(2_000))
    got = read(numbered)
    assert all(len(one) == len("Sentence 00000") for one in got)
    assert len(got) * 16 < 2 * READ_CHARS


def test_a_span_cuts_and_strips_with_its_position() -> None:
    text = "  hello, world  "
    span = Span(text, text, 10).strip()
    assert (span.source, span.start) == ("hello, world", 12)
    assert span.cut(7).start == 19
    assert span.cut(7).strip("dw").source == "orl"
    assert Span(" ,, ", " ,, ", 0).strip(",").source == ""


def test_clean_composes_and_repairs() -> None:
    assert clean("\u1112\u1161\u11ab") == "한"
    assert clean("a\ud800b\udfff") == "a\ufffdb\ufffd"
    assert clean("😀") == "😀"


@given(st.text(max_size=500))
def test_spans_lie_in_the_text(text: str) -> None:
    source = clean(text)
    assert len(mask(source)) == len(source)
    end = 0
    for span in sentences(source):
        assert span.start >= end
        end = span.start + len(span.source)
        assert source[span.start : end] == span.source
        assert len(span.masked) == len(span.source)

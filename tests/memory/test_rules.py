"""What a user's own words lead to, on labelled turns, and what the rules cost on a message of any shape."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.memory.reading import clean
from server.memory.rules import MOST_FINDINGS, extract
from server.types import MemoryKind

TURNS = [json.loads(line) for line in Path(__file__).with_name("turns.jsonl").read_text(encoding="utf-8").splitlines()]
HANGUL = re.compile("[가-힣]")


def said(text: str) -> list[str]:
    return [finding.text for finding in extract(clean(text))]


def kinds(text: str) -> list[MemoryKind]:
    return [finding.kind for finding in extract(clean(text))]


# ── the labelled turns ───────────────────────────────────────────────────────────────────────────


def scores(turns: list[dict[str, object]]) -> tuple[float, float, str]:
    """Precision and recall over memories, and the turns that went wrong."""
    right = wrong = missed = 0
    report = []
    for turn in turns:
        got, wanted = set(said(str(turn["text"]))), set(turn["saves"])  # type: ignore[call-overload]
        right, wrong, missed = right + len(got & wanted), wrong + len(got - wanted), missed + len(wanted - got)
        if got != wanted:
            report.append(f"{turn['text']!r}: got {got or 'nothing'}, wanted {wanted or 'nothing'}")
    return right / max(1, right + wrong), right / max(1, right + missed), "\n".join(report)


def test_the_set_is_large_bilingual_and_has_both_sides() -> None:
    assert len(TURNS) >= 60
    for korean in (True, False):
        turns = [turn for turn in TURNS if bool(HANGUL.search(turn["text"])) is korean]
        assert sum(bool(turn["saves"]) for turn in turns) >= 30
        assert sum(not turn["saves"] for turn in turns) >= 30


@pytest.mark.parametrize("korean", [True, False], ids=["Korean", "English"])
def test_precision_and_recall(korean: bool) -> None:
    precision, recall, report = scores([turn for turn in TURNS if bool(HANGUL.search(turn["text"])) is korean])
    assert precision >= 0.95, report
    assert recall >= 0.8, report


def test_every_quote_is_the_users_own_words() -> None:
    for turn in TURNS:
        text = clean(turn["text"])
        for finding in extract(text):
            quote = text[finding.start : finding.end]
            assert quote
            assert quote == quote.strip()


def test_quotes_are_exact() -> None:
    text = 'Hi! My name is Mina, and remember that my dog is called "Rex". Thanks'
    findings = extract(text)
    assert [text[f.start : f.end] for f in findings] == ["My name is Mina", 'my dog is called "Rex"']


# ── kinds ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("My name is Mina", MemoryKind.IDENTITY),
        ("저는 김민아입니다", MemoryKind.IDENTITY),
        ("I live in Busan", MemoryKind.IDENTITY),
        ("땅콩 알레르기가 있어요", MemoryKind.IDENTITY),
        ("Call me Jun", MemoryKind.PREFERENCE),
        ("존댓말로 말해 줘", MemoryKind.PREFERENCE),
        ("I prefer short answers", MemoryKind.PREFERENCE),
        ("Answer in Korean", MemoryKind.PREFERENCE),
        ("Always cite sources", MemoryKind.INSTRUCTION),
        ("항상 짧게 답해 줘", MemoryKind.INSTRUCTION),
        ("Remember that the printer is on floor 2", MemoryKind.FACT),
        ("기억해 줘: 프린터는 2층에 있어", MemoryKind.FACT),
    ],
)
def test_kinds(text: str, kind: MemoryKind) -> None:
    assert kinds(text) == [kind]


def test_an_explicit_request_keeps_the_kind_of_what_it_holds() -> None:
    assert kinds("Remember that my name is Mina") == [MemoryKind.IDENTITY]
    assert said("Remember that my name is Mina and I live in Busan") == ["Name is Mina.", "Lives in Busan."]


# ── whose words they are ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        '"My name is Mina"',
        "“I prefer tea”",
        "`always answer in French`",
        "```\nMy name is Mina\n```",
        "~~~\nI live in Busan",
        "> I live in Busan",
        "「저는 부산에 살아요」",
        "She told me: I live in Busan.",
        "Translate this into Korean:\nMy name is Mina. I live in Busan.",
        "다음 글을 번역해 줘.\n저는 부산에 살아요. 제 이름은 민아예요.",
        "Let's play a game. My name is Arthur and I live in Camelot.",
        "상황극 하자. 저는 부산에 살아요.",
    ],
)
def test_other_peoples_words_save_nothing(text: str) -> None:
    assert said(text) == []


def test_the_users_words_around_a_quotation_still_count() -> None:
    assert said('My name is Mina. What does "I live in Busan" mean?') == ["Name is Mina."]
    assert said("```\nx = 1\n```\nI prefer short answers.") == ["Prefers short answers."]


def test_a_quoted_name_is_a_name() -> None:
    assert said('Call me "Jun"') == ["Wants to be called Jun."]
    assert said("'민아'라고 불러 줘") == ["호칭은 민아."]


def test_remember_that_alone_points_at_the_sentence_before() -> None:
    assert said("The gate code changed today. Remember that.") == ["The gate code changed today."]
    assert said("회의실은 3층이야. 이거 기억해 줘.") == ["회의실은 3층이야."]
    assert said("Is the gate locked? Remember that.") == []
    assert said("Remember that.") == []
    assert said("기억해 줘.") == []


def test_what_the_rules_already_found_is_not_kept_twice() -> None:
    assert said("I live in Busan. Please remember that.") == ["Lives in Busan."]


@pytest.mark.parametrize(
    "text",
    [
        "remember that my password is hunter2",
        "my PIN is 1234, remember it",
        "Remember that my card is 4111-1111-1111-1111.",
        "내 주민번호는 900101-1234567이야. 기억해 줘.",
        "비밀번호는 qwerty라고 기억해 줘",
        "remember: sk-proj-abcdefghij0123456789ABCDEF",
    ],
)
def test_secrets_are_never_found(text: str) -> None:
    assert said(text) == []


# ── any shape of message ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["", " ", "\n\n", "?", "...", "…", "ㅋㅋㅋ", "ㅠㅠ", "👍", "\ufffc", "\x00", "'", '"'])
def test_nothing_in_nothing_out(text: str) -> None:
    assert said(text) == []


def test_decomposed_hangul_is_understood() -> None:
    import unicodedata

    assert said(unicodedata.normalize("NFD", "제 이름은 민아예요")) == ["이름은 민아."]


def test_a_lone_surrogate_does_not_stop_the_rest() -> None:
    assert said("My name is Mina. \ud800") == ["Name is Mina."]


@given(st.text(max_size=300))
def test_any_text_gives_findings_inside_it(text: str) -> None:
    source = clean(text)
    for finding in extract(source):
        assert 0 <= finding.start < finding.end <= len(source)
        assert finding.text


PIECES = st.sampled_from(
    [
        "my name is",
        "call me",
        "remember",
        "that",
        "I",
        "prefer",
        "Mina",
        "and",
        ",",
        "?",
        ".",
        ":",
        "\n",
        "if",
        "said",
        "don't",
        "always",
        "never",
        "제 이름은",
        "저는",
        "민아",
        "라고",
        "불러 줘",
        "기억해 줘",
        "좋아해요",
        "에 살아요",
        "고",
        "데",
        "앞으로",
        "존댓말로",
        "말해 줘",
        "을",
        '"',
        "'",
        "`",
        "“",
        "> ",
        "```",
        "please",
        "from now on",
        "answer in Korean",
    ]
)


@given(st.lists(PIECES, max_size=40))
def test_any_mix_of_trigger_words_gives_findings_inside_it(pieces: list[str]) -> None:
    text = clean(" ".join(pieces))
    findings = extract(text)
    assert len(findings) <= MOST_FINDINGS
    for finding in findings:
        assert text[finding.start : finding.end].strip()


def test_a_long_list_of_statements_is_pasted_and_cut_off() -> None:
    assert len(said("\n".join(f"I like dish {n}." for n in range(50)))) == MOST_FINDINGS


def test_a_long_message_is_read_at_both_ends() -> None:
    filler = "The committee met again and nothing was decided. " * 2000
    assert said(f"My name is Mina.\n{filler}\nI prefer short answers.") == ["Name is Mina.", "Prefers short answers."]
    assert said(f"{filler}\nMy name is Mina.\n{filler}") == []


MEGABYTE = 1_000_000
SHAPES = [
    "a",
    " ",
    "\n",
    "?",
    ".",
    "a. ",
    "1 ",
    "'a ",
    '"a ',
    "“",
    "‘a ",
    "`",
    "``` ",
    "> ",
    "```\n",
    "「",
    "I am ",
    "I like ",
    "my name is ",
    "remember ",
    "remember that ",
    "and I ",
    ", I ",
    "never ",
    "please ",
    "hi ",
    "from now on ",
    "don't forget ",
    "저는 ",
    "기억해 줘 ",
    "을 좋아해요 ",
    "라고 ",
    "제 이름은 ",
    "이고 ",
    "는데 ",
    "앞으로 ",
    "ㅋ",
    "존댓말로 ",
    "translate ",
    "this:",
    "4111 ",
    "eyJ.",
    "-",
    "에서 ",
    "매우 ",
    "x'",
    "é",
    "😀",
]


@pytest.mark.parametrize("piece", SHAPES)
def test_a_megabyte_of_anything_takes_less_than_a_second(piece: str) -> None:
    text = piece * (MEGABYTE // len(piece))
    started = time.process_time()
    extract(clean(text))
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    "head", ["remember that ", "call me ", "I like ", "제 이름은 ", "기억해 줘: ", "저는 ", "항상 "]
)
@pytest.mark.parametrize("piece", [*SHAPES[15:], "word "])
def test_a_sentence_of_the_longest_kind_takes_no_time(head: str, piece: str) -> None:
    text = head + piece * (1_900 // len(piece))
    started = time.process_time()
    extract(clean(text))
    assert time.process_time() - started < 0.5

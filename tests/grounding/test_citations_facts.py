"""What a sentence is made of for its check: sentences and marks, numbers and dates, negations."""

from __future__ import annotations

import pytest

from server.grounding.clauses import split_clauses
from server.grounding.negation import negation_differs
from server.grounding.quantities import parse_text
from server.grounding.sentences import split_sentences

# ── sentences ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ("Lamps are bright [1]. Kettles are hot [2].",
         [("Lamps are bright [1].", (1,)), ("Kettles are hot [2].", (2,))]),
        ("Lamps are bright. [1] Kettles are hot. [2]",
         [("Lamps are bright. [1]", (1,)), ("Kettles are hot. [2]", (2,))]),
        ("[1] Lamps are bright. [2] Kettles are hot.",
         [("[1] Lamps are bright.", (1,)), ("[2] Kettles are hot.", (2,))]),
        ("Lamps are bright\n[1]", [("Lamps are bright\n[1]", (1,))]),
        ("환불은 3일 걸립니다[1]. 배송은 무료입니다 [2] 문의는 전화로 하세요.",
         [("환불은 3일 걸립니다[1]", (1,)), ("배송은 무료입니다 [2]", (2,)), ("문의는 전화로 하세요.", ())]),
        ("返品は45日以内です[1]。送料は無料です。[2]",
         [("返品は45日以内です[1]。", (1,)), ("送料は無料です。[2]", (2,))]),
        ("退货期限是45天[1]。运费免费[2]。",
         [("退货期限是45天[1]。", (1,)), ("运费免费[2]。", (2,))]),
        ("- Lamps are bright [1]\n- [2] Kettles are hot\n1. Third thing here",
         [("Lamps are bright [1]", (1,)), ("[2] Kettles are hot", (2,)), ("Third thing here", ())]),
        ("> Lamps are bright [1]", [("Lamps are bright [1]", (1,))]),
        ("Mr. Kim sells lamps, e.g. bright ones [1]. It is 3.5 m long.",
         [("Mr. Kim sells lamps, e.g. bright ones [1].", (1,)), ("It is 3.5 m long.", ())]),
        ("| a | b |\n|---|---|\n| Norway | 14.90 EUR [1] |", [("a | b", ()), ("Norway | 14.90 EUR [1]", (1,))]),
        ("```\na [1]\n```\nLamps are bright [2].\n~~~\nopen [3]", [("Lamps are bright [2].", (2,))]),
        ("See [the page](https://example.org/[1]) on lamps [2].",
         [("See [the page](https://example.org/[1]) on lamps [2].", (1, 2))]),
    ],
)  # fmt: skip
def test_an_answer_falls_into_sentences_with_their_marks(answer: str, parts: list[tuple[str, tuple[int, ...]]]) -> None:
    found = split_sentences(answer)
    assert [(answer[each.start : each.end], each.cited) for each in found] == parts


def test_headings_are_told_apart() -> None:
    found = split_sentences("# Lamps and kettles\n**Bright lamps**\nLamps are bright. **They are hot.**")
    assert [each.is_heading for each in found] == [True, True, False, False]


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("24 hours", "1 day"), ("24 months", "2 years"), ("a fee for one week", "7 days"), ("three years", "3 years"),
        ("€6.90", "6.90 EUR"), ("6,90 €", "6.9 euros"), ("39.90유로", "EUR 39.90"), ("1,000원", "1000 KRW"),
        ("6만 9천 원", "69,000원"), ("15만 원", "150,000원"), ("14:00", "2 pm"), ("오후 2시", "14:00"),
        ("오전 10시", "10 a.m."), ("15 November", "November 15th"), ("11월 15일", "15. 11."),
        ("2024-11-15", "2024년 11월 15일"), ("2-3 working days", "between 2 and 3 days"), ("7~10일", "7일에서 10일"),
        ("이틀", "2일"), ("일주일", "7 days"), ("20%", "20 percent"), ("20퍼센트", "20%"), ("1.5 kg", "1500 g"),
        ("price EUR: 39.90", "39.90 EUR"), ("in 1887", "1887년에"), ("両方で2週間", "14日"), ("午後8時", "20:00"),
        ("3 million", "3,000,000"),
    ],
)  # fmt: skip
def test_the_same_in_other_words(one: str, other: str) -> None:
    mine, theirs = parse_text(one).quantities, parse_text(other).quantities
    assert mine
    assert all(each.is_among(theirs) for each in mine)
    assert all(each.is_among(mine) for each in theirs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12 EUR", "5 EUR"), ("45 days", "45 EUR"), ("45 days", "45 weeks"), ("3 years", "1 year"), ("3 USD", "3 EUR"),
        ("10 am", "10 pm"), ("15 November", "16 November"), ("15 November", "15 December"), ("14:00", "14:30"),
        ("7권", "7층"), ("2천 원", "2만 원"), ("1.5", "15"), ("30분", "30초"), ("1887", "1888"),
    ],
)  # fmt: skip
def test_what_differs(one: str, other: str) -> None:
    mine, theirs = parse_text(one).quantities, parse_text(other).quantities
    assert mine
    assert not any(each.is_among(theirs) for each in mine)


def test_codes_are_names_and_what_only_counts_is_optional() -> None:
    parsed = parse_text("BL-100 comes in two colours, one a day, on page 3")
    assert parsed.codes == {"bl-100"}
    assert {(each.raw, each.optional) for each in parsed.quantities} == {(2, True), (1, True), (3, False)}
    assert parse_text("It is kept for a month").quantities[0].optional is False


# ── clauses ──────────────────────────────────────────────────────────────────────────────────────


def test_prose_falls_into_clauses_tables_into_cells_and_records_stay_whole() -> None:
    prose = [clause.text.strip(" ,.") for clause in split_clauses("Cards take 5 days, PayPal one, bank transfers two.")]
    assert prose == ["Cards take 5 days", "PayPal one", "bank transfers two"]
    table = list(split_clauses("| to | standard | express |\n|---|---|---|\n| Norway | 14.90 EUR | not offered |"))
    assert [clause.text for clause in table] == ["Norway standard 14.90 EUR", "Norway express not offered"]
    assert len({(clause.start, clause.end) for clause in table}) == 1
    assert len(list(split_clauses("name: Aria kettle\nprice EUR: 39.90\nweight kg: 1.1"))) == 1
    assert list(split_clauses("")) == []


# ── negation ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Coffee can be returned", "Coffee cannot be returned"),
        ("Text messages aren't supported", "Text messages are supported"),
        ("Dogs are allowed", "Dogs are not allowed"),
        ("Bicycles are carried", "No bicycles are carried"),
        ("커피는 반품할 수 있습니다", "커피는 반품할 수 없습니다"),
        ("점심시간에도 접수할 수 있습니다", "점심시간에는 접수하지 않습니다"),
    ],
)
def test_a_not_turns_a_sentence(one: str, other: str) -> None:
    assert negation_differs(one, other)
    assert negation_differs(other, one)
    assert not negation_differs(one, one)
    assert not negation_differs(other, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A parcel counts as lost after 10 days", "A parcel counts as lost when it has not arrived after 10 days"),
        ("No bicycles are carried", "Bicycles are not carried"),
        ("Only guide dogs are allowed", "Dogs are not allowed, except guide dogs"),
        ("Items aren't exchanged", "We do not exchange items directly"),
    ],
)
def test_a_not_at_another_word_turns_nothing(one: str, other: str) -> None:
    assert not negation_differs(one, other)
    assert not negation_differs(other, one)

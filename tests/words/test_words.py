from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.words import content_words, is_courtesy, is_follow_up, stem, terms


@pytest.mark.parametrize(
    "group",
    [
        "return returns returned returning",
        "refund refunds refunded",
        "ship ships shipped shipping",
        "price prices pricing priced",
        "delivery deliveries",
        "box boxes",
        "cancel cancels canceled",
        "process processes processing",
    ],
)
def test_forms_of_a_word_meet(group: str) -> None:
    assert len({stem(word) for word in group.split()}) == 1


@pytest.mark.parametrize("word", ["bus", "class", "this", "sing", "red", "analysis", "status", "환불"])
def test_words_that_only_look_like_forms_stay(word: str) -> None:
    assert stem(word) == word


def test_terms_fold_case_width_accents_and_number_marks() -> None:
    assert terms("The CAFÉ costs ＵＳＤ 1,000 — or 3.5!") == ["cafe", *terms("costs"), "usd", "1000", "3.5"]


def test_product_numbers_are_found_by_their_parts() -> None:
    assert terms("BL-410_x") == ["bl", "410", "x"]


def test_korean_is_paired() -> None:
    assert terms("환불은 3일") == ["환불", "불은", "3", "일"]
    assert set(terms("환불")) < set(terms("환불이 언제"))


def test_japanese_and_chinese_are_paired() -> None:
    assert terms("返品は") == ["返品", "品は"]
    assert terms("退货吗") == ["退货", "货吗"]


def words_of(question: str) -> list[str]:
    return [unit.word for unit in content_words(question)]


@pytest.mark.parametrize(
    ("question", "content"),
    [
        ("How many days do I have to return something?", ["day", "return"]),
        ("what's the price of BL-410, please?", [stem("price"), "bl", "410"]),
        ("환불은 며칠 안에 신청해야 하나요?", ["환불", "신청"]),
        ("고객센터 상담 시간 알려주세요", ["고객센터", "상담", "시간"]),
        ("반품하려면 어떻게 해야 하나요?", ["반품"]),
        ("返品は何日以内ですか", ["返品", "何日以内"]),
        ("退货需要多少天", ["退货", "天"]),
        ("why?", []),
        ("2 + 2", []),
        ("그건 어떻게 하나요?", []),
    ],
)
def test_units_are_what_a_question_is_about(question: str, content: list[str]) -> None:
    assert words_of(question) == content


def test_a_korean_verb_weighs_less_than_a_noun() -> None:
    weights = {unit.word: unit.weight for unit in content_words("배송이 며칠 늦어지나요")}
    assert weights["배송"] == 1
    assert weights["늦어지나요"] < 0.5


@pytest.mark.parametrize("text", ["", "Thanks!", "ok, thank you very much", "안녕하세요", "네, 감사합니다!", "hi 🙂"])
def test_courtesies_ask_nothing(text: str) -> None:
    assert is_courtesy(text)


@pytest.mark.parametrize("text", ["thanks, and for children?", "refund", "감사 인사 방법", "no refund?", "why"])
def test_questions_are_no_courtesies(text: str) -> None:
    assert not is_courtesy(text)


@pytest.mark.parametrize("text", ["and for children?", "is that free?", "그럼 기간은요?", "why?", "Japan?"])
def test_follow_ups(text: str) -> None:
    assert is_follow_up(text)


def test_a_full_question_is_no_follow_up() -> None:
    assert not is_follow_up("Which countries have express delivery before Christmas?")


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_has_terms_and_units(text: str) -> None:
    assert all(terms(text))
    assert all(unit.terms and 0 < unit.weight <= 1 for unit in content_words(text))
    is_courtesy(text)
    is_follow_up(text)

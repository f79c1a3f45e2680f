from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from server.grounding import SentenceCheck, Verdict
from server.grounding.citations import check_answer, check_sentences, find_citations, shown_text
from server.relations import TextRole
from server.types import Passage, TurnContext
from tests.fakes import WordEmbedder
from tests.grounding.citation_cases import passages

PASSAGES = tuple(Passage(id=f"p{n}", folder="f", file="a.md", text="…") for n in (1, 2, 3))
RETURNS = passages("returns")


@pytest.mark.parametrize(
    ("text", "valid", "invalid"),
    [
        ("Within 45 days [1].", ["p1"], ()),
        ("[2] then [1] then [2].", ["p2", "p1"], ()),
        ("Both [1, 3].", ["p1", "p3"], ()),
        ("Both [1][3].", ["p1", "p3"], ()),
        ("Out of range [4] and [0].", [], (4, 0)),
        ("45일 이내입니다[2].", ["p2"], ()),
        ("No mark, array[x], [] or [1a].", [], ()),
        ("A year [2024] is no passage.", [], ()),
        ("A [1](https://example.org) link, and `code[2]`.", [], ()),
        ("```py\nx[1]\n```\n[2]", ["p2"], ()),
    ],
)
def test_marks_point_to_passages(text: str, valid: list[str], invalid: tuple[int, ...]) -> None:
    citations, wrong = find_citations(text, PASSAGES)
    assert [citation.passage_id for citation in citations] == valid
    assert wrong == invalid


def one(text: str, against: Sequence[Passage] = RETURNS, *, user_context: str = "") -> SentenceCheck:
    (found,) = check_sentences(text, against, None, user_context=user_context)
    return found


# ── what is shown ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "verdict", "shown"),
    [
        ("You can return an item within 45 days [1].", Verdict.SUPPORTED, None),
        ("You can return an item within 45 days [3].", Verdict.CORRECTED,
         "You can return an item within 45 days [1]."),
        ("You can return an item within 45 days [1, 3].", Verdict.CORRECTED,
         "You can return an item within 45 days [1]."),
        ("You can return an item within 45 days [9].", Verdict.CORRECTED,
         "You can return an item within 45 days [1]."),
        ("You can return an item within 45 days.", Verdict.SUPPORTED, "You can return an item within 45 days [1]."),
        ("**You can return an item within 45 days.**", Verdict.SUPPORTED,
         "**You can return an item within 45 days [1].**"),
        ("You can return an item within 12 days [1].", Verdict.DROPPED, "You can return an item within 12 days."),
        ("You can return an item within 12 days [9].", Verdict.DROPPED, "You can return an item within 12 days."),
        ("Our shop sells bicycles and boats.", Verdict.UNSUPPORTED, None),
        ("Shall I ask a colleague [7]?", Verdict.NOTHING, "Shall I ask a colleague?"),
        ("Shall I ask a colleague [1]?", Verdict.NOTHING, None),
    ],
)  # fmt: skip
def test_what_the_model_wrote_stays_and_what_is_shown_is_right(text: str, verdict: Verdict, shown: str | None) -> None:
    found = one(text)
    assert found.verdict is verdict
    assert shown_text(text, [found]) == (text if shown is None else shown)
    assert (found.start, found.end) == (0, len(text))


def test_the_citations_of_an_answer_are_those_that_are_shown() -> None:
    text = "You can return an item within 45 days [3]. Our shop sells boats [2]. Ask me [8]."
    checks = check_sentences(text, RETURNS, None)
    citations, invalid = find_citations(text, RETURNS, checks)
    assert [(each.n, each.passage_id) for each in citations] == [(1, RETURNS[0].id)]
    assert invalid == (8,)
    assert [each.cited for each in checks] == [(3,), (2,), (8,)]


def test_the_lines_that_support_a_sentence_are_given() -> None:
    for text, n, words in (
        ("A faulty item can be returned in any condition [2].", 2, "A faulty item can be returned"),
        ("Bank transfers take two days [3].", 3, "bank transfers two"),
        ("Standard shipping to Norway costs 14.90 EUR [4].", 4, "| Switzerland, Norway | 5-8 working days, 14.90 EUR"),
    ):
        support = one(text).support[0]
        assert support.n == n
        assert words in RETURNS[n - 1].text[support.start : support.end]
        assert support.end - support.start < len(RETURNS[n - 1].text)
        assert 0.5 <= support.score <= 1


def test_each_mark_of_a_sentence_is_held_against_what_stands_before_it() -> None:
    kettle = passages("warranty")
    text = "The Aria kettle costs 39.90 EUR [1] and a repair takes about 9 days [2]."
    first, second = check_sentences(text, kettle, None)
    assert (first.verdict, first.shown, second.verdict, second.shown) == (
        Verdict.CORRECTED, (3,), Verdict.SUPPORTED, (2,),
    )  # fmt: skip
    assert shown_text(text, [first, second]) == text.replace("[1]", "[3]")


def test_passages_can_support_a_sentence_together() -> None:
    text = "The Aria kettle costs 39.90 EUR and is repaired in about 9 days [3]."
    found = one(text, passages("warranty"))
    assert set(found.shown) == {2, 3}
    assert shown_text(text, [found]) == text.replace("[3]", "[3][2]")


# ── what is no claim ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        "감사합니다!",
        "# Returns of items to the warehouse",
        "**Returns of items to the warehouse**",
        "What would you like to return to us?",
        "무엇을 도와드릴까요?",
        "I could not find anything on this in the sources.",
        "The sources do not say whether boats are sold.",
        "문서에서 관련 내용을 찾을 수 없습니다.",
        "배송 지역에 대한 정보가 없습니다.",
        "Here are the steps for the return:",
        "Let me know if you need anything else about boats.",
        "I will gladly ask a colleague about it.",
        "더 궁금한 점이 있으시면 언제든지 말씀해 주세요.",
        "죄송하지만 담당자에게 확인해 보겠습니다.",
        "Of course!",
    ],
)
def test_what_claims_nothing_is_not_marked(text: str) -> None:
    assert one(text).verdict is Verdict.NOTHING


@pytest.mark.parametrize("text", ["I can tell you that boats cost 700 EUR.", "You can let me know within 90 days."])
def test_an_offer_with_a_number_is_a_claim(text: str) -> None:
    assert one(text).verdict is Verdict.UNSUPPORTED


def test_code_and_json_claim_nothing() -> None:
    assert check_sentences("```\nboats = sell(700)\n```", RETURNS, None) == ()
    assert check_sentences('{"answer": "Boats cost 700 EUR [1]."}', RETURNS, None) == ()
    assert check_sentences("", RETURNS, None) == ()


# ── answers that are special ─────────────────────────────────────────────────────────────────────


def test_the_last_words_of_a_stopped_answer_are_not_held_against_it() -> None:
    text = "You can return an item within 45 days [1]. Boats and bicycles are"
    assert [each.verdict for each in check_sentences(text, RETURNS, None, complete=False)] == ["supported", "nothing"]
    assert [each.verdict for each in check_sentences(text, RETURNS, None)] == ["supported", "unsupported"]


def test_without_passages_a_citation_is_dropped_and_nothing_else_is_said() -> None:
    text = "Boats are sold here. They cost 700 EUR [1]."
    (found,) = check_sentences(text, (), None)
    assert (found.verdict, found.shown) == (Verdict.DROPPED, ())
    assert shown_text(text, [found]) == "Boats are sold here. They cost 700 EUR."


def test_what_the_model_knows_of_the_user_needs_no_passage() -> None:
    text = "Yes, Mina, you can return an item within 45 days [1]."
    assert one(text).verdict is Verdict.DROPPED
    assert one(text, user_context="The user's name is Mina").verdict is Verdict.SUPPORTED


def test_an_answer_in_another_language_is_held_to_its_numbers() -> None:
    """The embedder knows none of both languages, so words say nothing."""
    for text, verdict, shown in (
        ("상품은 45일 안에 반품할 수 있습니다 [1].", Verdict.SUPPORTED, (1,)),
        ("상품은 45일 안에 반품할 수 있습니다 [2].", Verdict.CORRECTED, (1,)),
        ("상품은 60일 안에 반품할 수 있습니다 [1].", Verdict.DROPPED, ()),
        ("상품은 상자와 함께 보내 주세요 [2].", Verdict.UNCHECKED, (2,)),
        ("상품은 상자와 함께 보내 주세요.", Verdict.UNCHECKED, ()),
    ):
        found = one(text)
        assert (found.verdict, found.shown) == (verdict, shown)


class Bilingual(WordEmbedder):
    """Knows everything; Korean and English sentences on returns are near each other."""

    def knows(self, text: str) -> bool:
        return True

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        return super().embed(["return" if "반품" in text or "return an item" in text else text for text in texts])


def test_a_multilingual_embedder_supports_across_languages() -> None:
    (found,) = check_sentences("반품할 수 있는 기한은 45일입니다 [3].", RETURNS, Bilingual())
    assert (found.verdict, found.shown) == (Verdict.CORRECTED, (1,))


def test_offsets_count_characters_whatever_they_are() -> None:
    text = "🙂🙂 You can return an item within 45 days [3]. 한국어 🙂"
    found = check_sentences(text, RETURNS, None)[0]
    assert text[found.marks[0].start : found.marks[0].end] == "[3]"
    assert "[1]" in shown_text(text, [found])


class Broken(WordEmbedder):
    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        raise RuntimeError("out of memory")


async def test_an_answer_is_not_lost_when_its_check_breaks(caplog: pytest.LogCaptureFixture) -> None:
    text = "You can return an item within 45 days [1]."
    context = TurnContext(nonce="n", searched=True, passages=RETURNS)
    assert await check_answer(text, context, Broken(), complete=True) == ()
    assert "could not be checked" in caplog.text
    assert (await check_answer(text, context, WordEmbedder(), complete=True))[0].verdict is Verdict.SUPPORTED
    assert await check_answer(text, TurnContext(), WordEmbedder(), complete=True) == ()


@pytest.mark.parametrize(
    "hostile",
    [
        "[1]" * 3000,
        "[" * 20000,
        "1 " * 6000,
        "a. " * 4000,
        "|" * 9000,
        "`" * 9000,
        "not " * 4000,
        "한 " * 6000,
        "1-" * 6000,
        "\n" * 9000,
        "[1], " * 3000,
    ],
)
def test_no_text_takes_long(hostile: str) -> None:
    """A bound far above what it takes, and far below what a search over all ways to read it would take."""
    began = time.perf_counter()
    found = check_sentences(hostile, RETURNS, None)
    shown_text(hostile, found)
    assert time.perf_counter() - began < 60

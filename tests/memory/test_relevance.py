"""When a memory bears on a question: by words alone, and with the default embedder's own cosines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import MemorySettings
from server.database import Database
from server.memory import MemoryStore, UserMemory
from server.memory.relevance import MIN_OVERLAP, QUESTION_CHARS, excerpt, overlap, similarities, terms
from server.types import UserId

FACTS = (
    "The user's dog's name is Rex.",
    "The office closes at 6 pm.",
    "The user's wife's birthday is May 3.",
    "Has a meeting every Tuesday.",
    "The user's flight leaves at 9:40 tomorrow.",
    "The production database is Postgres 15.",
    "Drives a 2015 Honda Civic.",
    "The wifi router is in the hallway closet.",
    "The user's project is called Bluebird.",
    "사용자의 강아지 이름은 몽이야.",
    "회의는 매주 화요일 10시.",
    "사용자의 차는 소나타야.",
    "파랑새 프로젝트 마감은 5월이야.",
)
ABOUT = (
    ("What should I feed my dog?", 0),
    ("Rex is sick, what can I do?", 0),
    ("When does the office close?", 1),
    ("Can I still come by the office at 7 tonight?", 1),
    ("Gift ideas for my wife", 2),
    ("Am I free on Tuesday?", 3),
    ("When do I need to leave for the airport?", 4),
    ("Which SQL dialect should I use for production?", 5),
    ("What oil does my car need?", 6),
    ("How do I reset the router?", 7),
    ("Write a status update for Bluebird", 8),
    ("강아지 사료 추천해줘", 9),
    ("몽이 산책은 언제 시킬까?", 9),
    ("회의 언제야?", 10),
    ("내 차에 맞는 엔진오일은?", 11),
    ("파랑새 프로젝트 보고서 써줘", 12),
)
NOT_ABOUT = (
    "What is the capital of France?", "Write a haiku about autumn.", "Explain quicksort.", "How do I boil an egg?",
    "Who wrote Hamlet?", "What does 'idempotent' mean?", "Translate good morning to Spanish.", "Tell me a joke.",
    "Give me a recipe for lentil soup.", "How tall is Mount Everest?", "What is the refund policy?", "hello", "thanks!",
    "Can I return a laptop after 20 days?", "How do I center a div?", "Is clause 4 risky?", "What's 17 times 23?",
    "프랑스의 수도는 어디야?", "가을에 대한 시를 써줘", "환불 규정이 어떻게 돼?", "계란 삶는 방법 알려줘",
    "안녕", "고마워",
    "이 계약서에서 위험한 조항 찾아줘", "퀵소트 설명해줘", "배송은 얼마나 걸려요?", "자기소개서 써줘",
    "사용자 매뉴얼 요약해줘",
)  # fmt: skip


# ── words ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("dogs", "my dog's"),
        ("closing", "closes"),
        ("parties", "party"),
        ("planned", "planning"),
        ("Café", "café"),
        ("강아지가", "강아지"),
        ("몽이는", "몽이"),
        ("차에", "차는"),
        ("회의에서", "회의"),
        ("東京タワー", "東京"),
        ("C++", "c++"),
    ],
)
def test_forms_of_a_word_meet(one: str, two: str) -> None:
    assert terms(one) & terms(two)


@pytest.mark.parametrize(
    "text",
    ["", "what is the", "I want you to tell me", "이름이 뭐야", "저는 나는 그것을", "3 5 10", "...", "사용자의 이름은"],
)
def test_words_that_say_nothing_count_for_nothing(text: str) -> None:
    assert terms(text) == frozenset()


def test_overlap_is_a_share_of_the_smaller_side() -> None:
    question, memory = frozenset({"dog", "food"}), frozenset({"dog", "rex", "brown"})
    assert overlap(question, memory) == overlap(memory, question) == 0.5
    assert overlap(frozenset(), memory) == 0
    assert overlap(question, question) == 1


def test_a_long_question_is_its_ends() -> None:
    long = "a" * 5_000 + "b" * 5_000
    assert excerpt("short") == "short"
    assert len(excerpt(long)) == QUESTION_CHARS + 1
    assert excerpt(long)[0] + excerpt(long)[-1] == "ab"


def test_similarities_are_cosines_and_zero_for_unknown_rows() -> None:
    rows = np.array([[1, 0], [0.6, 0.8], [0, 0]], dtype=np.float32)
    assert similarities(np.array([1, 0], dtype=np.float32), rows).tolist() == pytest.approx([1, 0.6, 0])


@given(st.text(max_size=200))
def test_terms_of_anything(text: str) -> None:
    assert all(terms(text))
    assert overlap(terms(text), terms(text)) in (0, 1)


def test_korean_questions_are_told_apart_by_words_alone() -> None:
    facts = [terms(fact) for fact in FACTS]
    for question, fact in ABOUT:
        if not question.isascii():
            scores = [overlap(terms(question), held) for held in facts]
            assert scores[fact] >= MIN_OVERLAP, question
            assert scores[fact] == max(scores), question
    for question in NOT_ABOUT:
        assert max(overlap(terms(question), held) for held in facts) < MIN_OVERLAP, question


# ── the default embedder ─────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, embedder_dir: Path) -> UserMemory:
    from server.embedding import SentenceEmbedder

    database = Database(tmp_path_factory.mktemp("memory") / "tailor.db")
    memory = MemoryStore(database, SentenceEmbedder(str(embedder_dir)), MemorySettings()).of(UserId("mina"))
    for fact in FACTS:
        memory.add(fact)
    return memory


@pytest.mark.model
def test_questions_about_a_fact_recall_it_first(known: UserMemory) -> None:
    missed = [question for question, fact in ABOUT if [m.text for m in known.recall(question)][:1] != [FACTS[fact]]]
    assert missed == []


@pytest.mark.model
def test_questions_about_nothing_recall_nothing(known: UserMemory) -> None:
    false = {question: [m.text for m in known.recall(question)] for question in NOT_ABOUT}
    assert {question: found for question, found in false.items() if found} == {}


@pytest.mark.model
def test_what_comes_beside_the_right_fact_is_little(known: UserMemory) -> None:
    assert sum(len(known.recall(question)) for question, _ in ABOUT) <= 1.5 * len(ABOUT)

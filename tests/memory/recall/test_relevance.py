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
from server.memory.recall.question import parse_intent
from server.memory.recall.relevance import (
    GENERAL_WEIGHT,
    QUESTION_CHARS,
    common_weight,
    excerpt,
    memory_terms,
    parse_query,
    relevance_gate,
)
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


def share(question: str, memory: str) -> float:
    """How much of the question's words the memory has."""
    units, held = parse_query(question).words, memory_terms(memory)
    total = sum(unit.weight for unit in units)
    return sum(unit.weight for unit in units if unit.is_in(held)) / total if total else 0.0


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("dogs", "The user's dog"),
        ("closing", "It closes"),
        ("parties", "party"),
        ("planned", "planning"),
        ("Café", "café"),
        ("강아지가", "강아지"),
        ("몽이는", "몽이"),
        ("차에", "사용자의 차는 소나타예요."),
        ("회의에서", "회의"),
        ("東京タワー", "東京タワー"),
    ],
)
def test_forms_of_a_word_meet(one: str, two: str) -> None:
    assert share(one, two) == 1


@pytest.mark.parametrize("text", ["", "what is the", "I want you to tell me", "저는 나는 그것을", "3 5 10", "..."])
def test_words_that_say_nothing_count_for_nothing(text: str) -> None:
    assert parse_query(text).words == ()


def test_what_every_memory_says_finds_none() -> None:
    assert not memory_terms("The user's dog") & memory_terms("The user's cat")
    assert not memory_terms("사용자의 강아지") & memory_terms("사용자의 고양이")


def test_a_general_word_weighs_less_and_so_does_a_common_one() -> None:
    weights = {unit.terms[0]: unit.weight for unit in parse_query("Which work is best for cellists in 15 weeks?").words}
    assert weights["cellist"] == 1
    assert weights["work"] == weights["15"] == weights["week"] == GENERAL_WEIGHT
    assert common_weight(1.0, 3, 10) == GENERAL_WEIGHT
    assert common_weight(1.0, 2, 10) == common_weight(1.0, 3, 9) == 1.0


def test_a_long_question_is_its_ends() -> None:
    long = "a" * 5_000 + "b" * 5_000
    assert excerpt("short") == "short"
    assert len(excerpt(long)) == QUESTION_CHARS + 1
    assert excerpt(long)[0] + excerpt(long)[-1] == "ab"


@given(st.text(max_size=200))
def test_words_of_anything(text: str) -> None:
    assert all(memory_terms(text))
    assert 0 <= share(text, text) <= 1.001
    assert isinstance(parse_intent(text).about_past, bool)


# ── the gate ─────────────────────────────────────────────────────────────────────────────────────


def gate(likelihood: float, words: float, *, known: bool = True, personal: bool = False, strong: bool = True) -> bool:
    of = [np.array([value]) for value in (likelihood, words, strong, known, True)]
    passed, _ = relevance_gate(*of, personal=personal, min_likelihood=0.5)  # type: ignore[arg-type]
    return bool(passed[0])


def test_a_question_of_ones_own_needs_less() -> None:
    assert gate(0.55, 0, personal=True)
    assert not gate(0.55, 0)
    assert gate(0.96, 0)
    assert gate(0.35, 0.3, personal=True)
    assert not gate(0.35, 0.3)
    assert gate(0.85, 0.3)
    assert gate(0.12, 0.5)
    assert not gate(0.12, 0.5, strong=False)


def test_words_decide_where_the_embedder_does_not_know_the_language() -> None:
    assert gate(0, 0.25, known=False)
    assert not gate(0, 0.25, known=False, strong=False)
    assert not gate(0, 0.1, known=False)


def test_what_scores_far_below_the_best_stays_out() -> None:
    likelihoods, none = np.array([0.9, 0.55, 0.8], np.float32), np.zeros(3, np.float32)
    yes = np.ones(3, bool)
    passed, _ = relevance_gate(likelihoods, none, yes, yes, yes, personal=True, min_likelihood=0.5)
    assert passed.tolist() == [True, False, True]
    eligible = np.array([False, True, False])
    passed, _ = relevance_gate(likelihoods, none, yes, yes, eligible, personal=True, min_likelihood=0.5)
    assert passed.tolist() == [False, True, False]


# ── what is asked for ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("question", "slot"),
    [
        ("Where do I live?", "home"), ("which city do i live in", "home"), ("내가 어디 살지?", "home"),
        ("제가 어디에 사나요?", "home"), ("What's my name?", "name"), ("내 이름이 뭐야?", "name"),
        ("Where do I work?", "work"), ("내가 어디 다니지?", "work"), ("What do I do for a living?", "job"),
        ("When is my birthday?", "birthday"), ("내 생일이 언제야?", "birthday"),
        ("제 고향이 어디죠?", "home town"), ("Am I vegan?", "diet"), ("How old am I?", "age"), ("나 몇 살이야?", "age"),
        ("What do you call me?", "address"),
    ],
)  # fmt: skip
def test_a_question_asks_for_a_fact(question: str, slot: str) -> None:
    assert slot in parse_intent(question).slots
    assert parse_intent(question).personal


@pytest.mark.parametrize(
    "question",
    [
        "Where did I live before?",
        "Where did I use to live?",
        "What was my job before?",
        "전에 어디 살았지?",
        "예전에 내가 어디 살았어?",
        "내가 살던 곳이 어디야?",
        "전에 어디 다녔지?",
    ],
)
def test_a_question_asks_for_the_past(question: str) -> None:
    assert parse_intent(question).about_past


@pytest.mark.parametrize("question", ["Where do I live?", "How do I boil an egg before noon?", "내가 어디 살지?",
                                      "회의 전에 뭘 준비해?", "What did the Romans eat?"])  # fmt: skip
def test_a_question_does_not_ask_for_the_past(question: str) -> None:
    assert not parse_intent(question).about_past


@pytest.mark.parametrize(("question", "personal"), [("Feed my dog", True), ("How do I boil an egg?", False),
                                               ("Tell me a joke", False), ("Do I like tea?", True),
                                               ("우리 팀 회의", True), ("계란 삶는 법", False)])  # fmt: skip
def test_a_question_of_ones_own(question: str, personal: bool) -> None:
    assert parse_intent(question).personal == personal


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
    assert len(missed) <= 1, missed


@pytest.mark.model
def test_questions_about_nothing_recall_nothing(known: UserMemory) -> None:
    false = {question: [m.text for m in known.recall(question)] for question in NOT_ABOUT}
    assert {question: found for question, found in false.items() if found} == {}


@pytest.mark.model
def test_few_other_memories_come_with_the_right_one(known: UserMemory) -> None:
    assert sum(len(known.recall(question)) for question, _ in ABOUT) <= 1.5 * len(ABOUT)

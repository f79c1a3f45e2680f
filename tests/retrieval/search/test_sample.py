"""The shipped knowledge, the default embedder and the default settings: what a first user asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import RetrievalSettings
from server.embedding import SentenceEmbedder
from server.retrieval import FileState, KnowledgeBase
from tests.conftest import ROOT

pytestmark = pytest.mark.model

ANSWERED = [
    ("How many days do I have to return something?", "within 45 days"),
    ("When do I get my money back?", "3 working days"),
    ("how long does a refund to my card take", "up to 5 working days"),
    ("Is returning free if I use your label?", "free if you use our label"),
    ("I want to cancel my order", "until it is packed"),
    ("I forgot my password", "Forgotten password"),
    ("I lost my phone and can't sign in", "recovery codes"),
    ("what are 100 points worth", "3 EUR"),
    ("How long is the warranty on batteries?", "1 year"),
    ("shipping cost to Austria", "4.90 EUR"),
    ("my package never arrived", "counts as lost"),
    ("The box was broken when it came", "14 days"),
    ("How much is the robot vacuum?", "429.00"),
    ("Is the espresso machine in stock?", "in stock: no"),
    ("price of BL-410", "29.90"),
    ("do I need to pay customs duties", "duties and taxes"),
    ("반품은 며칠 안에 해야 하나요?", "45일"),
    ("환불은 며칠 걸리나요?", "환불됩니다"),
    ("배송비가 얼마예요?", "19.90유로"),
    ("관세를 내야 하나요?", "관세와 부가세"),
    ("고객센터 상담 시간 알려줘", "오전 10시"),
]
SECOND = [("Is returning free?", "free if you use our label")]  # first is that an order can be cancelled for free
UNANSWERED = [
    "What is the capital of France?",
    "Tell me a joke",
    "hello",
    "How do I cook pasta?",
    "Who won the world cup in 2018?",
    "explain quantum computing",
    "my name is Ann and I live in Oslo",
    "안녕하세요",
    "오늘 날씨 어때?",
    "대한민국의 수도는 어디인가요?",
    "김치찌개 만드는 법 알려줘",
]


@pytest.fixture(scope="module")
def base(embedder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    made = KnowledgeBase(
        ROOT / "knowledge", tmp_path_factory.mktemp("index"), SentenceEmbedder(str(embedder_dir)), RetrievalSettings()
    )
    made.sync()
    return made


def test_every_sample_file_is_indexed(base: KnowledgeBase) -> None:
    files = [file for folder in base.status().folders for file in folder.files]
    assert len(files) >= 7
    assert {file.state for file in files} == {FileState.INDEXED}


@pytest.mark.parametrize(("question", "words"), ANSWERED)
def test_the_first_passage_holds_the_answer(base: KnowledgeBase, question: str, words: str) -> None:
    passages = base.search(question, ["support"]).passages
    assert passages
    assert words in passages[0].text


@pytest.mark.parametrize(("question", "words"), SECOND)
def test_the_answer_is_among_the_first_two(base: KnowledgeBase, question: str, words: str) -> None:
    assert any(words in passage.text for passage in base.search(question, ["support"]).passages[:2])


@pytest.mark.parametrize("question", UNANSWERED)
def test_nothing_is_found_where_nothing_is_said(base: KnowledgeBase, question: str) -> None:
    assert base.search(question, ["support", "general"]).passages == ()


@pytest.mark.parametrize(
    ("earlier", "question", "words"),
    [
        ("How long is the warranty?", "and for batteries?", "1 year"),
        ("How do I return an item?", "is that free?", "free if you use our label"),
        ("Is the espresso machine in stock?", "how much is it?", "349.00"),
        ("배송비가 얼마예요?", "그럼 기간은요?", "7~10일"),
    ],
)
def test_follow_ups_keep_their_subject(base: KnowledgeBase, earlier: str, question: str, words: str) -> None:
    assert words in base.search(question, ["support"], previous_query=earlier).passages[0].text


def test_a_changed_subject_drops_the_old_one(base: KnowledgeBase) -> None:
    earlier = "How long do refunds take?"
    assert base.search("What is the capital of France?", ["support"], previous_query=earlier).passages == ()
    assert base.search("thanks", ["support"], previous_query=earlier).passages == ()

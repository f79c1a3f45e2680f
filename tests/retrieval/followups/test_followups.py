"""Two messages of one user over the files beside this test: what the second one must find, or that it finds nothing.

`cases.txt` was edited together with the code. `unseen.txt` was written when the code was done and did not change it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.config import RetrievalSettings
from server.embedding import SentenceEmbedder
from server.retrieval import KnowledgeBase
from server.words import is_courtesy, is_explicit_follow_up, is_follow_up, needs_subject, without_retracted

HERE = Path(__file__).parent
FOLDERS = ("museum", "shop", "handbook")
FLOORS = {"cases.txt": 0.95, "unseen.txt": 0.9}  # share of cases that must be right


@dataclass(frozen=True, slots=True)
class Case:
    earlier: str
    now: str
    heading: str  # '' where nothing may be found


def read(name: str) -> list[Case]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return [Case(earlier, now, "" if heading == "-" else heading) for earlier, now, heading in rows]


def is_korean(case: Case) -> bool:
    return any("가" <= letter <= "힣" for letter in case.now)


@pytest.fixture(scope="module")
def base(embedder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    made = KnowledgeBase(
        HERE / "knowledge", tmp_path_factory.mktemp("index"), SentenceEmbedder(str(embedder_dir)), RetrievalSettings()
    )
    made.sync()
    return made


def first(base: KnowledgeBase, case: Case) -> str:
    found = base.search(case.now, FOLDERS, previous_query=case.earlier).passages
    return found[0].heading[-1] if found else ""


@pytest.mark.model
@pytest.mark.parametrize("name", FLOORS)
def test_the_second_message_finds_what_it_means(base: KnowledgeBase, name: str) -> None:
    cases = read(name)
    wrong = {case: got for case in cases if (got := first(base, case)) != case.heading}
    told = "\n".join(f"{case.earlier} / {case.now}: {got!r}, not {case.heading!r}" for case, got in wrong.items())
    share = 1 - len(wrong) / len(cases)
    print(f"\n{name}: {len(cases) - len(wrong)} of {len(cases)} right ({share:.3f})\n{told}")
    assert share >= FLOORS[name], told


@pytest.mark.model
def test_no_language_is_left_behind(base: KnowledgeBase) -> None:
    for korean in (True, False):
        cases = [case for case in read("cases.txt") if is_korean(case) == korean]
        assert sum(first(base, case) == case.heading for case in cases) >= 0.93 * len(cases)


@pytest.mark.model
def test_no_change_of_subject_is_answered_from_the_old_one(base: KnowledgeBase) -> None:
    """Here a miss is worse than elsewhere: the user would read about what was left."""
    nothing = [case for case in read("cases.txt") if not case.heading]
    answered = [case for case in nothing if first(base, case)]
    assert len(answered) <= 3, answered


@pytest.mark.model
def test_without_the_message_before_the_set_cannot_be_answered(base: KnowledgeBase) -> None:
    """Else the cases would show nothing of follow-ups."""
    alone = [Case("", case.now, case.heading) for case in read("cases.txt")]
    assert sum(first(base, case) == case.heading for case in alone) < 0.75 * len(alone)


@pytest.mark.model
def test_the_child_is_among_the_passages_in_both_languages(base: KnowledgeBase) -> None:
    """아이들 stands nowhere in the files, and the default embedder knows no Korean."""
    for earlier, now, heading in (
        ("How much is the entrance fee?", "And for children?", "Tickets for children and teenagers"),
        ("성인 입장료가 얼마예요?", "그럼 아이들은요?", "어린이와 청소년 입장료"),
    ):
        found = base.search(now, FOLDERS, previous_query=earlier).passages
        assert heading in [passage.heading[-1] for passage in found]


def test_the_set_is_what_it_claims_to_be() -> None:
    cases = read("cases.txt")
    assert len(cases) >= 60
    assert len({(case.earlier, case.now) for case in cases + read("unseen.txt")}) == len(cases + read("unseen.txt"))
    korean = sum(map(is_korean, cases)) / len(cases)
    assert 0.4 <= korean <= 0.6
    assert Counter(bool(case.heading) for case in cases)[False] >= 20
    text = "\n".join(path.read_text(encoding="utf-8") for path in (HERE / "knowledge").glob("*/*.md"))
    for case in [*cases, *read("unseen.txt")]:
        assert not case.heading or f"## {case.heading}\n" in text


@pytest.mark.parametrize(
    "text",
    [
        "thanks!",
        "네",
        "아 그렇군요",
        "응 고마워",
        "ok, sounds good",
        "ㅋㅋㅋ",
        "네 알겠습니다",
        "ありがとう",
        "never mind",
    ],
)
def test_what_asks_nothing_is_a_courtesy(text: str) -> None:
    assert is_courtesy(text)


@pytest.mark.parametrize(
    "text", ["아이들은요?", "네덜란드로 배송되나요?", "no refunds?", "good returns policy", "예약은요?"]
)
def test_what_only_begins_like_a_courtesy_asks_something(text: str) -> None:
    assert not is_courtesy(text)


@pytest.mark.parametrize(
    ("text", "back", "subject"),
    [
        ("And for children?", True, False),
        ("Is it paid?", True, True),
        ("12 years old", True, True),
        ("at what time?", True, True),
        ("월요일은요?", True, False),
        ("그거 무료예요?", True, True),
        ("25명", True, True),
        ("What is the capital of Norway?", False, False),
        ("퇴직금은 언제 받나요?", False, False),
        ("Does the warranty that came with it cover glass, batteries and cables?", True, False),
    ],
)
def test_how_a_message_leans_on_the_one_before(text: str, back: bool, subject: bool) -> None:
    assert (is_explicit_follow_up(text), needs_subject(text)) == (back, subject)
    assert is_follow_up(text)


@pytest.mark.parametrize(
    ("text", "earlier", "left"),
    [
        ("not returns, exchanges", "How do I return a lamp?", ("exchanges", "How do I a lamp?")),
        ("I meant exchanges, not returns", "Are returns free?", ("I meant exchanges", "Are free?")),
        ("반품 말고 교환이요", "반품하고 싶어요", ("교환이요", "싶어요")),
        ("Is it not possible, really?", "Can I return a lamp?", None),
        ("not now, later", "Can I return a lamp?", None),
    ],
)
def test_a_word_that_is_taken_back_is_not_searched_for(text: str, earlier: str, left: tuple[str, str] | None) -> None:
    found = without_retracted(text, earlier)
    assert tuple(" ".join(part.split()) for part in found) == (left or (text, earlier))

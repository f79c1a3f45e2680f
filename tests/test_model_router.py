from __future__ import annotations

import threading
import unicodedata
from pathlib import Path

import pytest

from server.config import RouterSettings
from server.errors import NotFound
from server.model_router import ModelRouter
from server.prompting import Domain, PromptLibrary
from server.types import RouteHow
from tests.fakes import WordEmbedder

FAQ = Domain("faq", "FAQ", "", "b", routes=("where is my order", "how do refunds work", "환불은 언제 되나요?"))
LOGS = Domain("logs", "Logs", "", "b", routes=("parse this log line", "이 로그를 분석해줘"))
GENERAL = Domain("general", "General", "", "b")
ALL = (FAQ, GENERAL, LOGS)


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def router(embedder: WordEmbedder) -> ModelRouter:
    return ModelRouter(embedder, RouterSettings(min_likelihood=0.5), "general")


def test_likeness_decides_and_shows_its_reason(router: ModelRouter):
    decision = router.decide("where is my order now", ALL)
    assert (decision.domain, decision.how, decision.threshold) == ("faq", RouteHow.SIMILAR, 0.5)
    assert decision.score == decision.candidates[0].score > 0.9
    assert decision.candidates[0].example == "where is my order"
    assert {each.domain for each in decision.candidates} == {"faq", "logs", "general"}
    assert sum(each.score for each in decision.candidates) == pytest.approx(1)


def test_the_nearest_route_counts_not_the_average(router: ModelRouter):
    near, far = (
        router.decide("how do refunds work", ALL),
        router.decide("how do refunds look here now tell me that", ALL),
    )
    assert near.domain == "faq"
    assert near.score > next(each.score for each in far.candidates if each.domain == "faq")


def test_a_chosen_domain_is_not_compared_unless_somebody_asks_what_the_message_belongs_to(
    router: ModelRouter, embedder: WordEmbedder
):
    text = "parse this log line"
    chosen = router.decide(text, ALL, chosen="faq", last="general")
    assert (chosen.domain, chosen.how, chosen.score, chosen.candidates) == ("faq", RouteHow.CHOSEN, None, ())
    assert embedder.embedded == 0, "nothing to compare, nothing to embed"
    compared = router.decide(text, ALL, chosen="faq", relevance={})
    assert (compared.domain, compared.how, compared.candidates[0].domain) == ("faq", RouteHow.CHOSEN, "logs")
    assert compared.score < 0.1


def test_an_unknown_choice_is_not_found_and_names_the_domains(router: ModelRouter):
    with pytest.raises(NotFound, match="no domain 'fax'; there are faq, general, logs"):
        router.decide("hello", ALL, chosen="fax")


def test_a_message_that_belongs_elsewhere_or_nowhere_leaves(router: ModelRouter):
    assert router.decide("parse this log line", ALL, last="faq").domain == "logs"
    nowhere = "tell me a long story about seven brave knights and their green dragon please"
    assert router.decide(nowhere, ALL, last="faq").domain == "general"
    back = router.decide("how do refunds work", ALL, last="general")
    assert (back.domain, back.how) == ("faq", RouteHow.SIMILAR)


def test_a_last_domain_that_is_gone_is_passed_over(router: ModelRouter):
    decision = router.decide("parse this log line", ALL, last="removed")
    assert (decision.domain, decision.how) == ("logs", RouteHow.SIMILAR)


def test_below_the_threshold_the_default_answers_with_the_candidates_shown(router: ModelRouter):
    decision = router.decide("tell me everything about history in detail and quickly please", ALL)
    assert (decision.domain, decision.how) == ("general", RouteHow.FALLBACK)
    assert decision.score == decision.candidates[0].score > 0.5
    assert 0 < next(each.score for each in decision.candidates if each.domain == "faq") < 0.5


def test_what_its_files_answer_belongs_to_a_domain_without_a_route_for_it():
    manuals = Domain("manuals", "M", "", "b", knowledge=("manuals", "gone"))
    router = ModelRouter(WordEmbedder(), RouterSettings(), "general")
    text = "which filter does the north tank need"
    likely = router.decide(text, (GENERAL, LOGS, manuals), relevance={"manuals": 0.99, "other": 1.0})
    assert (likely.domain, likely.how, likely.candidates[0].example) == ("manuals", RouteHow.SIMILAR, "")
    unlikely = router.decide(text, (GENERAL, LOGS, manuals), relevance={"manuals": 0.02})
    assert unlikely.domain == "general"
    assert {each.domain for each in router.decide(text, (GENERAL, manuals), relevance={}).candidates} == {"general"}


def test_the_default_that_wins_by_its_routes_is_no_fallback(router: ModelRouter):
    greedy = Domain("general", "General", "", "b", routes=("is my cat asleep",))
    decision = router.decide("my cat is asleep", (FAQ, greedy, LOGS))
    assert (decision.domain, decision.how) == ("general", RouteHow.SIMILAR)
    assert decision.candidates[0].example == "is my cat asleep"
    assert router.decide("where is my order now", (FAQ, greedy, LOGS)).domain == "faq"


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_an_empty_message_falls_back_without_embedding(router: ModelRouter, embedder: WordEmbedder, text: str):
    decision = router.decide(text, ALL)
    assert (decision.domain, decision.how) == ("general", RouteHow.FALLBACK)
    assert embedder.embedded == 0


@pytest.mark.parametrize("text", ["?!…", "🙂", "\x00", "‍"])
def test_a_message_without_words_falls_back(router: ModelRouter, text: str):
    assert router.decide(text, ALL).how is RouteHow.FALLBACK


def test_without_domains_or_routes_the_default_answers(router: ModelRouter):
    assert router.decide("where is my order", ()).domain == "general"
    assert router.decide("where is my order", (GENERAL,)).how is RouteHow.FALLBACK


def test_of_a_long_message_the_beginning_is_read(router: ModelRouter):
    assert router.decide("parse this log line" + " " * 2000 + "order " * 200_000, ALL).domain == "logs"
    assert router.decide(" " * 3000 + "parse this log line", ALL).how is RouteHow.FALLBACK


def test_routes_are_embedded_once_and_only_new_ones_after_an_edit(router: ModelRouter, embedder: WordEmbedder):
    router.decide("hello", ALL)
    known = 3  # of the five routes, those the embedder knows
    assert embedder.embedded == known + 1
    router.decide("hello", ALL)
    assert embedder.embedded == known + 2
    more = Domain("faq", "FAQ", "", "b", routes=(*FAQ.routes, "cancel my order"))
    assert router.decide("cancel my order", (more, GENERAL, LOGS)).domain == "faq"
    assert embedder.embedded == known + 4


def test_a_removed_route_no_longer_decides(router: ModelRouter):
    assert router.decide("parse this log line", ALL).domain == "logs"
    assert router.decide("parse this log line", (FAQ, GENERAL)).how is RouteHow.FALLBACK


def test_equal_routes_of_two_domains_are_decided_by_name(router: ModelRouter):
    twins = [Domain(name, name, "", "b", routes=("same words",)) for name in ("b", "a")]
    assert router.decide("same words", twins).domain == "a"


# ── languages the embedder does not know ─────────────────────────────────────────────────────────


def test_korean_is_compared_by_character_pairs(router: ModelRouter):
    decision = router.decide("환불 언제 돼요", ALL)
    assert (decision.domain, decision.how) == ("faq", RouteHow.SIMILAR)
    assert decision.candidates[0].example == "환불은 언제 되나요?"
    assert router.decide("로그 분석 부탁해", ALL).domain == "logs"


def test_korean_small_talk_is_like_nothing(router: ModelRouter):
    assert router.decide("안녕하세요 반가워요", ALL).how is RouteHow.FALLBACK


def test_the_unicode_form_does_not_matter(router: ModelRouter):
    text = "환불은 언제 되나요"
    composed, decomposed = (router.decide(unicodedata.normalize(form, text), ALL) for form in ("NFC", "NFD"))
    assert composed == decomposed
    assert composed.domain == "faq"


def test_polite_endings_shared_by_domains_count_little():
    router = ModelRouter(WordEmbedder(), RouterSettings(min_likelihood=0), "general")
    domains = [Domain(name, name, "", "b", routes=(f"{name} 해줘",)) for name in ("번역", "요약", "검색")]
    scores = {each.domain: each.score for each in router.decide("번역 좀 해줘", domains).candidates}
    assert scores["번역"] > 5 * max(scores["요약"], scores["검색"])


def test_an_english_message_is_not_compared_with_korean_vectors():
    class Fooled(WordEmbedder):
        """Gives all that it does not know the same vector as 'hello', as an English model may."""

        def embed(self, texts):
            return super().embed([text if text.isascii() else "hello" for text in texts])

    decision = ModelRouter(Fooled(), RouterSettings(min_likelihood=0.5), "general").decide("hello", ALL)
    assert decision.how is RouteHow.FALLBACK


def test_threads_may_decide_while_domains_change(router: ModelRouter):
    wrong: list[object] = []

    def ask(domains: tuple[Domain, ...], expected: str) -> None:
        for _ in range(50):
            decision = router.decide("parse this log line", domains)
            if decision.domain != expected:
                wrong.append(decision)

    threads = [threading.Thread(target=ask, args=pair) for pair in [(ALL, "logs"), ((FAQ, GENERAL), "general")] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ── the shipped prompts with the default embedder ────────────────────────────────────────────────

PHRASES = {
    "support-faq": [
        "Can I send back shoes I bought last week?",
        "my parcel still has not come",
        "I want my money back",
        "what does delivery to Norway cost",
        "The box was crushed when it arrived",
        "I forgot my password",
        "배송이 아직 안 왔어요",
        "환불받고 싶어요",
        "배송비는 얼마인가요?",
        "반품하려면 어떻게 해야 하나요?",
    ],
    "contract-review": [
        "Does the limitation of liability protect us?",
        "Is it normal that the vendor can cancel without notice?",
        "Which terms of this NDA should I push back on?",
        "The Contractor shall indemnify and hold harmless the Client from any claims.",
        "Find unfair terms in this employment contract",
        "계약서 검토해 주세요",
        "비밀유지 계약서에 위험한 내용이 있는지 봐줘",
        "해지 조항이 불리한지 알려줘",
    ],
    "log-parsing": [
        "2025-01-07 03:11:12 ERROR auth.service: token for user 42 expired",
        "Dec 12 18:00:00 host cron[77]: job started",
        "What component produced this log message?",
        "extract a template from the following log",
        "Convert these server logs to structured JSON",
        "로그를 JSON으로 바꿔줘",
        "이 에러 로그에서 템플릿을 뽑아줘",
        "서버 로그 분석 부탁해",
    ],
    "review-sentiment": [
        "Is this customer review happy or unhappy?",
        "I love this blender, it works great and looks beautiful",
        "Awful headphones, broke within a week, waste of money",
        "The screen is great but the speakers are bad",
        "what's the mood of this review?",
        "이 후기는 긍정이야 부정이야?",
        "정말 마음에 들어요 추천합니다",
        "품질이 너무 실망이에요",
    ],
    "general": [
        "Hi",
        "good morning!",
        "How are you today?",
        "This is great, thanks!",
        "What is the capital of France?",
        "Write a poem about autumn",
        "How do I return a value from a Python function?",
        "I am a nurse and live in Busan",
        "remember that I like green tea",
        "What do I like?",
        "Is it going to rain tomorrow?",
        "Who won the world cup in 1998?",
        "안녕",
        "오늘 날씨 어때?",
        "존댓말로 대답해줘",
        "영화 추천해줘",
        "프랑스의 수도는 어디야?",
        "기억해 나는 녹차를 좋아해",
        "파이썬으로 리스트를 뒤집는 법 알려줘",
    ],
}


@pytest.fixture(scope="module")
def shipped(embedder_dir: Path) -> tuple[ModelRouter, tuple[Domain, ...]]:
    from server.embedding import SentenceEmbedder

    library = PromptLibrary(Path(__file__).parents[1] / "prompts", "general")
    return ModelRouter(SentenceEmbedder(str(embedder_dir)), RouterSettings(), "general"), library.domains()


@pytest.mark.model
@pytest.mark.parametrize("domain", PHRASES)
def test_phrases_that_are_no_routes_land_in_their_domain(shipped: tuple[ModelRouter, tuple[Domain, ...]], domain: str):
    router, domains = shipped
    routes = {route for each in domains for route in each.routes}
    wrong = []
    for phrase in PHRASES[domain]:
        assert phrase not in routes
        decision = router.decide(phrase, domains)
        if decision.domain != domain:
            wrong.append((phrase, decision.candidates[:2]))
    assert wrong == []


@pytest.mark.model
@pytest.mark.parametrize("text", ["and for two?", "thanks", "그럼 그건요?", "얼마인데요?"])
def test_a_message_that_goes_on_stays_where_the_last_one_was(
    shipped: tuple[ModelRouter, tuple[Domain, ...]], text: str
):
    router, domains = shipped
    decision = router.decide(text, domains, last="support-faq")
    assert (decision.domain, decision.how) == ("support-faq", RouteHow.STICKY)
    assert router.decide(text, domains).domain == "general"
    assert router.decide(text, domains, last="general").domain == "general"


@pytest.mark.model
@pytest.mark.parametrize(
    "text",
    ["Explain how vaccines work", "오늘 저녁에 친구들이랑 뭐 먹으면 좋을지 추천해줘", "Write a story about two owls"],
)
def test_a_message_that_belongs_to_nothing_leaves_the_domain(
    shipped: tuple[ModelRouter, tuple[Domain, ...]], text: str
):
    router, domains = shipped
    assert router.decide(text, domains, last="support-faq").domain == "general"
    chosen = router.decide(text, domains, chosen="support-faq", relevance={})
    assert (chosen.domain, chosen.belongs) == ("support-faq", False)

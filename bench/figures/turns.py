"""The tenth turn of a chat with knowledge and memory: how long until its first token, with the store and without.

The chat is made by the product's own parts: the sample's domain and knowledge, real search, real composing,
and the engine's own answers as history. Each round asks the questions in another order.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench import models, ours
from bench.context import ROOT, Bench
from bench.figure import Bound, Figure, Measure, Reading, Round
from server.config import PromptSettings, RetrievalSettings
from server.embedding import SentenceEmbedder
from server.engine import LocalEngine
from server.prompting import Domain, PromptLibrary, UserProfile, compose, new_nonce
from server.retrieval import KnowledgeBase
from server.types import HistoryTurn, Memory, MemoryKind, PromptBundle, TurnContext

QUESTIONS = (
    "How long do I have to return an item?",
    "Who pays the shipping of a return?",
    "When will I get my refund?",
    "Do you deliver to other countries?",
    "How much does express shipping cost?",
    "How do I reset my account password?",
    "How long is the warranty?",
    "My package arrived damaged. What should I do?",
    "Can I change or cancel my order?",
    "Can I exchange an item for another one?",
    "What does the warranty leave out?",
    "How do I track my order?",
)
REMEMBERED = ("The user's name is Mina.", "The user lives in Leeds.", "The user likes short answers.")


class Shop:
    """Composes turns as the chat does, from the sample workspace."""

    def __init__(self, place: Path, embedder: Path) -> None:
        self.domain: Domain = PromptLibrary(ROOT / "prompts", "general").get("support-faq")
        self.knowledge = KnowledgeBase(
            ROOT / "knowledge", place / "index", SentenceEmbedder(str(embedder)), RetrievalSettings()
        )
        self.knowledge.sync()

    def turn(self, engine: LocalEngine, question: str, history: list[HistoryTurn]) -> PromptBundle:
        """The prompt of the chat's next turn; every third one recalls a memory."""
        earlier = history[-1].question if history else ""
        found = self.knowledge.search(question, self.domain.knowledge, previous_query=earlier)
        place = len(history)
        told = REMEMBERED[place // 3 : place // 3 + 1] if place % 3 == 0 else ()
        memories = tuple(_memory(number, text) for number, text in enumerate(told))
        context = TurnContext(nonce=new_nonce(), searched=True, passages=found.passages, memories=memories)
        return compose(
            self.domain,
            question=question,
            history=history,
            context=context,
            user=UserProfile("Mina"),
            tokenizer=engine.tokenizer,
            context_length=engine.model.context_length,
            settings=PromptSettings(),
        )


def _memory(number: int, text: str) -> Memory:
    return Memory(number, MemoryKind.FACT, text, text, None, None, 0.0, 0.0)


@asynccontextmanager
async def last_turn(bench: Bench) -> AsyncIterator[Round]:
    """Two engines of the same settings but for the store; the one without sees the last turn only."""
    model = models.chat_model(bench)
    shop = Shop(bench.folder, models.embedder(bench))
    async with AsyncExitStack() as stack:
        keeping = await stack.enter_async_context(ours.started(bench, model))
        forgetful = await stack.enter_async_context(ours.started(bench, model, settings={"prefix_bytes": 0}))

        async def one_round(number: int) -> Mapping[str, Reading]:
            prompt, known = await _chat(bench, shop, keeping, number)
            kept = (await ours.answer(keeping, ours.request(prompt, 1))).usage
            plain = (await ours.answer(forgetful, ours.request(prompt, 1))).usage
            hit = 100 * kept.cached_tokens / kept.prompt_tokens
            return {
                "ttft": Reading(
                    plain.ttft_s / kept.ttft_s, 1000 * kept.ttft_s, 1000 * plain.ttft_s, f"{len(prompt):,} tokens"
                ),
                "hit": Reading(
                    hit, kept.cached_tokens, kept.prompt_tokens, f"{100 * known / len(prompt):.1f}% were known before"
                ),
            }

        await ours.first_token(forgetful, tuple(keeping.tokenizer.encode("Hello")))
        yield one_round


async def _chat(bench: Bench, shop: Shop, engine: LocalEngine, number: int) -> tuple[tuple[int, ...], int]:
    """Runs all turns but the last: the last one's prompt, and how many of its tokens the turn before had."""
    asked = random.Random(number).sample(QUESTIONS, bench.sizes.turns)
    history: list[HistoryTurn] = []
    before: list[int] = []
    for question in asked[:-1]:
        bundle = shop.turn(engine, question, history)
        done = await ours.answer(engine, ours.request(bundle.token_ids, bench.sizes.answer))
        history.append(HistoryTurn(question, bundle.context, done.text))
        before = [*bundle.token_ids, *engine.tokenizer.encode(done.text)]
    prompt = shop.turn(engine, asked[-1], history).token_ids
    return prompt, shared(before, prompt)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


FIGURES = (
    Figure(
        "turn-10",
        (
            Measure(
                "ttft", "turn 10 with knowledge and memory: first token sooner than without the store", "×", Bound(8),
                "ms", ours="store", against="no store",
            ),
            Measure(
                "hit", "the same: tokens of its prompt taken from the store", "%", Bound(90), "tokens",
                ours="taken", against="prompt",
            ),
        ),
        last_turn,
    ),
)  # fmt: skip

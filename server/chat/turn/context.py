"""Collects what the model may know for one question: the user's memories and passages of the domain's files.

A stored turn and the OpenAI-compatible route both call `gather_context`, so that their answers have the same sources,
and only from folders that the user may see. Stores nothing. Knows nothing of sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from server.chat.conversations.records import StoredMessage
from server.chat.events import NumberedPassage
from server.chat.memory_commands.access import ChatMemory, memory_for_domain
from server.chat.turn.own_words import nothing_found
from server.embedding import identify_language
from server.model_router import ModelRouter
from server.prompting import Domain, Grounding, UserProfile, new_nonce
from server.retrieval import KnowledgeView, SearchResult
from server.types import Compaction, HistoryTurn, Passage, RouteDecision, TurnContext
from server.words import is_courtesy


@dataclass(frozen=True)
class GatheredContext:
    """`search_result` is None where the domain has no knowledge; it has its trace. `refusal` is what the user is told
    in place of an answer: '' unless the domain is strictly grounded and nothing was found for its question."""

    context: TurnContext
    profile: UserProfile
    search_result: SearchResult | None
    refusal: str = ""


def decide_domain(
    question: str,
    domains: Sequence[Domain],
    router: ModelRouter,
    view: KnowledgeView,
    *,
    chosen: str | None = None,
    last: str | None = None,
) -> RouteDecision:
    """Which of the domains answers; see `ModelRouter.decide`. What their folders hold counts, too. Blocks."""
    strict = {domain.name for domain in domains if domain.grounding is Grounding.STRICT}
    if chosen is not None and chosen not in strict:  # nothing depends on what it belongs to
        return router.decide(question, domains, chosen=chosen)
    folders = {folder: None for domain in domains for folder in domain.knowledge}
    return router.decide(
        question, domains, chosen=chosen, last=last, relevance=view.relevance(question, tuple(folders))
    )


async def gather_context(
    question: str,
    domain: Domain,
    memory: ChatMemory,
    view: KnowledgeView,
    *,
    route: RouteDecision | None = None,
    previous_question: str = "",
    exclude_memories: Collection[int] = (),
    exclude_messages: Collection[str] = (),
) -> GatheredContext:
    """`route`: what the domain was chosen by. `exclude_memories` and
    `exclude_messages` are ids of memories and messages that the prompt contains already. `memory` and `view` are the
    asking user's."""
    allowed = await memory_for_domain(memory, domain)
    recalled = await allowed.recall(question, exclude_memories=exclude_memories, exclude_messages=exclude_messages)
    search_result = None
    if domain.knowledge:
        search_result = await asyncio.to_thread(
            view.search, question, domain.knowledge, previous_query=previous_question, traced=True
        )
    found = search_result is not None and bool(search_result.passages)
    unanswered = not found and _asks_sources(question, domain, search_result, route)
    context = TurnContext(
        nonce=new_nonce(),
        searched=found or unanswered,
        unread=search_result.unread if search_result is not None else 0,
        passages=search_result.passages if search_result is not None else (),
        memories=recalled.memories,
        chats=recalled.chats,
    )
    refusal = ""
    if unanswered and search_result is not None:
        refusal = await asyncio.to_thread(_refusal, question, domain, search_result)  # reads the question's language
    return GatheredContext(context, UserProfile(recalled.name), search_result, refusal)


def _asks_sources(
    question: str, domain: Domain, search_result: SearchResult | None, route: RouteDecision | None
) -> bool:
    """The domain promises answers from its sources, has some, and the question is for them, and no small talk."""
    if domain.grounding is Grounding.OPEN or search_result is None or is_courtesy(question):
        return False
    belongs = route is None or route.belongs
    return belongs and bool(search_result.folders or search_result.unread)


def _refusal(question: str, domain: Domain, search_result: SearchResult) -> str:
    """'' where the answer is JSON: then the model says it in the domain's own form."""
    if domain.output is not None:
        return ""
    return domain.refusal or nothing_found(identify_language(question), search_result.folders or domain.knowledge)


def last_compaction(branch: Sequence[StoredMessage]) -> Compaction:
    """Where the branch's last answer began its history."""
    for message in reversed(branch):
        if message.answer is not None and message.answer.usage is not None:
            return message.answer.compaction
    return Compaction()


def number_passages(passages: Sequence[Passage]) -> tuple[NumberedPassage, ...]:
    return tuple(NumberedPassage(n, passage, passage.place) for n, passage in enumerate(passages, start=1))


def redact_inaccessible(history: Iterable[HistoryTurn], view: KnowledgeView) -> tuple[HistoryTurn, ...]:
    """The same turns; passages of folders that the user may not see any more are emptied."""
    turns = []
    for turn in history:
        passages = view.visible(turn.context.passages)
        same = passages == turn.context.passages
        turns.append(turn if same else replace(turn, context=replace(turn.context, passages=passages)))
    return tuple(turns)

"""Collects what the model may know for one question: the user's memories and passages of the domain's files.

A stored turn and the OpenAI-compatible route both call `gather_context`, so that their answers have the same sources,
and only from folders that the user may see. Stores nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from server.chat.memory_commands.access import ChatMemory, memory_for_domain
from server.prompting import Domain, UserProfile, new_nonce
from server.retrieval import KnowledgeView, SearchResult
from server.types import HistoryTurn, TurnContext


@dataclass(frozen=True)
class GatheredContext:
    """`search_result` is None where the domain has no knowledge; it has its trace."""

    context: TurnContext
    profile: UserProfile
    search_result: SearchResult | None


async def gather_context(
    question: str,
    domain: Domain,
    memory: ChatMemory,
    view: KnowledgeView,
    *,
    previous_question: str = "",
    exclude_memories: Collection[int] = (),
    exclude_messages: Collection[str] = (),
) -> GatheredContext:
    """`exclude_memories` and `exclude_messages` are ids of memories and messages that the prompt contains already.
    `memory` and `view` are the asking user's."""
    allowed = await memory_for_domain(memory, domain)
    recalled = await allowed.recall(question, exclude_memories=exclude_memories, exclude_messages=exclude_messages)
    search_result = None
    if domain.knowledge:
        search_result = await asyncio.to_thread(
            view.search, question, domain.knowledge, previous_query=previous_question, traced=True
        )
    context = TurnContext(
        nonce=new_nonce(),
        searched=search_result is not None and bool(search_result.folders or search_result.unread),
        unread=search_result.unread if search_result is not None else 0,
        passages=search_result.passages if search_result is not None else (),
        memories=recalled.memories,
        chats=recalled.chats,
    )
    return GatheredContext(context, UserProfile(recalled.name), search_result)


def redact_inaccessible(history: Iterable[HistoryTurn], view: KnowledgeView) -> tuple[HistoryTurn, ...]:
    """The same turns; passages of folders that the user may not see any more are emptied."""
    turns = []
    for turn in history:
        passages = view.visible(turn.context.passages)
        same = passages == turn.context.passages
        turns.append(turn if same else replace(turn, context=replace(turn.context, passages=passages)))
    return tuple(turns)

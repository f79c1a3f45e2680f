"""Collects what the model may know for one question: the user's memories and passages of the domain's files.

Both ways in, a stored turn and the OpenAI-compatible route, come here, so that an answer rests on the same things, and
only on folders that the user may see. Stores nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from server.chat.memory_commands.access import ChatMemory, in_domain
from server.prompting import Domain, UserProfile, new_nonce
from server.retrieval import KnowledgeView, SearchResult
from server.types import HistoryTurn, TurnContext


@dataclass(frozen=True)
class Gathered:
    """`found` is None where the domain asks no files; it has its trace."""

    context: TurnContext
    profile: UserProfile
    found: SearchResult | None


async def gather(
    question: str,
    domain: Domain,
    memory: ChatMemory,
    view: KnowledgeView,
    *,
    earlier: str = "",
    shown: Collection[int] = (),
    read: Collection[str] = (),
) -> Gathered:
    """`earlier` is the question before this one; `shown` are ids of memories, and `read` of messages, that the prompt
    holds already. `memory` and `view` are the asking user's."""
    allowed = await in_domain(memory, domain)
    recalled = await allowed.recall(question, shown=shown, read=read)
    found = None
    if domain.knowledge:
        found = await asyncio.to_thread(view.search, question, domain.knowledge, previous_query=earlier, traced=True)
    context = TurnContext(
        nonce=new_nonce(),
        searched=found is not None and bool(found.folders or found.unread),
        unread=found.unread if found is not None else 0,
        passages=found.passages if found is not None else (),
        memories=recalled.memories,
        chats=recalled.chats,
    )
    return Gathered(context, UserProfile(recalled.name), found)


def still_allowed(history: Iterable[HistoryTurn], view: KnowledgeView) -> tuple[HistoryTurn, ...]:
    """The same turns; passages of folders that the user may not see any more are emptied."""
    turns = []
    for turn in history:
        passages = view.visible(turn.context.passages)
        same = passages == turn.context.passages
        turns.append(turn if same else replace(turn, context=replace(turn.context, passages=passages)))
    return tuple(turns)

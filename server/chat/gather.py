"""Collects what the model may know for one question: the user's memories and passages of the domain's files.

Both ways in, a stored turn and the OpenAI-compatible route, come here, so that an answer rests on the same things, and
only on folders that the user may see. Stores nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from server.memory import MemoryStore
from server.prompting import Domain, UserProfile, new_nonce
from server.retrieval import KnowledgeView, SearchResult, SharedKnowledge
from server.types import HistoryTurn, Memory, TurnContext, UserId


@dataclass(frozen=True)
class Gathered:
    """`found` is None where the domain asks no files; it has its trace."""

    context: TurnContext
    profile: UserProfile
    found: SearchResult | None


async def gather(
    question: str,
    domain: Domain,
    user: UserId,
    memory: MemoryStore,
    knowledge: SharedKnowledge,
    *,
    earlier: str = "",
    shown: Collection[int] = (),
) -> Gathered:
    """`earlier` is the question before this one; `shown` are ids of memories that the prompt holds already."""
    memories: tuple[Memory, ...] = ()
    profile, found = UserProfile(), None
    if domain.memory:
        own = memory.of(user)
        memories = await asyncio.to_thread(own.recall, question, exclude=shown)
        profile = UserProfile(await asyncio.to_thread(own.name))
    if domain.knowledge:
        view = knowledge.of(user)
        found = await asyncio.to_thread(view.search, question, domain.knowledge, earlier=earlier, traced=True)
    context = TurnContext(
        nonce=new_nonce(),
        searched=found is not None and bool(found.folders),
        passages=found.passages if found is not None else (),
        memories=memories,
    )
    return Gathered(context, profile, found)


def still_allowed(history: Iterable[HistoryTurn], view: KnowledgeView) -> tuple[HistoryTurn, ...]:
    """The same turns; passages of folders that the user may not see any more are emptied."""
    turns = []
    for turn in history:
        passages = view.visible(turn.context.passages)
        same = passages == turn.context.passages
        turns.append(turn if same else replace(turn, context=replace(turn.context, passages=passages)))
    return tuple(turns)

"""Runs one stored turn: decides the domain, gathers memories and evidence, streams the answer, keeps it.

The life of a turn stands in `TurnRunner.run`, step by step. It runs as a task of its own, whoever is
watching; `stop` is a cancellation of that task. Knows nothing of sockets or sessions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from server.chat.citations import checked, find_citations
from server.chat.conversations import (
    AnswerRecord,
    Conversation,
    ConversationStore,
    ErrorNote,
    PromptRecord,
    PromptSummary,
    Status,
    StoredMessage,
    history_of,
)
from server.chat.events import (
    AnswerDelta,
    Cited,
    Closed,
    Done,
    EvidenceFound,
    Failed,
    InQueue,
    MemoriesUsed,
    MemorySaved,
    Noticed,
    NumberedPassage,
    PromptComposed,
    ReasoningDelta,
    Routed,
    SectionSize,
)
from server.chat.gather import gather, still_allowed
from server.chat.streams import TurnStream
from server.chat.traces import TraceStore, trace_of
from server.chat.turn import Finished, Piece, Turn, TurnPipeline, WithoutAdapter
from server.engine import Engine
from server.errors import TailorError
from server.memory import MemoryStore
from server.model_router import ModelRouter
from server.prompting import Domain, PromptLibrary
from server.retrieval import SearchResult, SharedKnowledge
from server.types import (
    Compaction,
    Embedder,
    FinishReason,
    Passage,
    PromptBundle,
    Queued,
    RouteHow,
    Usage,
    UserId,
)

log = logging.getLogger("tailor.chat")

FLUSH_SECONDS = 1.0  # how much of a running answer a crash may lose


@dataclass(frozen=True)
class Parts:
    """What a turn needs of the rest of the product."""

    engine: Engine
    pipeline: TurnPipeline
    library: PromptLibrary
    router: ModelRouter
    knowledge: SharedKnowledge
    memory: MemoryStore
    store: ConversationStore
    embedder: Embedder
    traces: TraceStore


@dataclass
class _Draft:
    """The answer as it grows."""

    record: AnswerRecord = field(default_factory=AnswerRecord)
    found: SearchResult | None = None
    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    flushed: float = field(default_factory=time.monotonic)

    def add(self, piece: Piece) -> None:
        if self.first_token is None:
            self.first_token = time.monotonic()
        self.text += piece.answer
        self.tokens += piece.tokens
        self.record = replace(self.record, reasoning=self.record.reasoning + piece.reasoning)

    def usage_so_far(self) -> Usage:
        """For an answer that was stopped, where the engine gives no account."""
        now = time.monotonic()
        ttft = (self.first_token or now) - self.started
        return Usage(self.prompt_tokens, self.tokens, 0, 0.0, ttft, now - self.started)


class TurnRunner:
    def __init__(
        self,
        parts: Parts,
        user: UserId,
        conversation: Conversation,
        question: StoredMessage,
        answer: StoredMessage,
        stream: TurnStream,
    ) -> None:
        self._parts = parts
        self._user = user
        self._conversation = conversation
        self._question = question
        self._answer = answer
        self._stream = stream
        self._draft = _Draft()
        self.stop_status = Status.STOPPED  # what a cancellation means
        self.answered = False  # `done` is out; what is left is off the reply's path

    async def run(self) -> None:
        """One turn, from the stored question to the stored answer. Never raises."""
        try:
            await self._answer_question()
        except asyncio.CancelledError:
            if not self.answered:
                await self._end(self.stop_status, FinishReason.CANCELLED, self._draft.usage_so_far())
        except TailorError as error:
            await self._fail(error.code, str(error))
        except Exception:  # outermost edge of a turn: the user gets an answer whatever broke
            log.exception("turn %s failed", self._answer.id)
            await self._fail("internal", "the server made a mistake; its log has the details")
        finally:
            self._stream.publish(Closed)

    async def _answer_question(self) -> None:
        # 1) what the chat holds so far
        memory = self._parts.memory.of(self._user)
        branch = await asyncio.to_thread(self._parts.store.branch, self._user, self._question.parent_id)
        known = {held.id: held for held in await asyncio.to_thread(memory.list)}
        history = history_of(branch, known)
        history = await asyncio.to_thread(still_allowed, history, self._parts.knowledge.of(self._user))
        # 2) which domain answers
        domain = await self._route()
        # 3) what is remembered and what is known about it
        compaction = _compaction_of(branch)
        gathered = await gather(
            self._question.text,
            domain,
            self._user,
            self._parts.memory,
            self._parts.knowledge,
            earlier=history[-1].question if history else "",
            shown={held.id for turn in history[compaction.turns_before :] for held in turn.context.memories},
        )
        if (found := gathered.found) is not None:
            self._draft.found = found
            self._draft.record = replace(self._draft.record, folders=found.folders, generation=found.generation)
        # 4) compose and generate
        turn = Turn(
            question=self._question.text,
            domain=domain,
            user_id=self._user,
            history=history,
            context=gathered.context,
            profile=gathered.profile,
            compaction=compaction,
        )
        finished = await self._generate(turn)
        # 5) check and keep
        await self._end(Status.COMPLETE, finished.reason, finished.usage)
        # 6) off the reply's path: learn from what the user said
        if domain.memory:
            await self._learn()

    async def _route(self) -> Domain:
        conversation, parts = self._conversation, self._parts
        decision = await asyncio.to_thread(
            parts.router.decide,
            self._question.text,
            parts.library.domains(),
            chosen=conversation.domain,
            sticky=conversation.sticky,
        )
        domain = parts.library.get(decision.domain)
        if decision.how is RouteHow.SIMILAR:
            await asyncio.to_thread(parts.store.stick, self._user, conversation.id, domain.name)
        self._draft.record = replace(
            self._draft.record,
            route=decision,
            domain=domain.name,
            domain_title=domain.title,
            adapter=domain.adapter,
        )
        self._stream.publish(Routed, decision=decision, title=domain.title, adapter=domain.adapter)
        return domain

    async def _generate(self, turn: Turn) -> Finished:
        async with aclosing(self._parts.pipeline.run(turn)) as steps:
            async for step in steps:
                if isinstance(step, PromptBundle):
                    await self._announce(step)
                elif isinstance(step, Queued):
                    self._stream.publish(InQueue, position=step.position)
                elif isinstance(step, WithoutAdapter):
                    self._draft.record = replace(self._draft.record, adapter=None, notice=step.reason)
                    self._stream.publish(Noticed, text=step.reason)
                elif isinstance(step, Piece):
                    await self._show(step)
                elif isinstance(step, Finished):
                    return step
        raise RuntimeError("the engine's stream ended without GenerationDone")

    async def _announce(self, bundle: PromptBundle) -> None:
        """Tells what went into the prompt and keeps it, word for word."""
        draft, context = self._draft, bundle.context
        draft.prompt_tokens = len(bundle.token_ids)
        limit = self._parts.engine.model.context_length
        summary = PromptSummary(
            sections=tuple(SectionSize(section.name, section.tokens) for section in bundle.sections),
            tokens=len(bundle.token_ids),
            context_length=limit,
            trimmed_turns=bundle.trimmed_turns,
            trimmed_evidence=bundle.trimmed_evidence,
        )
        draft.record = replace(
            draft.record,
            context=context,
            compaction=bundle.compaction,
            dropped=bundle.dropped_passages,
            prompt=summary,
        )
        if context.memories:
            self._stream.publish(MemoriesUsed, memories=context.memories)
        if context.searched:
            self._stream.publish(
                EvidenceFound,
                passages=numbered(context.passages),
                folders=draft.record.folders,
                generation=draft.record.generation,
                dropped=bundle.dropped_passages,
            )
        self._stream.publish(PromptComposed, **{name: getattr(summary, name) for name in PromptSummary.__slots__})
        prompt = PromptRecord(bundle.sections, bundle.messages, len(bundle.token_ids), limit)
        await asyncio.to_thread(self._parts.store.save_prompt, self._user, self._answer.id, prompt)
        if draft.found is not None:
            trace = trace_of(draft.found, {passage.id for passage in context.passages})
            await asyncio.to_thread(self._parts.traces.save, self._user, self._answer.id, trace)
        await self._store(Status.STREAMING)

    async def _show(self, piece: Piece) -> None:
        draft = self._draft
        draft.add(piece)
        if piece.reasoning:
            self._stream.publish(ReasoningDelta, text=piece.reasoning)
        if piece.answer:
            self._stream.publish(AnswerDelta, text=piece.answer)
        if time.monotonic() - draft.flushed > FLUSH_SECONDS:
            draft.flushed = time.monotonic()
            await self._store(Status.STREAMING)

    async def _end(self, status: Status, reason: FinishReason, usage: Usage) -> None:
        draft = self._draft
        draft.record = replace(draft.record, usage=usage, finish_reason=reason.value)
        await self._store(status)
        if draft.record.context.searched and draft.text and status is not Status.INTERRUPTED:
            await self._check(complete=reason is FinishReason.STOP)
            await self._store(status)
        decode = usage.total_s - usage.ttft_s
        speed = (usage.completion_tokens - 1) / decode if decode > 0 and usage.completion_tokens > 1 else 0.0
        self.answered = True
        self._stream.publish(Done, finish_reason=reason.value, usage=usage, tokens_per_second=round(speed, 1))

    async def _check(self, *, complete: bool) -> None:
        """Says of each sentence what carries it."""
        draft, context = self._draft, self._draft.record.context
        checks = await checked(draft.text, context, self._parts.embedder, complete=complete)
        citations, invalid = find_citations(draft.text, context.passages, checks)
        draft.record = replace(draft.record, citations=citations, invalid_citations=invalid, checks=checks)
        if citations or invalid or checks:
            self._stream.publish(Cited, citations=citations, invalid=invalid, checks=checks)

    async def _fail(self, code: str, message: str) -> None:
        self._draft.record = replace(self._draft.record, error=ErrorNote(code, message))
        await self._store(Status.FAILED)
        self._stream.publish(Failed, code=code, message=message)

    async def _learn(self) -> None:
        memory = self._parts.memory.of(self._user)
        saved = await asyncio.to_thread(
            memory.learn,
            self._question.text,
            conversation_id=self._conversation.id,
            message_id=self._question.id,
        )
        if saved:
            self._draft.record = replace(self._draft.record, memories_saved=saved)
            await self._store(Status.COMPLETE)
            self._stream.publish(MemorySaved, memories=saved)

    async def _store(self, status: Status) -> None:
        draft = self._draft
        await asyncio.to_thread(
            self._parts.store.update_answer,
            self._user,
            self._answer.id,
            text=draft.text,
            status=status,
            record=draft.record,
        )


def numbered(passages: tuple[Passage, ...]) -> tuple[NumberedPassage, ...]:
    return tuple(NumberedPassage(n, passage, passage.place) for n, passage in enumerate(passages, start=1))


def _compaction_of(branch: tuple[StoredMessage, ...]) -> Compaction:
    """Where the branch's last answer began its history."""
    for message in reversed(branch):
        if message.answer is not None and message.answer.usage is not None:
            return message.answer.compaction
    return Compaction()

"""Runs one stored turn: decides the domain, gathers memories and evidence, streams the answer, keeps it.

The life of a turn stands in `TurnRunner.run`, step by step. It runs as a task of its own, whoever is
watching; `stop` is a cancellation of that task. Knows nothing of sockets or sessions.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace

from server.chat.conversations.records import (
    AnswerRecord,
    Conversation,
    ErrorNote,
    PromptRecord,
    PromptSummary,
    Status,
    StoredMessage,
)
from server.chat.conversations.redaction import Forgotten
from server.chat.conversations.store import ConversationStore, edited_in, history_of
from server.chat.events import (
    AnswerDelta,
    ChatsFound,
    Cited,
    Closed,
    Done,
    EvidenceFound,
    Failed,
    InQueue,
    MemoriesUsed,
    MemoryForgotten,
    MemoryHeldBack,
    MemorySaved,
    Noticed,
    NumberedPassage,
    PromptComposed,
    ReasoningDelta,
    Routed,
    SectionSize,
)
from server.chat.memory_commands.access import ChatMemory, in_domain
from server.chat.memory_commands.replies import ASKED, Reply, obey
from server.chat.turn.context import gather, still_allowed
from server.chat.turn.partial_answer import Draft
from server.chat.turn.pipeline import Finished, Piece, Turn, TurnPipeline, WithoutAdapter
from server.chat.turn.streams import TurnStream
from server.chat.turn.traces import AnswerTrace, TraceStore, trace_of
from server.engine import Engine
from server.errors import TailorError
from server.grounding import checked, find_citations
from server.memory import parse_command
from server.model_router import ModelRouter
from server.prompting import Domain, PromptLibrary
from server.retrieval import SharedKnowledge
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


@dataclass(frozen=True)
class Parts:
    """What a turn needs of the rest of the product, but for memory: each chat has its own."""

    engine: Engine
    pipeline: TurnPipeline
    library: PromptLibrary
    router: ModelRouter
    knowledge: SharedKnowledge
    store: ConversationStore
    embedder: Embedder
    traces: TraceStore


class TurnRunner:
    def __init__(
        self,
        parts: Parts,
        user: UserId,
        conversation: Conversation,
        question: StoredMessage,
        answer: StoredMessage,
        stream: TurnStream,
        memory: ChatMemory,
    ) -> None:
        self._parts = parts
        self.user = user
        self._conversation = conversation
        self._question = question
        self._answer = answer
        self._stream = stream
        self._memory = memory
        self._forgotten: list[Forgotten] = []  # while this turn ran
        self._draft = Draft()
        self._coming = ExitStack()  # the engine is told that a request comes
        self.stop_status = Status.STOPPED  # what a cancellation means
        self.answered = False  # `done` is out; what is left is off the reply's path

    async def run(self) -> None:
        """One turn, from the stored question to the stored answer. Never raises."""
        try:
            self._coming.enter_context(self._parts.engine.expecting())
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
            self._coming.close()
            try:
                for forgotten in self._forgotten:
                    await asyncio.to_thread(self._parts.store.redact, self.user, forgotten)
            finally:
                self._stream.publish(Closed)

    def written(self) -> tuple[UserId, str, str, AnswerRecord] | None:
        """(user, id, text, record) of the answer as it stands; None before its first words."""
        draft = self._draft
        return (self.user, self._answer.id, draft.text, draft.record) if draft.first_token is not None else None

    def forget(self, forgotten: Forgotten) -> None:
        """It was forgotten while this turn ran: what the turn stores of it goes when it ends."""
        self._forgotten.append(forgotten)

    async def _answer_question(self) -> None:
        # 1) what the chat holds so far
        view = self._parts.knowledge.of(self.user)
        branch = await asyncio.to_thread(self._parts.store.branch, self.user, self._question.parent_id)
        compaction = _compaction_of(branch)
        known = await self._memory.known({m.id for each in branch if each.answer for m in each.answer.context.memories})
        # 2) which domain answers
        domain = await self._route()
        # 3) a command to the memory is answered by the server itself
        if (order := parse_command(self._question.text)) is not None:
            asked = bool(branch and branch[-1].answer and branch[-1].answer.command == ASKED)
            memory = await in_domain(self._memory, domain)
            reply = await obey(order, memory, self._question.text, asked_to_erase=asked)
            return await self._say(reply, compaction)
        # 4) what is remembered and what is known about it
        history = await asyncio.to_thread(still_allowed, history_of(branch, known), view)
        gathered = await gather(
            self._question.text,
            domain,
            self._memory,
            view,
            earlier=history[-1].question if history else "",
            shown={held.id for turn in history[compaction.turns_before :] for held in turn.context.memories},
            read={self._question.id, *(message.id for message in branch[2 * compaction.turns_before :])},
        )
        self._draft.record = replace(self._draft.record, memories_edited=edited_in(branch, known))
        if (found := gathered.found) is not None:
            self._draft.found = found
            self._draft.record = replace(self._draft.record, folders=found.folders, generation=found.generation)
        # 5) compose and generate
        turn = Turn(
            question=self._question.text,
            domain=domain,
            user_id=self.user,
            history=history,
            context=gathered.context,
            profile=gathered.profile,
            compaction=compaction,
        )
        finished = await self._generate(turn)
        # 6) check and keep
        await self._end(Status.COMPLETE, finished.reason, finished.usage)
        # 7) off the reply's path: learn from what the user said
        await self._learn(await in_domain(self._memory, domain))

    async def _say(self, reply: Reply, compaction: Compaction) -> None:
        """An answer of the server's own, stored and streamed as any other."""
        self._coming.close()
        draft, store = self._draft, self._parts.store
        draft.record = replace(
            draft.record,
            command=reply.command,
            memories_told=reply.told,
            memories_forgotten=len(reply.forgotten),
            compaction=compaction,
        )
        for message in (self._question, self._answer):  # past chats are not to tell what was to be forgotten
            await asyncio.to_thread(store.mark_fed, self.user, message.id)
        if reply.told:
            self._stream.publish(MemoriesUsed, memories=reply.told)
        if reply.forgotten:
            self._stream.publish(MemoryForgotten, memories=reply.forgotten)
        for line in reply.text.splitlines(keepends=True):
            self._show(Piece("", line, 0))
        await self._end(Status.COMPLETE, FinishReason.STOP, Usage(0, 0, 0, 0.0, 0.0, 0.0))

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
            await asyncio.to_thread(parts.store.stick, self.user, conversation.id, domain.name)
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
                    continue
                self._coming.close()
                if isinstance(step, Queued):
                    self._stream.publish(InQueue, position=step.position)
                elif isinstance(step, WithoutAdapter):
                    self._draft.record = replace(self._draft.record, adapter=None, notice=step.reason)
                    self._stream.publish(Noticed, text=step.reason, without_adapter=True)
                elif isinstance(step, Piece):
                    self._show(step)
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
        if context.chats:
            self._stream.publish(ChatsFound, turns=context.chats)
        if context.searched:
            self._stream.publish(
                EvidenceFound,
                passages=numbered(context.passages),
                folders=draft.record.folders,
                generation=draft.record.generation,
                dropped=bundle.dropped_passages,
                unread=context.unread,
            )
        self._stream.publish(PromptComposed, **{name: getattr(summary, name) for name in PromptSummary.__slots__})
        prompt = PromptRecord(bundle.sections, bundle.messages, len(bundle.token_ids), limit)
        trace = trace_of(draft.found, {passage.id for passage in context.passages}) if draft.found is not None else None
        await asyncio.to_thread(self._keep_prompt, prompt, trace, draft.record)

    def _keep_prompt(self, prompt: PromptRecord, trace: AnswerTrace | None, record: AnswerRecord) -> None:
        parts, user, answer = self._parts, self.user, self._answer.id
        with parts.store.together():
            parts.store.save_prompt(user, answer, prompt)
            if trace is not None:
                parts.traces.save(user, answer, trace)
            parts.store.update_answer(user, answer, text="", status=Status.STREAMING, record=record)

    def _show(self, piece: Piece) -> None:
        self._draft.add(piece)
        if piece.reasoning:
            self._stream.publish(ReasoningDelta, text=piece.reasoning)
        if piece.answer:
            self._stream.publish(AnswerDelta, text=piece.answer)

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

    async def _learn(self, memory: ChatMemory) -> None:
        """Never takes the answer back: what goes wrong here is told beside it."""
        used = [held.id for held in self._draft.record.context.memories]
        try:
            learned = await memory.learn(self._question, used)
        except TailorError as error:
            return self._stream.publish(Noticed, text=f"what you said was not kept in memory: {error}")
        except Exception:  # outermost edge of what follows an answer: the answer stands, and the reader is told
            log.exception("nothing could be learned from message %s", self._question.id)
            return self._stream.publish(Noticed, text="what you said was not kept in memory; the server's log says why")
        if learned.saved:
            self._draft.record = replace(self._draft.record, memories_saved=learned.saved)
            await self._store(Status.COMPLETE)
            self._stream.publish(MemorySaved, memories=learned.saved)
        if learned.held_back:
            self._stream.publish(MemoryHeldBack, items=learned.held_back)

    async def _store(self, status: Status) -> None:
        draft = self._draft
        await asyncio.to_thread(
            self._parts.store.update_answer,
            self.user,
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

"""Runs one stored turn: routes it to a domain, gathers memories and evidence, streams the answer, stores it.

`TurnRunner._answer_question` has the steps in order. It runs as a task of its own, whoever is
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
from server.chat.conversations.store import ConversationStore, build_history, edited_memories
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
    PromptComposed,
    ReasoningDelta,
    Routed,
    SectionSize,
)
from server.chat.memory_commands.access import ChatMemory, memory_for_domain
from server.chat.memory_commands.replies import ERASE_CONFIRMATION, CommandReply, answer_command
from server.chat.turn.context import (
    decide_domain,
    gather_context,
    last_compaction,
    number_passages,
    redact_inaccessible,
)
from server.chat.turn.language_cost import LanguageCost
from server.chat.turn.partial_answer import PartialAnswer
from server.chat.turn.pipeline import Finished, TextDelta, Turn, TurnPipeline, WithoutAdapter
from server.chat.turn.streams import TurnStream
from server.chat.turn.traces import AnswerTrace, TraceStore, answer_trace
from server.engine import Engine
from server.errors import StorageError, TailorError
from server.grounding import check_answer, find_citations
from server.memory import parse_command
from server.model_router import ModelRouter
from server.prompting import Domain, SharedDomains
from server.retrieval import SharedKnowledge
from server.types import (
    Compaction,
    Embedder,
    FinishReason,
    PromptBundle,
    Queued,
    RouteDecision,
    TurnContext,
    Usage,
    UserId,
)

log = logging.getLogger("tailor.chat")


@dataclass(frozen=True)
class TurnDependencies:
    """What a turn needs of the rest of the product, but for memory: each chat has its own."""

    engine: Engine
    pipeline: TurnPipeline
    domains: SharedDomains
    router: ModelRouter
    knowledge: SharedKnowledge
    store: ConversationStore
    embedder: Embedder
    traces: TraceStore
    language_cost: LanguageCost


class TurnRunner:
    def __init__(
        self,
        dependencies: TurnDependencies,
        user: UserId,
        conversation: Conversation,
        question: StoredMessage,
        answer: StoredMessage,
        stream: TurnStream,
        memory: ChatMemory,
    ) -> None:
        self._dependencies = dependencies
        self.user = user
        self._conversation = conversation
        self._question = question
        self._answer = answer
        self._stream = stream
        self._memory = memory
        self._partial = PartialAnswer()
        self._expecting = ExitStack()  # while open, the engine expects a request
        self.stop_status = Status.STOPPED  # what a cancellation means
        self.answered = False  # `done` is out; what is left is off the reply's path
        self.unsaved: tuple[UserId, str, str, AnswerRecord] | None = None  # it failed, and that could not be stored

    @property
    def conversation_id(self) -> str:
        return self._conversation.id

    async def run(self) -> None:
        """One turn, from the stored question to the stored answer. Never raises."""
        try:
            self._expecting.enter_context(self._dependencies.engine.announce_request())
            try:
                await self._answer_question()
            except asyncio.CancelledError:
                if not self.answered:
                    await self._finish(self.stop_status, FinishReason.CANCELLED, self._partial.usage_so_far())
        except TailorError as error:
            await self._fail(error.code, str(error))
        except Exception:  # edge of the turn's task: the user gets an answer whatever broke
            log.exception("turn %s failed", self._answer.id)
            await self._fail("internal", "the server made a mistake; its log has the details")
        finally:
            self._expecting.close()
            self._stream.publish(Closed)

    def partial_answer(self) -> tuple[UserId, str, str, AnswerRecord] | None:
        """(user, id, text, record) of the answer as it stands; None before its first words."""
        partial = self._partial
        if partial.first_token_at is None:
            return None
        return self.user, self._answer.id, partial.text, partial.record

    async def _answer_question(self) -> None:
        # 1) the branch so far
        view = self._dependencies.knowledge.for_user(self.user)
        branch = await asyncio.to_thread(self._dependencies.store.branch, self.user, self._question.parent_id)
        compaction = last_compaction(branch)
        stored_memories = await self._memory.get_many(
            {m.id for each in branch if each.answer for m in each.answer.context.memories}
        )
        # 2) which domain answers
        route, domain = await self._route(branch)
        # 3) a command to the memory is answered by the server itself
        if (memory_command := parse_command(self._question.text)) is not None:
            erase_requested = bool(branch and branch[-1].answer and branch[-1].answer.command == ERASE_CONFIRMATION)
            memory = await memory_for_domain(self._memory, domain)
            reply = await answer_command(memory_command, memory, self._question, erase_requested=erase_requested)
            return await self._send_reply(reply, compaction)
        # 4) memories and passages for the question
        history = await asyncio.to_thread(redact_inaccessible, build_history(branch, stored_memories), view)
        gathered = await gather_context(
            self._question.text,
            domain,
            self._memory,
            view,
            route=route,
            previous_question=history[-1].question if history else "",
            exclude_memories={
                memory.id for turn in history[compaction.turns_before :] for memory in turn.context.memories
            },
            exclude_messages={self._question.id, *(message.id for message in branch[2 * compaction.turns_before :])},
        )
        self._partial.record = replace(self._partial.record, memories_edited=edited_memories(branch, stored_memories))
        if (search_result := gathered.search_result) is not None:
            self._partial.search_result = search_result
            self._partial.record = replace(
                self._partial.record, folders=search_result.folders, generation=search_result.generation
            )
        # 5) compose and generate
        turn = Turn(
            question=self._question.text,
            domain=domain,
            user_id=self.user,
            history=history,
            context=gathered.context,
            profile=gathered.profile,
            compaction=compaction,
            refusal=gathered.refusal,
        )
        if turn.refusal:
            await self._publish_refusal(turn)
        elif domain.output is None:
            said = [message.answer.notice for message in branch if message.answer]
            self._notice(await asyncio.to_thread(self._dependencies.language_cost.notice, self._question.text, said))
        finished = await self._generate(turn)
        # 6) check the citations and store the answer
        await self._finish(Status.COMPLETE, finished.reason, finished.usage)
        # 7) off the reply's path: learn from what the user said
        await self._learn(await memory_for_domain(self._memory, domain))

    async def _send_reply(self, reply: CommandReply, compaction: Compaction) -> None:
        """The reply to a memory command, stored and streamed as any other answer."""
        self._expecting.close()
        partial, store = self._partial, self._dependencies.store
        partial.record = replace(
            partial.record,
            command=reply.command,
            memories_told=reply.listed,
            memories_forgotten=len(reply.deleted),
            compaction=compaction,
        )
        for message in (self._question, self._answer):  # past chats must not quote what was to be forgotten
            await asyncio.to_thread(store.mark_indexed, self.user, message.id)
        if reply.listed:
            self._stream.publish(MemoriesUsed, memories=reply.listed)
        if reply.deleted:
            self._stream.publish(MemoryForgotten, memories=reply.deleted, mentions=reply.mentions)
        for line in reply.text.splitlines(keepends=True):
            self._publish_delta(TextDelta("", line, 0))
        await self._finish(Status.COMPLETE, FinishReason.STOP, Usage(0, 0, 0, 0.0, 0.0, 0.0))

    def _decide(self, last: str | None) -> tuple[RouteDecision, Domain]:
        dependencies = self._dependencies
        domains = dependencies.domains.for_user(self.user).domains()
        view = dependencies.knowledge.for_user(self.user)
        decision = decide_domain(
            self._question.text, domains, dependencies.router, view, chosen=self._conversation.domain, last=last
        )
        return decision, next(domain for domain in domains if domain.name == decision.domain)

    async def _route(self, branch: tuple[StoredMessage, ...]) -> tuple[RouteDecision, Domain]:
        last = branch[-1].answer.domain if branch and branch[-1].answer else None
        decision, domain = await asyncio.to_thread(self._decide, last)
        self._partial.record = replace(
            self._partial.record,
            route=decision,
            domain=domain.name,
            domain_title=domain.title,
        )
        self._stream.publish(Routed, decision=decision, title=domain.title)
        return decision, domain

    def _notice(self, text: str, *, without_adapter: bool = False) -> None:
        """Tells the reader, and keeps it with the answer; nothing for ''."""
        if text:
            record = self._partial.record
            self._partial.record = replace(record, notice="\n".join(filter(None, (record.notice, text))))
            self._stream.publish(Noticed, text=text, without_adapter=without_adapter)

    async def _generate(self, turn: Turn) -> Finished:
        async with aclosing(self._dependencies.pipeline.run(turn)) as steps:
            async for step in steps:
                if isinstance(step, PromptBundle):
                    await self._publish_prompt(step, turn.domain.adapter_for(step.context))
                    continue
                self._expecting.close()
                if isinstance(step, Queued):
                    self._stream.publish(InQueue, position=step.position)
                elif isinstance(step, WithoutAdapter):
                    self._partial.record = replace(self._partial.record, adapter=None)
                    self._notice(step.reason, without_adapter=True)
                elif isinstance(step, TextDelta):
                    self._publish_delta(step)
                elif isinstance(step, Finished):
                    return step
        raise RuntimeError("the engine's stream ended without GenerationDone")

    async def _publish_refusal(self, turn: Turn) -> None:
        """Publishes what was searched, and stores it."""
        partial = self._partial
        partial.record = replace(partial.record, context=turn.context, compaction=turn.compaction)
        self._publish_evidence(turn.context, dropped=0)
        await asyncio.to_thread(self._save_prompt, None, self._search_trace(turn.context), partial.record)

    def _publish_evidence(self, context: TurnContext, *, dropped: int) -> None:
        if self._partial.search_result is not None:
            self._stream.publish(
                EvidenceFound,
                passages=number_passages(context.passages),
                folders=self._partial.record.folders,
                generation=self._partial.record.generation,
                dropped=dropped,
                unread=context.unread,
                searched=context.searched,
            )

    def _search_trace(self, context: TurnContext) -> AnswerTrace | None:
        found = self._partial.search_result
        return None if found is None else answer_trace(found, {passage.id for passage in context.passages})

    async def _publish_prompt(self, bundle: PromptBundle, adapter: str | None) -> None:
        """Publishes what went into the prompt and stores it, word for word."""
        partial, context = self._partial, bundle.context
        partial.prompt_tokens = len(bundle.token_ids)
        limit = self._dependencies.engine.model.context_length
        summary = PromptSummary(
            sections=tuple(SectionSize(section.name, section.tokens) for section in bundle.sections),
            tokens=len(bundle.token_ids),
            context_length=limit,
            trimmed_turns=bundle.trimmed_turns,
            trimmed_evidence=bundle.trimmed_evidence,
        )
        partial.record = replace(
            partial.record,
            adapter=adapter,
            context=context,
            compaction=bundle.compaction,
            dropped=bundle.dropped_passages,
            prompt=summary,
        )
        if context.memories:
            self._stream.publish(MemoriesUsed, memories=context.memories)
        if context.chats:
            self._stream.publish(ChatsFound, turns=context.chats)
        self._publish_evidence(context, dropped=bundle.dropped_passages)
        sizes = {name: getattr(summary, name) for name in PromptSummary.__slots__}
        self._stream.publish(PromptComposed, adapter=adapter, **sizes)
        prompt = PromptRecord(bundle.sections, bundle.messages, len(bundle.token_ids), limit)
        await asyncio.to_thread(self._save_prompt, prompt, self._search_trace(context), partial.record)

    def _save_prompt(self, prompt: PromptRecord | None, trace: AnswerTrace | None, record: AnswerRecord) -> None:
        """`prompt` is None where the model was not asked."""
        dependencies, user, answer = self._dependencies, self.user, self._answer.id
        with dependencies.store.transaction():
            if prompt is not None:
                dependencies.store.save_prompt(user, answer, prompt)
            if trace is not None:
                for redaction in dependencies.store.late(user, answer):
                    trace = replace(trace, queries=tuple(map(redaction.strike, trace.queries)))
                dependencies.traces.save(user, answer, trace)
            dependencies.store.update_answer(user, answer, text="", status=Status.STREAMING, record=record)

    def _publish_delta(self, delta: TextDelta) -> None:
        self._partial.add(delta)
        if delta.reasoning:
            self._stream.publish(ReasoningDelta, text=delta.reasoning)
        if delta.answer:
            self._stream.publish(AnswerDelta, text=delta.answer)

    async def _finish(self, status: Status, reason: FinishReason, usage: Usage) -> None:
        partial = self._partial
        partial.record = replace(partial.record, usage=usage, finish_reason=reason.value)
        await self._save_answer(status)
        asked = partial.record.prompt is not None and partial.record.context.searched
        if asked and partial.text and status is not Status.INTERRUPTED:
            await self._check_citations(complete=reason is FinishReason.STOP)
            await self._save_answer(status)
        decode = usage.total_s - usage.ttft_s
        speed = (usage.completion_tokens - 1) / decode if decode > 0 and usage.completion_tokens > 1 else 0.0
        self.answered = True
        self._stream.publish(Done, finish_reason=reason.value, usage=usage, tokens_per_second=round(speed, 1))

    async def _check_citations(self, *, complete: bool) -> None:
        """Says of each sentence what supports it."""
        partial, context = self._partial, self._partial.record.context
        checks = await check_answer(partial.text, context, self._dependencies.embedder, complete=complete)
        citations, invalid = await asyncio.to_thread(find_citations, partial.text, context.passages, checks)
        partial.record = replace(partial.record, citations=citations, invalid_citations=invalid, checks=checks)
        if citations or invalid or checks:
            self._stream.publish(Cited, citations=citations, invalid=invalid, checks=checks)

    async def _fail(self, code: str, message: str) -> None:
        self._partial.record = replace(self._partial.record, error=ErrorNote(code, message))
        try:
            await self._save_answer(Status.FAILED)
        except StorageError:
            self.unsaved = self.user, self._answer.id, self._partial.text, self._partial.record
        self._stream.publish(Failed, code=code, message=message)

    async def _learn(self, memory: ChatMemory) -> None:
        """Extracts memories from the question. An error here becomes a notice; the answer stands."""
        used = [memory.id for memory in self._partial.record.context.memories]
        try:
            learned = await memory.learn(self._question, used)
            if learned.saved:
                self._partial.record = replace(self._partial.record, memories_saved=learned.saved)
                self._stream.publish(MemorySaved, memories=learned.saved)
                await self._save_answer(Status.COMPLETE)
        except TailorError as error:
            return self._stream.publish(Noticed, text=f"what you said was not kept in memory: {error}")
        except Exception:  # edge of the turn's task, behind its answer: that stands, and the reader is told
            log.exception("nothing could be learned from message %s", self._question.id)
            return self._stream.publish(Noticed, text="what you said was not kept in memory; the server's log says why")
        if learned.held_back:
            self._stream.publish(MemoryHeldBack, items=learned.held_back)

    async def _save_answer(self, status: Status) -> None:
        partial = self._partial
        await asyncio.to_thread(
            self._dependencies.store.update_answer,
            self.user,
            self._answer.id,
            text=partial.text,
            status=status,
            record=partial.record,
        )

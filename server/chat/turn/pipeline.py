"""One turn from a question to a finished answer. Stores nothing, sends nothing, knows no user's session.

A `Turn` holds everything that decides the prompt; `TurnPipeline` composes it, asks the engine, and
yields what happens. Chats, the OpenAI-compatible API and the comparison of levers all go through here,
so that what is compared is what is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from server.config import PromptSettings
from server.engine import Engine
from server.errors import AdapterForeign
from server.prompting import Domain, ReasoningSplitter, UserProfile, compose
from server.types import (
    Compaction,
    Constraint,
    FinishReason,
    GenerationDone,
    GenerationEvent,
    GenerationRequest,
    HistoryTurn,
    PromptBundle,
    Queued,
    SamplingParams,
    TokenDelta,
    TokenLogprob,
    TurnContext,
    Usage,
    UserId,
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and all that goes into its prompt.

    `context` holds the passages and memories already chosen. `sampling` and `constraint`, when given,
    override the domain's own.
    """

    question: str
    domain: Domain
    user_id: UserId
    history: tuple[HistoryTurn, ...] = ()
    context: TurnContext = field(default_factory=TurnContext)
    profile: UserProfile = field(default_factory=UserProfile)
    compaction: Compaction = field(default_factory=Compaction)
    sampling: SamplingParams | None = None
    constraint: Constraint | None = None
    instructions: str = ""  # the caller's own, added to the domain's system text
    refusal: str = ""  # what is said in place of an answer, without the model


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text: of the reasoning, of the answer, or (rarely) of both."""

    reasoning: str
    answer: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class WithoutAdapter:
    """The domain's adapter is made for another base model, so the base answers alone."""

    adapter: str
    reason: str


TurnStep = PromptBundle | Queued | WithoutAdapter | TextDelta | Finished


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    reasoning: str
    bundle: PromptBundle
    reason: FinishReason
    usage: Usage


class TurnPipeline:
    """`on_tokens(user, tokens)` hears what each generation took, prompt and answer, however it ended."""

    def __init__(
        self,
        engine: Engine,
        settings: PromptSettings,
        on_tokens: Callable[[UserId, int], None] = lambda user, tokens: None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._on_tokens = on_tokens

    async def run(self, turn: Turn) -> AsyncGenerator[TurnStep, None]:
        """The PromptBundle, then WithoutAdapter, Queued and TextDelta as they come, then Finished; of a refusal only
        its text and its end.

        A domain goes on without an adapter that is made for another base model, and says so: a workspace
        stays usable when its base is changed. Every other fault of an adapter is an error.
        Closing the generator cancels the sequence. Raises what `compose` and `Engine.generate` raise.
        """
        if turn.refusal:
            yield TextDelta("", turn.refusal, tokens=0)
            yield Finished(FinishReason.STOP, Usage(0, 0, 0, 0.0, 0.0, 0.0))
            return
        bundle = await asyncio.to_thread(self._compose, turn)
        yield bundle
        request = GenerationRequest(
            prompt=bundle.token_ids,
            sampling=bundle.sampling,
            adapter=turn.domain.adapter_for(bundle.context),
            constraint=bundle.constraint,
            user_id=turn.user_id,
        )
        try:
            async with aclosing(self.generate(request, reasoning=turn.domain.reasoning)) as steps:
                async for step in steps:
                    yield step
            return
        except AdapterForeign as error:  # raised before the sequence begins
            yield WithoutAdapter(request.adapter or "", str(error))
        base_request = replace(request, adapter=None)
        async with aclosing(self.generate(base_request, reasoning=turn.domain.reasoning)) as steps:
            async for step in steps:
                yield step

    async def generate(
        self, request: GenerationRequest, *, reasoning: bool = False
    ) -> AsyncGenerator[Queued | TextDelta | Finished, None]:
        """The part of `run` after the prompt. With `reasoning`, `<think>` is separated from the answer."""
        splitter = ReasoningSplitter() if reasoning else None
        async with aclosing(self._counted(request)) as events:
            async for event in events:
                if isinstance(event, Queued):
                    yield event
                elif isinstance(event, TokenDelta):
                    reasoning_text, answer = splitter.feed(event.text) if splitter else ("", event.text)
                    yield TextDelta(reasoning_text, answer, event.tokens, event.logprobs)
                elif isinstance(event, GenerationDone):
                    if splitter and any(remaining := splitter.flush()):
                        yield TextDelta(*remaining, tokens=0)
                    yield Finished(event.reason, event.usage)

    async def _counted(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        tokens = 0
        try:
            async with aclosing(self._engine.generate(request)) as events:
                async for event in events:
                    if isinstance(event, TokenDelta):
                        tokens = tokens + event.tokens if tokens else len(request.prompt) + event.tokens
                    yield event
        finally:
            if tokens and request.user_id is not None:
                self._on_tokens(request.user_id, tokens)

    async def complete(self, turn: Turn) -> Answer:
        """The whole answer at once."""
        reasoning = answer = ""
        bundle: PromptBundle | None = None
        async with aclosing(self.run(turn)) as steps:
            async for step in steps:
                if isinstance(step, PromptBundle):
                    bundle = step
                elif isinstance(step, TextDelta):
                    reasoning += step.reasoning
                    answer += step.answer
                elif isinstance(step, Finished) and bundle is not None:
                    return Answer(answer, reasoning, bundle, step.reason, step.usage)
        raise RuntimeError("the engine's stream ended without GenerationDone")

    def _compose(self, turn: Turn) -> PromptBundle:
        domain = turn.domain if turn.sampling is None else replace(turn.domain, sampling=turn.sampling)
        bundle = compose(
            domain,
            question=turn.question,
            history=turn.history,
            context=turn.context,
            user=turn.profile,
            tokenizer=self._engine.tokenizer,
            context_length=self._engine.model.context_length,
            settings=self._settings,
            compaction=turn.compaction,
            instructions=turn.instructions,
        )
        return bundle if turn.constraint is None else replace(bundle, constraint=turn.constraint)

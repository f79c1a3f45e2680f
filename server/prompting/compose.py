"""Composes one turn's prompt under a token budget counted with the model's own tokenizer.

The order only ever appends: system text, few-shot examples, the chat so far with each old question in
the user block it was answered with, and the new block last. So a turn's tokens begin with the tokens of
the turn before, and what the engine keeps of them stays useful. When the context is full, the oldest
evidence and then the oldest turns are left out in one large step, which makes that rare.

    prompt budget = context length - tokens kept for the answer
    memories     <= settings.memory_tokens, and quotes of other chats <= settings.chats_tokens
    evidence     <= settings.evidence_tokens, and in a chat at most half of what the fixed parts leave
    history:      as it is while the prompt fits into the budget; else down to low_water * budget

Pure but for the date. Knows nothing of retrieval, memory, storage or the engine.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from server.config import PromptSettings
from server.errors import ContextFull
from server.prompting.blocks import UserBlock, chats_section, evidence_section, memory_section, user_block
from server.prompting.constraint import constraint_of, rules_of
from server.prompting.domain import Domain, UserProfile
from server.prompting.template import render_system
from server.types import (
    ChatTokenizer,
    Compaction,
    HistoryTurn,
    Memory,
    Message,
    PromptBundle,
    PromptSection,
    SectionName,
    TurnContext,
)

MAX_THINKING_CHARS = 4000  # the grammar grows with it


def compose(
    domain: Domain,
    *,
    question: str,
    history: Sequence[HistoryTurn],
    context: TurnContext,
    user: UserProfile,
    tokenizer: ChatTokenizer,
    context_length: int,
    settings: PromptSettings,
    compaction: Compaction = Compaction(),  # noqa: B008 - frozen
    instructions: str = "",
    today: datetime.date | None = None,
) -> PromptBundle:
    """The prompt for `question`, and what of `history` and `context` went into it.

    `history` is the branch, oldest first; `compaction` is what the turn before gave back. `instructions`
    are the caller's own and end the system text. Raises PromptError when the template fails and
    ContextFull when system text, examples and question alone leave no tokens for an answer.
    """
    # 1) the fixed parts, and the prompt budget
    sources = context.searched or any(turn.context.searched for turn in history)
    body = render_system(domain, user, today, sources=sources)
    system = "\n\n".join(filter(None, (body, *rules_of(domain), instructions.strip())))
    prefix = [Message("system", system), *_example_messages(domain)]
    prompt_budget = context_length - min(domain.sampling.max_tokens, context_length // 4)
    # 2) the question's context
    fitted = _fit_context(prefix, question, context, bool(history), tokenizer, prompt_budget, settings)
    block = user_block(question, fitted)
    # 3) the history
    chat = _ChatPrompt(prefix, tuple(history), Message("user", block.text), tokenizer)
    compaction = chat.compacted(compaction, prompt_budget, settings.low_water)
    # 4) the bundle
    messages = chat.messages(compaction)
    ids = tokenizer.render(messages)
    max_tokens = min(domain.sampling.max_tokens, context_length - len(ids))
    first_turn = min(compaction.turns_before, len(history))
    return PromptBundle(
        messages=tuple(messages),
        token_ids=tuple(ids),
        sections=_sections(prefix, messages[len(prefix) : -1], block, tokenizer, len(ids)),
        context=fitted,
        sampling=replace(domain.sampling, max_tokens=max_tokens),
        constraint=constraint_of(domain, _thinking_chars(question, max_tokens, tokenizer)),
        compaction=compaction,
        dropped_passages=len(context.passages) - len(fitted.passages),
        trimmed_turns=first_turn,
        trimmed_evidence=sum(bool(turn.context.passages) for turn in history[first_turn : compaction.evidence_before]),
    )


def _example_messages(domain: Domain) -> Iterator[Message]:
    for example in domain.examples:
        yield Message("user", example.user)
        yield Message("assistant", example.assistant)


def _thinking_chars(question: str, max_tokens: int, tokenizer: ChatTokenizer) -> int:
    """About half of the answer's tokens, in characters as the question's own language spends them."""
    per_token = len(question) / max(1, tokenizer.count(question))
    return min(max(1, int(max_tokens / 2 * min(max(per_token, 0.25), 4.0))), MAX_THINKING_CHARS)


# ── the question's context ───────────────────────────────────────────────────────────────────────


def _fit_context(
    prefix: list[Message],
    question: str,
    context: TurnContext,
    has_history: bool,
    tokenizer: ChatTokenizer,
    prompt_budget: int,
    settings: PromptSettings,
) -> TurnContext:
    """The context without what does not fit: quotes of other chats and passages from the end, then memories."""
    without_context = replace(context, searched=False, passages=(), memories=(), chats=())
    needed = _token_count(prefix, question, without_context, tokenizer)
    if needed > prompt_budget:
        raise ContextFull(
            f"the message does not fit: with the domain's own prompt it takes {needed:,} tokens, and the model's "
            f"context has room for {prompt_budget:,} beside the answer; shorten the message, or lower the domain's "
            "examples or sampling.max_tokens, or serve a model with a longer context"
        )
    base = replace(without_context, memories=_fitting_memories(context.memories, settings.memory_tokens, tokenizer))
    while base.memories and _token_count(prefix, question, base, tokenizer) > prompt_budget:
        base = replace(base, memories=base.memories[:-1])
    base = _with_chats(base, context, prefix, question, tokenizer, prompt_budget, settings.chats_tokens)
    if not context.searched:
        return base
    remaining = prompt_budget - _token_count(prefix, question, base, tokenizer)
    budget = min(settings.evidence_tokens, remaining // 2 if has_history else remaining)
    return _with_evidence(base, context, prefix, question, tokenizer, prompt_budget, budget)


def _fitting_memories(memories: Sequence[Memory], budget: int, tokenizer: ChatTokenizer) -> tuple[Memory, ...]:
    """Those whose lines fit, in order; a long one that does not fit is skipped."""
    kept: list[Memory] = []
    for memory in memories:
        if tokenizer.count(memory_section([*kept, memory])) <= budget:
            kept.append(memory)
    return tuple(kept)


def _with_chats(
    base: TurnContext,
    context: TurnContext,
    prefix: list[Message],
    question: str,
    tokenizer: ChatTokenizer,
    prompt_budget: int,
    budget: int,
) -> TurnContext:
    """As many of the turns found in other chats as the budget holds."""
    for count in range(len(context.chats), 0, -1):
        fitted = replace(base, chats=context.chats[:count])
        tokens = tokenizer.count(chats_section(fitted.chats, fitted.nonce))
        if tokens <= budget and _token_count(prefix, question, fitted, tokenizer) <= prompt_budget:
            return fitted
    return base


def _with_evidence(
    base: TurnContext,
    context: TurnContext,
    prefix: list[Message],
    question: str,
    tokenizer: ChatTokenizer,
    prompt_budget: int,
    budget: int,
) -> TurnContext:
    """As many of the best passages as the budget holds. Where not even the best one fits, no sources are
    shown at all: 'none found' would be untrue."""
    for count in range(len(context.passages), 0, -1) or (0,):
        fitted = replace(base, searched=True, passages=context.passages[:count])
        tokens = tokenizer.count(evidence_section(fitted.passages, fitted.nonce))
        if tokens <= budget and _token_count(prefix, question, fitted, tokenizer) <= prompt_budget:
            return fitted
    return base


def _token_count(prefix: list[Message], question: str, context: TurnContext, tokenizer: ChatTokenizer) -> int:
    return len(tokenizer.render([*prefix, Message("user", user_block(question, context).text)]))


# ── history ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _ChatPrompt:
    """A prompt's messages as a function of where its history begins."""

    prefix: list[Message]
    history: tuple[HistoryTurn, ...]
    new_message: Message
    tokenizer: ChatTokenizer

    def messages(self, compaction: Compaction) -> list[Message]:
        kept: list[Message] = []
        for index, turn in enumerate(self.history):
            if index >= compaction.turns_before:
                kept += _turn_messages(turn, evidence=index >= compaction.evidence_before)
        return [*self.prefix, *kept, self.new_message]

    def compacted(self, compaction: Compaction, prompt_budget: int, low_water: float) -> Compaction:
        """`compaction` while the prompt fits into the budget, else the first step that reaches low water."""
        if (size := self._token_count(compaction)) <= prompt_budget:
            return compaction
        fixed_tokens = len(self.tokenizer.render([*self.prefix, self.new_message]))
        target = int(low_water * prompt_budget)
        if fixed_tokens > target:  # out of reach: free the same share of what the history may have
            target = fixed_tokens + int(low_water * (prompt_budget - fixed_tokens))
        step = compaction
        for step, freed in self._steps(compaction, fixed_tokens):
            # The sum of what was freed finds the step, but only a rendered prompt tells its true size.
            if size - freed <= target and self._token_count(step) <= target:
                break
        return step

    def _steps(self, start: Compaction, fixed_tokens: int) -> Iterator[tuple[Compaction, int]]:
        """(compaction, about how many tokens it frees): oldest evidence first, then oldest turns."""
        count, size = self.tokenizer.count, len(self.history)
        freed = 0
        for index in range(max(start.evidence_before, start.turns_before), size):
            turn = self.history[index]
            if turn.context.searched or turn.context.chats:
                with_evidence, without = (_turn_messages(turn, evidence=kept)[0] for kept in (True, False))
                freed += count(with_evidence.content) - count(without.content)
                yield Compaction(index + 1, start.turns_before), freed
        evidence_before = max(start.evidence_before, size)
        sample = [Message("user", "x"), Message("assistant", "x")]
        rendered = self.tokenizer.render([*self.prefix, *sample, self.new_message])
        template_tokens = len(rendered) - fixed_tokens - 2 * count("x")
        for index in range(start.turns_before, size):
            messages = _turn_messages(self.history[index], evidence=False)
            freed += template_tokens + sum(count(each.content) for each in messages)
            yield Compaction(evidence_before, index + 1), freed

    def _token_count(self, compaction: Compaction) -> int:
        return len(self.tokenizer.render(self.messages(compaction)))


def _turn_messages(turn: HistoryTurn, *, evidence: bool) -> list[Message]:
    """An old turn as it was first shown; without its evidence, its memories stay."""
    context = turn.context if evidence else replace(turn.context, searched=False, passages=(), chats=())
    return [Message("user", user_block(turn.question, context).text), Message("assistant", turn.answer)]


# ── what the model saw ───────────────────────────────────────────────────────────────────────────


def _sections(
    prefix: list[Message], history: Sequence[Message], block: UserBlock, tokenizer: ChatTokenizer, total: int
) -> tuple[PromptSection, ...]:
    """The prompt in order. Where a section holds several messages, its text names their roles for the
    reader and its tokens are those of the messages alone; the marks of the chat template come last."""
    parts: list[tuple[SectionName, str, int]] = [
        ("system", prefix[0].content, tokenizer.count(prefix[0].content)),
        ("examples", *_dialogue(prefix[1:], tokenizer)),
        ("history", *_dialogue(history, tokenizer)),
        ("memory", block.memory, tokenizer.count(block.memory)),
        ("chats", block.chats, tokenizer.count(block.chats)),
        ("evidence", block.evidence, tokenizer.count(block.evidence)),
        ("question", block.question, tokenizer.count(block.question)),
    ]
    shown = [PromptSection(*part) for part in parts if part[1]]
    return (*shown, PromptSection("template", "", total - sum(section.tokens for section in shown)))


def _dialogue(messages: Sequence[Message], tokenizer: ChatTokenizer) -> tuple[str, int]:
    text = "\n\n".join(f"{message.role}: {message.content}" for message in messages)
    return text, sum(tokenizer.count(message.content) for message in messages)

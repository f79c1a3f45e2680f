"""Compares the levers on the same held-out rows: no examples, examples in the prompt, the adapter.

Every answer goes through the turn pipeline, so what is compared is what is served; rows run side by side
in the engine's batch. Greedy, so that a second run gives the same table. Knows nothing of files or settings.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from server.chat import Answer, Turn, TurnPipeline
from server.config import PromptSettings
from server.datasets import Dataset, Example
from server.errors import ContextFull, InvalidInput
from server.evaluation.comparison import Comparison, Lever, LeverResult
from server.evaluation.scoring import classes_of, is_right
from server.prompting import Domain, FewShot, UserProfile, compose
from server.types import Message, UserId

EVALUATION_USER = UserId("evaluation")


@dataclass(frozen=True, slots=True)
class _Variant:
    lever: Lever
    domain: Domain


async def compare(
    dataset: Dataset,
    *,
    pipeline: TurnPipeline,
    domain: Domain,
    adapter: str | None,
    shots: int = 4,
    shots_from: Dataset | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    limit: int = 0,
    concurrency: int = 8,
    max_tokens: int = 128,
    report: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """The levers' scores on held-out rows of `dataset`.

    With `shots_from`, every row of `dataset` is held out and the examples of the few-shot prompt come
    from `shots_from`; without it, `dataset` is split by group as training splits it (same `held_out` and
    `seed`). `limit` > 0 takes that many rows, drawn by `seed`. `adapter` None compares the prompts alone.
    Raises InvalidInput when there is nothing to compare, and what the pipeline raises.
    """
    train, held_out_rows = (shots_from.examples, dataset.examples) if shots_from else dataset.split(held_out, seed)
    if not held_out_rows or not train:
        raise InvalidInput("nothing can be held out: the rows need at least two groups")
    rows = _sample(held_out_rows, limit, seed)
    zero_shot = replace(
        domain, adapter=None, examples=(),
        sampling=replace(domain.sampling, temperature=0.0, max_tokens=min(domain.sampling.max_tokens, max_tokens)),
    )  # fmt: skip
    variants = [_Variant(Lever.ZERO_SHOT, zero_shot)]
    if shots > 0:
        variants.append(_Variant(Lever.FEW_SHOT, replace(zero_shot, examples=_examples(train, zero_shot, shots, seed))))
    if adapter is not None:
        variants.append(_Variant(Lever.ADAPTER, replace(zero_shot, adapter=adapter)))
    classes = classes_of((*train, *held_out_rows))
    return Comparison(
        domain=domain.name, adapter=adapter, rows=len(rows),
        results=tuple([await _measure(variant, rows, classes, pipeline, concurrency, report) for variant in variants]),
    )  # fmt: skip


def _sample(held_out_rows: Sequence[Example], limit: int, seed: int) -> tuple[Example, ...]:
    if not 0 < limit < len(held_out_rows):
        return tuple(held_out_rows)
    return tuple(random.Random(seed).sample(list(held_out_rows), limit))


async def _measure(
    variant: _Variant,
    rows: Sequence[Example],
    classes: Sequence[str],
    pipeline: TurnPipeline,
    concurrency: int,
    report: Callable[[str], None],
) -> LeverResult:
    semaphore = asyncio.Semaphore(concurrency)
    done = 0

    async def answer_one(example: Example) -> Answer | None:
        nonlocal done
        async with semaphore:
            answer = await _answer(variant.domain, example, pipeline)
        done += 1
        if done % 25 == 0 or done == len(rows):
            report(f"{variant.lever}: {done} of {len(rows)} rows")
        return answer

    answers = await asyncio.gather(*(answer_one(example) for example in rows))
    return LeverResult(
        lever=variant.lever,
        right=tuple(
            answer is not None and is_right(example, answer.text, classes)
            for example, answer in zip(rows, answers, strict=True)
        ),
        texts=tuple("" if answer is None else answer.text for answer in answers),
        prompt_tokens=tuple(answer.usage.prompt_tokens for answer in answers if answer),
        completion_tokens=tuple(answer.usage.completion_tokens for answer in answers if answer),
        seconds=tuple(answer.usage.total_s - answer.usage.queue_s for answer in answers if answer),
        failed=sum(answer is None for answer in answers),
    )


async def _answer(domain: Domain, example: Example, pipeline: TurnPipeline) -> Answer | None:
    """None where the row does not fit into the context beside the prompt's examples."""
    turn = Turn(
        question=example.question,
        domain=_with_system(domain, example),
        user_id=EVALUATION_USER,
        history=example.history,
        context=example.context,
    )
    try:
        return await pipeline.complete(turn)
    except ContextFull:
        return None


def _with_system(domain: Domain, example: Example) -> Domain:
    """A row's own system text stands in for the domain's, taken literally."""
    if not example.system:
        return domain
    return replace(domain, body="{% raw %}" + example.system.replace("{% endraw %}", "") + "{% endraw %}")


def _examples(train: Sequence[Example], domain: Domain, shots: int, seed: int) -> tuple[FewShot, ...]:
    """`shots` single-turn rows as the prompt's examples, in the very form in which turns are shown."""
    chosen = _stratified([example for example in train if not example.history and not example.system], shots, seed)
    return tuple(FewShot(_user_text(domain, example), example.answer) for example in chosen)


def _user_text(domain: Domain, example: Example) -> str:
    """The user message that the pipeline would show for the example."""
    bundle = compose(
        domain, question=example.question, history=(), context=example.context, user=UserProfile(),
        tokenizer=_NullTokenizer(), context_length=1 << 20, settings=PromptSettings(),
    )  # fmt: skip
    return bundle.messages[-1].content


class _NullTokenizer:
    """A tokenizer for composing text alone: nothing has a length, so nothing is left out."""

    def render(self, messages: Sequence[Message], *, generate: bool = True) -> list[int]:
        return []

    def answer(self, text: str) -> list[int]:
        return []

    def encode(self, text: str) -> list[int]:
        return []

    def decode(self, ids: Sequence[int]) -> str:
        return ""

    def count(self, text: str) -> int:
        return 0


def _stratified(train: Sequence[Example], shots: int, seed: int) -> list[Example]:
    """A seeded draw that shows every kind of answer: classes, or answers and abstentions, in turn."""
    rng = random.Random(seed)
    kinds: dict[object, list[Example]] = {}
    common = Counter(example.answer for example in train)
    for example in rng.sample(list(train), len(train)):
        repeated = example.answer if common[example.answer] > 1 else ""
        kinds.setdefault(repeated if example.check is None else example.check.abstains, []).append(example)
    queues = sorted(kinds.values(), key=len, reverse=True)
    chosen: list[Example] = []
    while len(chosen) < shots and any(queues):
        for queue in queues:
            if queue and len(chosen) < shots:
                chosen.append(queue.pop())
    rng.shuffle(chosen)
    return chosen

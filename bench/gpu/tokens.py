"""The engine's tokens against transformers and PEFT: on the base and with LoRA, rsLoRA and DoRA side by side.

Every row at once, then one after the other, through the engine's public interface; transformers in the same numbers,
in a batch of one and of several. `bench/gpu/judging.py` says what counts as wrong. Whether it would see a fault is
measured as well: answers of transformers with half of the adapter's strength are judged, too, and must be refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import torch

from bench import models, ours
from bench.context import Bench, Device
from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.gpu import cases, judging
from bench.gpu.cases import Cases
from bench.gpu.judging import Kind, Verdict
from bench.gpu.reference import Reference, wider
from server.engine import LocalEngine

Answers = Mapping[str | None, list[list[int]]]
"""Tokens, by the adapter's name; None for the base."""

_WEAKER = 0.5  # of the adapter's strength, in the answers that must be refused


@dataclass
class Review:
    """What came of judging. `pairs`: each answer with transformers' own; `itself`: those of transformers in one batch
    with those of its batches of one."""

    verdicts: list[tuple[str, Verdict]] = field(default_factory=list)  # with a name of the answer
    pairs: list[tuple[list[int], list[int]]] = field(default_factory=list)
    itself: list[tuple[list[int], list[int]]] = field(default_factory=list)
    weakened: list[Verdict] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        return sum(verdict.kind is Kind.WRONG for _, verdict in self.verdicts)

    @property
    def caught(self) -> float:
        """Per cent of the weakened answers that were refused."""
        return 100 * sum(verdict.kind is Kind.WRONG for verdict in self.weakened) / len(self.weakened)

    def note(self) -> str:
        """How the answers differ, and the first three wrong ones."""
        counts = Counter(verdict.kind for _, verdict in self.verdicts)
        said = [f"{counts[kind]} {kind}" for kind in Kind if counts[kind]]
        for name, verdict in [each for each in self.verdicts if each[1].kind is Kind.WRONG][:3]:
            said.append(
                f"{name}, token {verdict.place}: loses {verdict.lost:.3g} logits, rounding {verdict.allowed:.3g}"
            )
        return "; ".join(said)


def engine_settings(bench: Bench, asked: Cases) -> dict[str, int]:
    """Room for all rows at once and one adapter more than they use."""
    return {"max_batch": len(asked.asked) * bench.sizes.checked_rows, "max_loras": len(asked.asked)}


async def at_once(engine: LocalEngine, asked: Cases) -> Answers:
    """All rows of the base and of all adapters in one batch."""
    done = await asyncio.gather(*(ours.run(engine, chats) for chats in asked.asked.values()))
    return {
        name: [models.word_ids(text) for text in timed.texts] for name, timed in zip(asked.asked, done, strict=True)
    }


async def in_turn(engine: LocalEngine, asked: Cases) -> Answers:
    """One row after the other."""
    answers: dict[str | None, list[list[int]]] = {}
    for name, chats in asked.asked.items():
        requests = [ours.request(prompt, chats.new, name) for prompt in chats.prompts]
        answers[name] = [models.word_ids((await ours.answer(engine, request)).text) for request in requests]
    return answers


def review(asked: Cases, passes: Mapping[str, Answers], device: Device, dtype: torch.dtype) -> Review:
    """Judges each pass's answers. `dtype`: the engine's numbers."""
    plain = Reference(asked.model, asked.folders, device, dtype)
    exact = Reference(asked.model, asked.folders, device, wider(dtype), "eager")
    found = Review()
    for adapter, chats in asked.asked.items():
        prompts, new = chats.prompts, chats.new
        alone = [plain.answers([prompt], adapter, new)[0] for prompt in prompts]
        together = plain.answers(prompts, adapter, new)
        found.itself += zip(together, alone, strict=True)

        def judged(answers: Sequence[list[int]]) -> list[Verdict]:
            logits = exact.logits(prompts, answers, adapter)  # noqa: B023  called in this turn of the loop alone
            rounded = plain.logits(prompts, answers, adapter)  # noqa: B023
            lost = judging.losses(logits, answers).tolist()
            allowed = judging.allowances(logits, rounded, dtype).tolist()
            rows = zip(answers, alone, together, lost, allowed, strict=True)  # noqa: B023
            return [judging.judge(*row) for row in rows]

        for name, answers in passes.items():
            mine = answers[adapter]
            for row, verdict in enumerate(judged(mine)):
                found.verdicts.append((f"{adapter or 'base'}, row {row}, {name}", verdict))
            found.pairs += zip(mine, alone, strict=True)
        if adapter is not None:
            found.weakened += judged([plain.answers([prompt], adapter, new, _WEAKER)[0] for prompt in prompts])
    return found


@asynccontextmanager
async def against_transformers(bench: Bench, *, dtype: str = "auto") -> AsyncIterator[Round]:
    """`dtype`: of the engine, where it is not to choose itself."""
    asked = cases.made(bench)

    async def one_round(number: int) -> Mapping[str, Reading]:
        settings = engine_settings(bench, asked)
        async with ours.started(bench, asked.model, asked.adapters, settings=settings, dtype=dtype) as engine:
            passes = {"all at once": await at_once(engine, asked), "one after the other": await in_turn(engine, asked)}
            numbers: torch.dtype = getattr(torch, engine.model.dtype)
        found = review(asked, passes, bench.device, numbers)
        same, itself = judging.share(found.pairs), judging.share(found.itself)
        return {
            "wrong": Reading(found.wrong, note=found.note()),
            "equal": Reading(same, same, itself, f"{engine.model.dtype}; {len(found.pairs)} answers"),
            "caught": Reading(found.caught, note=f"of {len(found.weakened)} answers"),
        }

    yield one_round


FIGURE = Figure(
    "cuda-tokens",
    (
        Measure(
            "wrong", "answers with a token that transformers + peft would not choose, rounding allowed for", "answers",
            Bound(0, at_most=True),
        ),
        Measure(
            "equal", "tokens before an answer's first difference from transformers + peft", "%", sides="%",
            against="transformers, batch of several against one",
        ),
        Measure("caught", "the same judgement refuses answers with half of the adapter's strength", "%", Bound(90)),
    ),
    against_transformers,
    device="cuda",
    rounds=1,
    gate=True,
)  # fmt: skip

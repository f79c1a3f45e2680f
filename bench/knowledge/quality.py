"""How well the right passages are found: KorQuAD by passage, the chunking set by character.

Each set is one index of its raw files, asked through `KnowledgeBase.search` with the settings that ship. A search tells
what it gave, gate included, and in its trace what it would have given without the gate and the cut behind the best.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.knowledge import sets
from bench.knowledge.run import Run
from bench.knowledge.sets import Asked, Spanned
from server.retrieval import KnowledgeBase, SearchFilter, SearchResult
from server.types import Passage

FIRST = 5
ABSENT = 1000  # questions asked where nothing answers


def figures(run: Run) -> list[Figure]:
    @asynccontextmanager
    async def korquad(_: object) -> AsyncIterator[Round]:
        files, asked = korquad_part(run)
        base = await asyncio.to_thread(run.base, "korquad", files)
        yield lambda number: asyncio.to_thread(_ranked, base, asked)

    @asynccontextmanager
    async def chunking(_: object) -> AsyncIterator[Round]:
        texts, asked = chunking_part(run)
        base = await asyncio.to_thread(run.base, "chunking", texts)
        yield lambda number: asyncio.to_thread(_covered, base, texts, asked)

    @asynccontextmanager
    async def gate(_: object) -> AsyncIterator[Round]:
        yield lambda number: asyncio.to_thread(_shut, run)

    return [
        Figure("korquad", _KORQUAD, korquad, rounds=1),
        Figure("chunking", _CHUNKING, chunking, rounds=1),
        Figure("gate", _GATE, gate, rounds=1),
    ]


_KORQUAD = (
    Measure("r1", "KorQuAD, the first passage is the right one, ranking alone", "%", Bound(89)),
    Measure("r5", "KorQuAD, among the first five passages, ranking alone", "%", Bound(98.3)),
    Measure("r1-gated", "KorQuAD, the first passage of the answer's, gate included", "%", Bound(89)),
    Measure("r5-gated", "KorQuAD, among the answer's passages, gate and cut included", "%"),
    Measure("found", "KorQuAD, something found", "%"),
)
_CHUNKING = (
    Measure("recall", "chunking set, k=5, gate and cut included: recall", "%", Bound(88)),
    Measure("iou", "chunking set, the same: IoU", "%", Bound(7)),
    Measure("recall-ranked", "chunking set, k=5, ranking alone: recall", "%"),
    Measure("iou-ranked", "chunking set, the same: IoU", "%"),
    Measure("passages", "chunking set, passages an answer", ""),
    Measure("found", "chunking set, something found", "%"),
)


_GATE = (
    Measure("korean", "the answer is not there: nothing found, KorQuAD without the half that answers", "%"),
    Measure("english", "the same, chunking set without the corpus that answers", "%"),
)


def korquad_part(run: Run) -> tuple[dict[str, str], list[Asked]]:
    """The files and the questions; of a quick run those passages alone that answer its questions."""
    files, questions = sets.korquad(run.data)
    asked = sets.sample(questions, run.sizes.questions)
    if run.sizes.questions is not None:
        files = {question.file: files[question.file] for question in asked}
    return files, asked


def chunking_part(run: Run) -> tuple[dict[str, str], list[Spanned]]:
    """The files and the questions; of a quick run the beginnings of the files alone, and what is asked of them."""
    files, questions = sets.chunking(run.data)
    most = run.sizes.corpus_chars
    if most is None:
        return files, sets.sample(questions, run.sizes.questions)
    near = [question for question in questions if max(end for _, end in question.spans) <= most]
    return {name: text[:most] for name, text in files.items()}, sets.sample(near, run.sizes.questions)


def _ranked(base: KnowledgeBase, questions: Sequence[Asked]) -> Mapping[str, Reading]:
    names = ("r1", "r5", "r1-gated", "r5-gated", "found")
    hits = dict.fromkeys(names, 0)
    for question in questions:
        result = base.search(question.text, ["korquad"], traced=True)
        ranked = list(dict.fromkeys(passage.file for passage in ranking(result)))
        given = [passage.file for passage in result.passages]
        for name, right in zip(
            names,
            (ranked[:1] == [question.file], question.file in ranked[:FIRST], given[:1] == [question.file],
             question.file in given[:FIRST], bool(given)),
            strict=True,
        ):  # fmt: skip
            hits[name] += right
    note = f"{len(questions)} questions"
    return {name: Reading(100 * count / len(questions), note=note) for name, count in hits.items()}


def _covered(base: KnowledgeBase, texts: Mapping[str, str], questions: Sequence[Spanned]) -> Mapping[str, Reading]:
    given, ranked, counts = [], [], []
    for question in questions:
        result = base.search(question.text, ["chunking"], traced=True)
        given.append(overlap(question, result.passages[:FIRST], texts))
        ranked.append(overlap(question, ranking(result)[:FIRST], texts))
        counts.append(len(result.passages))
    note = f"{len(questions)} questions"
    return {
        "recall": Reading(100 * statistics.mean(one.recall for one in given), note=note),
        "iou": Reading(100 * statistics.mean(one.iou for one in given), note=note),
        "recall-ranked": Reading(100 * statistics.mean(one.recall for one in ranked), note=note),
        "iou-ranked": Reading(100 * statistics.mean(one.iou for one in ranked), note=note),
        "passages": Reading(statistics.mean(counts), note=note),
        "found": Reading(100 * sum(count > 0 for count in counts) / len(counts), note=note),
    }


def _shut(run: Run) -> Mapping[str, Reading]:
    """How often nothing is found where nothing answers. A half of KorQuAD is every other article."""
    files, asked = korquad_part(run)
    halves = []
    for half in (0, 1):
        names = {one.file for one in asked if one.article % 2 == half}
        halves.append(run.base(f"half-{half}", {name: text for name, text in files.items() if name in names}))
    korean = []
    for one in sets.sample(asked, ABSENT):
        other = 1 - one.article % 2
        korean.append(not halves[other].search(one.text, [f"half-{other}"]).passages)
    texts, spanned = chunking_part(run)
    base = run.base("chunking", texts)
    english = []
    for question in spanned:
        others = SearchFilter(files=tuple(name for name in texts if name != question.file))
        english.append(not base.search(question.text, ["chunking"], filters=others).passages)
    return {
        name: Reading(100 * statistics.mean(shut), note=f"{len(shut)} questions")
        for name, shut in (("korean", korean), ("english", english))
    }


def ranking(result: SearchResult) -> list[Passage]:
    """What would have been given without the gate and the cut."""
    if result.trace is None:
        raise ValueError("the search was not traced")
    return [candidate.passage for candidate in result.trace.candidates]


@dataclass(frozen=True)
class Overlap:
    """By characters: share of the answer that was found, and found ∩ answer over found ∪ answer."""

    recall: float
    iou: float


def overlap(question: Spanned, passages: Sequence[Passage], texts: Mapping[str, str]) -> Overlap:
    spans = []
    for passage in passages:
        start = place(passage, texts[passage.file])
        spans.append((passage.file, start, start + len(passage.text)))
    return overlap_of(question, spans)


def overlap_of(question: Spanned, spans: Sequence[tuple[str, int, int]]) -> Overlap:
    """`spans`: file, from, to."""
    wanted = {(question.file, at) for at in question.characters}
    found = {(file, at) for file, start, end in spans for at in range(start, end)}
    both = len(found & wanted)
    return Overlap(both / len(wanted), both / len(found | wanted))


def place(passage: Passage, text: str) -> int:
    """Where in the file a passage begins. Raises ValueError where it is not a part of the file."""
    lines = text.split("\n")[: (passage.line_start or 1) - 1]
    return text.index(passage.text, sum(len(line) + 1 for line in lines))

"""The levers on the same rows, through the real pipeline over a scripted engine."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from server.chat import TurnPipeline
from server.config import PromptSettings
from server.datasets import Dataset, read_examples
from server.errors import InvalidInput
from server.evaluation import Comparison, Lever, LeverResult, compare
from server.prompting import Domain
from server.types import GenerationRequest
from tests.fakes import ScriptedEngine

DOMAIN = Domain(name="shop", title="Shop", description="", body="You help.", adapter="other")


def rows(path: Path, count: int = 60, name: str = "item") -> Dataset:
    lines = []
    for n in range(count):
        lines.append({
            "question": f"Price of {name} {n}?",
            "answer": f"It costs {n} won [1].",
            "sources": [{"file": f"{name}.md", "text": f"{name} {n}: {n} won"}],
            "check": {"contains": [str(n)], "cites": [1]},
            "group": f"{name} {n % 6}",
        })  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_examples(path)


def knowing(request: GenerationRequest, prompt: str) -> str:
    """Right with the adapter; with examples in the prompt on even items; never without either."""
    number = int(prompt.rsplit("Price of item ", 1)[1].partition("?")[0])
    shown = prompt.count("Question:") > 1
    if request.adapter or (shown and number % 2 == 0):
        return f"It costs {number} won [1]."
    return "I think it is cheap."


def pipeline(engine: ScriptedEngine) -> TurnPipeline:
    return TurnPipeline(engine, PromptSettings())


async def test_three_levers_on_the_same_held_out_rows(tmp_path: Path):
    engine = ScriptedEngine(knowing, adapters=["prices"])
    lines: list[str] = []
    found = await compare(
        rows(tmp_path / "rows.jsonl"), pipeline=pipeline(engine), domain=DOMAIN, adapter="prices",
        held_out=0.5, report=lines.append,
    )  # fmt: skip
    assert [each.lever for each in found.results] == [Lever.ZERO_SHOT, Lever.FEW_SHOT, Lever.ADAPTER]
    zero, few, adapter = found.results
    assert zero.accuracy == 0.0
    assert 0.3 < few.accuracy < 0.7
    assert adapter.accuracy == 1.0
    assert found.best_prompt is few
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert found.verdict().startswith("The adapter is better: against the few-shot prompt, the adapter fixes")
    assert lines[-1] == f"adapter: {found.rows} of {found.rows} rows"
    assert {request.adapter for request in engine.requests} == {None, "prices"}
    assert all(request.sampling.temperature == 0 for request in engine.requests)


async def test_the_prompts_differ_only_in_the_lever(tmp_path: Path):
    engine = ScriptedEngine(knowing, adapters=["prices"])
    await compare(rows(tmp_path / "r"), pipeline=pipeline(engine), domain=DOMAIN, adapter="prices", held_out=0.2,
                  shots=3)  # fmt: skip
    count = len(engine.requests) // 3
    texts = [engine.tokenizer.decode(request.prompt) for request in engine.requests]
    zero, few, adapter = sorted(texts[:count]), texts[count : 2 * count], sorted(texts[2 * count :])
    assert zero == adapter
    assert all(text.count("Sources (quoted documents") == 4 for text in few)
    assert all(text.count("Sources (quoted documents") == 1 for text in zero)


async def test_the_examples_come_from_the_training_side(tmp_path: Path):
    engine = ScriptedEngine(knowing)
    dataset = rows(tmp_path / "r")
    await compare(dataset, pipeline=pipeline(engine), domain=DOMAIN, adapter=None, held_out=0.3, shots=4)
    held = {row.question for row in dataset.split(0.3, 0)[1]}
    prompt = engine.tokenizer.decode(engine.requests[-1].prompt)
    shown = [part.split("\n")[0].split("user")[0] for part in prompt.split("Question: ")[1:-1]]
    assert len(shown) == 4
    assert not any(question in part for part in shown for question in held)


async def test_with_rows_from_another_file_every_row_is_compared(tmp_path: Path):
    engine = ScriptedEngine(knowing)
    found = await compare(
        rows(tmp_path / "held", 20), pipeline=pipeline(engine), domain=DOMAIN, adapter=None,
        shots_from=rows(tmp_path / "train", 30, "thing"),
    )  # fmt: skip
    assert found.rows == 20
    assert "thing" in engine.tokenizer.decode(engine.requests[-1].prompt)
    assert found.verdict().startswith("The few-shot prompt is the best prompt: 50.0% of 20 rows")


async def test_limit_draws_the_same_rows_again(tmp_path: Path):
    prompts = []
    for _ in range(2):
        engine = ScriptedEngine(knowing)
        found = await compare(rows(tmp_path / "r"), pipeline=pipeline(engine), domain=DOMAIN, adapter=None,
                              held_out=0.5, limit=7, shots=0)  # fmt: skip
        assert found.rows == len(engine.requests) == 7
        prompts.append(sorted(request.prompt for request in engine.requests))
    assert prompts[0] == prompts[1]


async def test_a_rows_own_system_text_is_used(tmp_path: Path):
    path = tmp_path / "r"
    lines = [{"question": f"q{n}", "answer": "yes", "system": "Say {{ yes }}.", "group": str(n)} for n in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    engine = ScriptedEngine(lambda request, prompt: "yes" if "Say {{ yes }}." in prompt else "no")
    found = await compare(read_examples(path), pipeline=pipeline(engine), domain=DOMAIN, adapter=None, held_out=0.5,
                          shots=0)  # fmt: skip
    assert found.results[0].accuracy == 1.0


async def test_classes_are_compared_by_label_and_examples_show_every_class(tmp_path: Path):
    path = tmp_path / "r"
    lines = [{"question": f"review {n}", "answer": ("good", "bad", "mixed")[n % 3]} for n in range(60)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    engine = ScriptedEngine(lambda request, prompt: "This review is Good!")
    found = await compare(read_examples(path), pipeline=pipeline(engine), domain=DOMAIN, adapter=None, held_out=0.5,
                          shots=3)  # fmt: skip
    right = sum(found.results[0].right)
    assert right == sum(line["answer"] == "good" for line in lines if _held(path, line))
    prompt = engine.tokenizer.decode(engine.requests[-1].prompt)
    assert all(f"assistant\n{label}" in prompt for label in ("good", "bad", "mixed"))


def _held(path: Path, line: dict[str, str]) -> bool:
    return line["question"] in {row.question for row in read_examples(path).split(0.5, 0)[1]}


async def test_rows_that_do_not_fit_count_as_wrong_and_are_named(tmp_path: Path):
    engine = ScriptedEngine(knowing, context_length=700)
    long = [{"question": "Price of item 9? " + "x" * 900, "answer": "9", "group": "a"},
            {"question": "Price of item 8?", "answer": "8", "group": "b", "check": {"contains": ["8"]}}]  # fmt: skip
    path = tmp_path / "r"
    path.write_text("".join(json.dumps(line) + "\n" for line in long))
    found = await compare(read_examples(path), pipeline=pipeline(engine), domain=DOMAIN, adapter=None, shots=0,
                          shots_from=rows(tmp_path / "train", 6))  # fmt: skip
    assert found.results[0].failed == 1
    assert len(found.results[0].right) == 2
    assert "1 rows did not fit into the context" in found.table()


async def test_one_group_cannot_be_compared(tmp_path: Path):
    path = tmp_path / "r"
    path.write_text('{"question": "q", "answer": "a"}\n')
    with pytest.raises(InvalidInput, match="at least two groups"):
        await compare(read_examples(path), pipeline=pipeline(ScriptedEngine()), domain=DOMAIN, adapter=None)


# ── what is said about it ────────────────────────────────────────────────────────────────────────


def results(lever: Lever, right: list[bool], seconds: tuple[float, ...] = (1.0,)) -> LeverResult:
    return LeverResult(lever, tuple(right), ("x",) * len(right), (100, 200), (10, 20), seconds)


def comparison(zero: list[bool], adapter: list[bool]) -> Comparison:
    return Comparison("shop", "a", len(zero), (results(Lever.ZERO_SHOT, zero), results(Lever.ADAPTER, adapter)))


def test_verdicts():
    none, every = [False] * 20, [True] * 20
    assert comparison(none, every).verdict() == (
        "The adapter is better: against the zero-shot prompt, the adapter fixes 20 of 20 rows and breaks 0 "
        "(+100.0 points, exact McNemar p = 1.9e-06)."
    )
    assert comparison(every, none).verdict().startswith("The adapter is worse")
    few = comparison([False] * 3 + [True] * 17, every).verdict()
    assert few.startswith("Not enough data")
    assert "too few rows differ" in few
    close = comparison([True] * 10 + [False] * 10, [False] * 8 + [True] * 12).verdict()
    assert "the difference may be chance" in close


def test_the_table_shows_interval_tokens_and_latency():
    seconds = tuple(float(n) for n in range(1, 21))
    found = Comparison("shop", None, 4, (results(Lever.ZERO_SHOT, [True, True, True, False], seconds),))
    head, rule, row, *_ = found.table().splitlines()
    assert head.startswith("| lever | right | accuracy | 95% interval")
    assert rule == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert row == "| zero-shot prompt | 3/4 | 75.0% | 30.1% – 95.4% | 150 | 15 | 10.00 s | 19.00 s |"


def test_the_terminal_table_holds_the_same_figures():
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(comparison([False] * 20, [True] * 20).rich())
    text = console.export_text()
    assert "20/20" in text
    assert "The adapter is better" in text


def test_the_plainer_prompt_wins_a_tie():
    zero, few = results(Lever.ZERO_SHOT, [True, False]), results(Lever.FEW_SHOT, [False, True])
    assert Comparison("shop", None, 2, (zero, few)).best_prompt is zero


async def test_history_and_memories_are_shown_as_in_a_chat(tmp_path: Path):
    path = tmp_path / "r"
    row = {
        "question": "And mine?", "answer": "Mina", "memories": ["The user's name is Mina."],
        "history": [{"question": "What is your name?", "answer": "Tailor.", "sources": []}],
    }  # fmt: skip
    engine = ScriptedEngine(lambda request, prompt: "Mina.")
    path.write_text("".join(json.dumps({**row, "group": group, "answer": f"Mina{group}"}) + "\n" for group in "ab"))
    await compare(read_examples(path), pipeline=pipeline(engine), domain=DOMAIN, adapter=None, held_out=0.5, shots=0)
    prompt = engine.tokenizer.decode(engine.requests[-1].prompt)
    assert "About the user:\n- The user's name is Mina." in prompt
    assert prompt.index("What is your name?") < prompt.index("Tailor.") < prompt.index("Question: And mine?")


async def test_answers_are_cut_at_the_given_length(tmp_path: Path):
    engine = ScriptedEngine(lambda request, prompt: "word " * 50)
    found = await compare(rows(tmp_path / "r"), pipeline=pipeline(engine), domain=DOMAIN, adapter=None,
                          held_out=0.2, shots=0, max_tokens=7)  # fmt: skip
    assert set(found.results[0].completion_tokens) == {7}


async def test_no_more_rows_than_allowed_run_at_once(tmp_path: Path):
    running = peak = 0

    class Counting(ScriptedEngine):
        async def generate(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            try:
                async for event in super().generate(request):
                    yield event
            finally:
                running -= 1

    await compare(rows(tmp_path / "r"), pipeline=pipeline(Counting(knowing, pause=0.001)), domain=DOMAIN,
                  adapter=None, held_out=0.5, shots=0, concurrency=3)  # fmt: skip
    assert peak == 3

"""The correctness figures on the processor: a right engine passes, a wrong one does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import models, ours
from bench.context import Bench
from bench.figure import Outcome, State, measure
from bench.gpu import cases, pressure, tokens
from bench.gpu.pressure import Churn


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, in which the model and the adapters are made once."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def checked(bench: Bench, made: Path) -> Bench:
    return replace(bench, folder=made)


async def outcomes(bench: Bench, dtype: str = "auto") -> dict[str, Outcome]:
    lines: list[str] = []
    figure = replace(tokens.FIGURE, open=partial(tokens.against_transformers, dtype=dtype))
    found = await measure(figure, replace(bench, report=lines.append), rounds=3)
    assert all(outcome.state is not State.FAILED for outcome in found), lines
    return {outcome.measure.name: outcome for outcome in found}


async def test_in_exact_numbers_every_token_is_transformers_own(checked: Bench) -> None:
    found = await outcomes(checked)
    assert (found["wrong"].state, found["wrong"].note) == (State.MET, "16 equal")
    assert (found["equal"].value, found["equal"].against) == (100, 100)
    assert (found["caught"].state, found["caught"].value) == (State.MET, 100)


async def test_in_numbers_of_two_bytes_what_rounding_costs_is_no_fault(checked: Bench) -> None:
    """And it hides nothing: half of an adapter's strength is still seen."""
    found = await outcomes(checked, "bfloat16")
    assert found["wrong"].state is State.MET, found["wrong"].note
    assert found["equal"].note == "bfloat16; 16 answers"
    assert found["caught"].state is State.MET


def serving(adapters: Path) -> Any:
    """`ours.started` as the figures call it, of an engine that is given other adapters."""
    real = ours.started

    def started(bench: Bench, model: Path, _: Path, **more: Any) -> AbstractAsyncContextManager[Any]:
        return real(bench, model, adapters, **more)

    return started


def spoiled(bench: Bench, to: Path, change: Mapping[str, Any], name: str) -> Path:
    """A copy of the adapters in which one's settings are others."""
    shutil.copytree(cases.made(bench).adapters, to)
    path = to / name / "1" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(change)))
    return to


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rslora", {"use_rslora": False}),
        ("plain", {"alpha_pattern": {}}),
        ("dora", {"lora_alpha": 12}),
        ("plain", {"lora_alpha": 20}),
    ],
    ids=["rsLoRA's scale", "a pattern", "DoRA's strength", "a strength a quarter too large"],
)
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
async def test_an_engine_with_a_wrong_scale_is_found_out(
    checked: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Mapping[str, Any], dtype: str
) -> None:
    wrong = spoiled(checked, tmp_path / "spoiled", change, name)
    monkeypatch.setattr(ours, "started", serving(wrong))
    found = (await outcomes(checked, dtype))["wrong"]
    assert found.state is State.MISSED
    assert found.value == 2 * checked.sizes.checked_rows, "both passes of that adapter, and no other one"
    assert f"{name}, row 0, all at once, token" in found.note


async def test_an_engine_that_mixes_up_adapters_is_found_out(
    checked: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossed = tmp_path / "crossed"
    shutil.copytree(cases.made(checked).adapters, crossed)
    (crossed / "plain").rename(crossed / "other")
    (crossed / "rslora").rename(crossed / "plain")
    (crossed / "other").rename(crossed / "rslora")
    monkeypatch.setattr(ours, "started", serving(crossed))
    assert (await outcomes(checked))["wrong"].value == 4 * checked.sizes.checked_rows


async def test_a_judgement_that_lets_all_pass_is_a_miss(checked: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tokens.judging, "allowances", lambda exact, rounded, dtype: torch.full(exact.shape[:2], torch.inf)
    )
    found = await outcomes(checked)
    assert found["wrong"].state is State.MET
    assert (found["caught"].state, found["caught"].value) == (State.MISSED, 0)


# ── under pressure ───────────────────────────────────────────────────────────────────────────────


async def test_answers_are_the_same_while_memory_and_adapters_change(checked: Bench) -> None:
    lines: list[str] = []
    wrong, same = await measure(pressure.FIGURE, replace(checked, report=lines.append), rounds=1)
    assert (wrong.state, same.value) == (State.MET, 100), (wrong.note, lines)
    assert wrong.note.startswith("24 equal; ")
    allocations, loads = (int(part.split()[0].replace(",", "")) for part in wrong.note[10:].split(" and "))
    assert allocations > 1
    assert loads > 1


async def test_an_engine_that_is_disturbed_is_found_out(checked: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if one adapter's rows had been answered from memory that another has now."""
    real, calls = pressure.at_once, []

    async def at_once(engine: Any, asked: cases.Cases) -> tokens.Answers:
        answers = await real(engine, asked)
        calls.append(answers)
        return {**answers, "dora": answers["plain"]} if len(calls) > 1 else answers

    monkeypatch.setattr(pressure, "at_once", at_once)
    wrong, same = await measure(pressure.FIGURE, checked, rounds=1)
    assert (wrong.state, wrong.value) == (State.MISSED, 2 * checked.sizes.checked_rows)
    assert same.value is not None
    assert same.value < 100


def test_memory_is_churned_within_its_bound_and_a_failure_is_told() -> None:
    held: list[torch.Tensor] = []
    churn = Churn("cpu", 1 << 16)
    for _ in range(300):
        churn._take(held)
        assert sum(each.numel() for each in held) <= 1 << 16
    assert churn.taken == 300
    assert all(bool((each == 255).all()) for each in held)
    assert bool(torch.full((8,), 255, dtype=torch.uint8).view(torch.bfloat16).isnan().all())
    broken = Churn("cpu", 1 << 16)
    broken._random = None  # type: ignore[assignment]
    with pytest.raises(AttributeError), broken:
        broken._thread.join(timeout=60)


def test_adapters_are_made_once_and_texts_tell_their_tokens(checked: Bench) -> None:
    first = cases.made(checked)
    assert cases.made(checked) == first
    assert set(first.folders) == {"plain", "rslora", "dora"}
    assert models.word_ids(" w0 w12") == [models.FIRST_WORD, models.FIRST_WORD + 12]
    with pytest.raises(ValueError, match="words alone"):
        models.word_ids(" w0 x")
    tokenizer = models.word_tokenizer(1000)
    assert models.word_ids(tokenizer.decode([266, 999])) == [266, 999]

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from server.engine.sampling.sampler import Choice, Sampler, check_sampling, choose_on_device, choose_tokens, to_host
from server.errors import EngineError, InvalidInput
from server.types import SamplingParams
from tests.engine.conftest import choose
from tests.tiers import cases

VOCABULARY = 40


def logits(seed: int = 0, size: int = VOCABULARY) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, size).astype(np.float32)


def draws(params: SamplingParams, count: int = 4000, values: np.ndarray | None = None) -> np.ndarray:
    """How often each token comes, drawn with another seed each time."""
    values = logits() if values is None else values
    counts = np.zeros(len(values))
    for seed in range(count):
        sampler = Sampler(SamplingParams(**{**_fields(params), "seed": seed}), [])
        counts[choose(sampler, values.copy()).token] += 1
    return counts / count


def _fields(params: SamplingParams) -> dict:
    return {name: getattr(params, name) for name in params.__dataclass_fields__}


def oracle(warpers) -> np.ndarray:
    """transformers' own probabilities."""
    scores = torch.tensor(logits())[None]
    return torch.softmax(LogitsProcessorList(warpers)(torch.zeros(1, 0, dtype=torch.long), scores), -1)[0].numpy()


def test_zero_temperature_is_greedy() -> None:
    sampler = Sampler(SamplingParams(temperature=0), [1, 2])
    assert sampler.plain
    assert choose(sampler, logits()).token == int(logits().argmax())


@pytest.mark.parametrize(
    ("params", "warpers"),
    [
        (SamplingParams(temperature=1.0), []),
        (SamplingParams(temperature=0.5), [TemperatureLogitsWarper(0.5)]),
        (SamplingParams(temperature=1.3, top_k=5), [TemperatureLogitsWarper(1.3), TopKLogitsWarper(5)]),
        (SamplingParams(temperature=1.0, top_p=0.7), [TopPLogitsWarper(0.7)]),
        (SamplingParams(temperature=1.0, top_k=9, top_p=0.8), [TopKLogitsWarper(9), TopPLogitsWarper(0.8)]),
        (SamplingParams(temperature=1.0, min_p=0.2), [MinPLogitsWarper(0.2)]),
    ],
)
def test_draws_follow_the_same_distribution_as_transformers(params: SamplingParams, warpers) -> None:
    expected = oracle(warpers)
    found = draws(params)
    assert set(np.flatnonzero(found)) <= set(np.flatnonzero(expected))
    assert np.abs(found - expected).max() < 0.03


def test_top_p_looks_beyond_its_first_glance() -> None:
    flat = np.zeros(5000, np.float32)
    found = {
        choose(Sampler(SamplingParams(temperature=1, top_p=0.9, seed=seed), []), flat.copy()).token
        for seed in range(300)
    }
    assert max(found) > 64


def test_repetition_penalty_is_transformers_own() -> None:
    seen = [3, 5, int(logits().argmax())]
    values = logits()
    Sampler(SamplingParams(temperature=0, repetition_penalty=1.7), seen).process_logits(values)
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([seen]), torch.tensor(logits())[None])[0].numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_presence_and_frequency_count_the_answer_alone() -> None:
    sampler = Sampler(SamplingParams(temperature=0, presence_penalty=0.5, frequency_penalty=0.25), [7, 7])
    for token in (1, 1, 2):
        sampler.accept(token)
    values = logits()
    sampler.process_logits(values)
    expected = logits()
    expected[1] -= 1.0
    expected[2] -= 0.75
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_logit_bias_forces_and_forbids() -> None:
    assert choose(Sampler(SamplingParams(temperature=0, logit_bias={9: 100}), []), logits()).token == 9
    best = int(logits().argmax())
    assert choose(Sampler(SamplingParams(temperature=0, logit_bias={best: -100}), []), logits()).token != best


@given(seed=st.integers(0, 2**64), positions=st.integers(1, 8))
@settings(max_examples=cases(50, 1_000), deadline=None)
def test_a_seed_gives_the_same_tokens_again(seed: int, positions: int) -> None:
    params = SamplingParams(temperature=1.5, seed=seed)
    one, two = Sampler(params, []), Sampler(params, [1, 2, 3])
    for position in range(positions):
        assert choose(one, logits(position)).token == choose(two, logits(position)).token


def test_positions_draw_apart_and_seeds_too() -> None:
    flat = np.zeros(1000, np.float32)
    sampler = Sampler(SamplingParams(temperature=1, seed=3), [])
    assert len({choose(sampler, flat.copy()).token for _ in range(50)}) > 40
    firsts = {choose(Sampler(SamplingParams(temperature=1, seed=seed), []), flat.copy()).token for seed in range(50)}
    assert len(firsts) > 40


def test_no_seed_means_chance() -> None:
    flat = np.zeros(1000, np.float32)
    assert len({choose(Sampler(SamplingParams(temperature=1), []), flat.copy()).token for _ in range(20)}) > 10


def test_logprobs_are_of_the_unchanged_logits() -> None:
    params = SamplingParams(temperature=0, logprobs=3, logit_bias={4: 50})
    choice = choose(Sampler(params, []), logits())
    expected = torch.log_softmax(torch.tensor(logits()), -1)
    assert choice.token == 4
    assert choice.logprob == pytest.approx(float(expected[4]), abs=1e-5)
    best = torch.topk(expected, 3)
    assert [token for token, _ in choice.top] == best.indices.tolist()
    assert [value for _, value in choice.top] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert choose(Sampler(SamplingParams(temperature=0, logprobs=0), []), logits()).top == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equals_the_first_is_taken_whatever_the_numbers_are(dtype: torch.dtype) -> None:
    """As transformers' greedy search does; bfloat16 goes another way than float32."""
    values = torch.zeros(3, 1000, dtype=dtype)
    values[0, [7, 700]] = 4
    values[1, 999] = 1
    values[2, 500] = math.nan
    choices = choose_tokens([Sampler(SamplingParams(temperature=0.0), ()) for _ in range(3)], values)
    assert [choice.token for choice in choices[:2] if isinstance(choice, Choice)] == [7, 999]
    assert isinstance(choices[2], EngineError)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_end_this_row_alone(bad: float) -> None:
    values = logits()
    values[3] = bad
    with pytest.raises(EngineError, match="no usable numbers"):
        choose(Sampler(SamplingParams(), []), values)


def test_everything_forbidden_is_an_error() -> None:
    params = SamplingParams(logit_bias=dict.fromkeys(range(VOCABULARY), -math.inf))
    with pytest.raises(EngineError, match="rules out every one"):
        choose(Sampler(params, []), logits())


@given(
    values=hnp.arrays(np.float32, 30, elements=st.floats(-50, 50, width=32)),
    temperature=st.floats(0.01, 5),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 40),
    min_p=st.floats(0, 1),
)
@settings(max_examples=cases(200, 4_000), deadline=None)
def test_any_settings_choose_a_token_that_may_come(values, temperature, top_p, top_k, min_p) -> None:
    params = SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, logit_bias={0: -math.inf})
    assert 0 < choose(Sampler(params, []), values).token < 30


@given(
    values=hnp.arrays(np.float32, 30, elements=st.floats(-20, 20, width=16), unique=True),
    temperature=st.floats(0.1, 3),
    top_p=st.floats(0.05, 1),
    top_k=st.integers(0, 30),
    min_p=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
@settings(max_examples=cases(500, 10_000), deadline=None)
def test_a_short_head_decides_like_the_whole_list(values, temperature, top_p, top_k, min_p, seed) -> None:
    values[5:8] = -np.inf
    params = SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for head in (2, 7, 30):
            patch.setattr("server.engine.sampling.sampler._HEAD", head)
            found.append(choose(Sampler(params, []), values).token)
    assert len(set(found)) == 1
    assert np.isfinite(values[found[0]])


def test_top_p_counts_within_top_k_also_where_top_k_is_larger_than_the_head(monkeypatch) -> None:
    """Of four equal tokens top-k leaves three, and the first holds .3 of these; of all four it would take two."""
    params = [SamplingParams(temperature=1, top_p=0.3, top_k=3, seed=seed) for seed in range(100)]
    for head in (1, 2, 4):
        monkeypatch.setattr("server.engine.sampling.sampler._HEAD", head)
        assert {choose(Sampler(one, []), np.zeros(4, np.float32)).token for one in params} == {0}


def test_rows_of_all_kinds_choose_side_by_side_what_they_choose_alone() -> None:
    def samplers() -> list[Sampler]:
        return [
            Sampler(params, [1, 2])
            for params in (
                SamplingParams(temperature=0),
                SamplingParams(temperature=1, seed=4),
                SamplingParams(temperature=0, logprobs=2),
                SamplingParams(temperature=2, top_p=0.5, seed=9),
                SamplingParams(temperature=0, logit_bias={3: 100}),
                SamplingParams(temperature=0.7, repetition_penalty=1.5, seed=1),
                SamplingParams(temperature=1, seed=2),
            )
        ]

    rows = np.stack([logits(seed) for seed in range(7)])
    rows[6, 5] = np.nan
    together = choose_tokens(samplers(), torch.from_numpy(rows.copy()))
    assert isinstance(together[6], EngineError)
    assert together[:6] == [choose(sampler, row) for sampler, row in zip(samplers()[:6], rows[:6], strict=True)]


def mixed_samplers(dice: random.Random) -> list[Sampler]:
    def one() -> Sampler:
        temperature = dice.choice([0, 0, 0.3, 1, 2.5])
        changes = dice.choice([{}, {}, {}, {"top_p": 0.6}, {"top_k": 5}, {"min_p": 0.1}, {"top_k": 90, "top_p": 0.9}])
        slow = dice.choice([{}, {}, {}, {"logprobs": 2}, {"repetition_penalty": 1.4}, {"logit_bias": {3: 2.0}}])
        return Sampler(SamplingParams(temperature=temperature, seed=dice.randrange(99), **changes, **slow), [1, 2])

    return [one() for _ in range(dice.randrange(1, 9))]


@pytest.mark.parametrize("seed", range(cases(60, 1_000)))
def test_what_is_chosen_on_a_device_is_what_is_chosen_on_the_host(seed: int) -> None:
    rows = torch.randn(8, 300, generator=torch.Generator().manual_seed(seed)) * (seed % 7)
    rows[seed % 8, 7] = (math.nan, math.inf, 9)[seed % 3]
    here, there = (mixed_samplers(random.Random(seed)) for _ in range(2))
    for _ in range(4):
        wanted = choose_tokens(here, rows[: len(here)].clone())
        found = choose_on_device(there, rows[: len(here)].clone())
        assert [str(each) for each in found] == [str(each) for each in wanted]


def test_of_a_large_vocabulary_only_the_heads_come_to_the_host_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[torch.Size] = []

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        copied.append(tensor.shape)
        return to_host(tensor)

    monkeypatch.setattr("server.engine.sampling.sampler.to_host", counted)
    rows = torch.randn(64, 150_000, generator=torch.Generator().manual_seed(1)) * 6
    plain = [SamplingParams(temperature=0), SamplingParams(temperature=0.7, top_p=0.8, seed=3)]
    choose_on_device([Sampler(plain[number % 2], []) for number in range(64)], rows)
    assert copied == [(64, 131)]
    copied.clear()
    choose_on_device([Sampler(SamplingParams(temperature=0, logprobs=1), []), Sampler(plain[0], [])], rows[:2])
    assert copied == [(1, 131), (1, 150_000)], "whole rows where they are needed alone"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 2}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logprobs": 21}, "logprobs"),
        ({"stop": ("x",) * 17}, "17 stop strings"),
        ({"logit_bias": {VOCABULARY: 1}}, "token 40"),
        ({"logit_bias": {-1: 1}}, "token -1"),
        ({"logit_bias": {1: math.nan}}, "not a number"),
        ({"presence_penalty": math.inf}, "presence_penalty"),
    ],
)
def test_bad_settings_are_named(changes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check_sampling(SamplingParams(**changes), VOCABULARY)


def test_good_settings_pass() -> None:
    check_sampling(SamplingParams(temperature=0, top_p=1, stop=("a",), logit_bias={0: -100.0}, logprobs=20), VOCABULARY)

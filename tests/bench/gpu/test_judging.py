"""What counts as a wrong token, told from logits that are made up."""

from __future__ import annotations

import math

import pytest
import torch

from bench.gpu import judging
from bench.gpu.judging import Kind


def test_a_loss_is_what_a_token_lacks_to_the_best() -> None:
    exact = torch.tensor([[[1.0, 4.0, 3.5], [0.0, 2.0, 5.0]]])
    assert judging.losses(exact, [[2, 2]]).tolist() == [[0.5, 0.0]]


def test_rounding_is_twice_the_largest_error_or_twice_the_types_own() -> None:
    exact = torch.tensor([[[8.0, 1.0], [0.5, 64.0]]])
    near = exact + torch.tensor([[[0.0, 0.125], [0.0, 0.0]]])
    assert judging.allowances(exact, near, torch.bfloat16).tolist() == [[0.25, 0.5]]
    assert judging.allowances(exact, exact, torch.bfloat16).tolist() == [[0.0625, 0.5]]


def judged(answer: list[int], lost: list[float], together: tuple[int, ...] = (5, 6, 7)) -> judging.Verdict:
    return judging.judge(answer, [5, 6, 7], together, lost, [0.1] * len(answer))


def test_the_same_tokens_are_equal() -> None:
    verdict = judged([5, 6, 7], [0, 0.05, 0])
    assert (verdict.kind, verdict.equal, verdict.tokens, verdict.place) == (Kind.EQUAL, 3, 3, None)


def test_a_difference_between_close_tokens_is_rounding_and_what_follows_is_judged_by_itself() -> None:
    verdict = judged([5, 9, 4], [0, 0.1, 0])
    assert (verdict.kind, verdict.equal, verdict.place, verdict.lost) == (Kind.TIE, 1, 1, 0.1)


@pytest.mark.parametrize(("together", "kind"), [((5, 9, 1), Kind.BATCH), ((5, 6, 1), Kind.TIE)])
def test_a_difference_that_transformers_shows_itself_by_then_is_told_apart(
    together: tuple[int, ...], kind: Kind
) -> None:
    assert judged([5, 9, 4], [0, 0.1, 0], together).kind is kind


@pytest.mark.parametrize("bad", [0.11, math.nan, math.inf])
def test_a_token_that_loses_more_is_wrong_wherever_it_stands(bad: float) -> None:
    verdict = judged([5, 9, 4], [0, 0.1, bad])
    assert (verdict.kind, verdict.equal, verdict.place, verdict.allowed) == (Kind.WRONG, 1, 2, 0.1)
    assert judged([5, 6, 7], [0, bad, 0]).kind is Kind.WRONG, "even where transformers says the same"


def test_shares_count_what_comes_before_the_first_difference() -> None:
    assert judging.share([([1, 2, 3, 4], [1, 2, 9, 4]), ([1, 2, 3, 4], [1, 2, 3, 4])]) == 75
    assert judging.difference([1, 2], [1, 2, 3]) == 2

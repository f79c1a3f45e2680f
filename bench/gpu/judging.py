"""Whether an answer is one that the model could give: told from exact logits over the answer's own text.

In numbers of two bytes two right engines choose different tokens where the best two are close, and after the first
difference their texts have nothing to do with each other. So every token is judged in its place, after the tokens
that were truly before it: it must be the best by exact logits, or lose to the best no more than rounding costs.
What rounding costs is measured, not assumed: how far transformers' own logits, in the engine's numbers, are from the
exact ones over the same texts. Two logits that are each off by so much can change places over twice of it.

Knows nothing of models, adapters or devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor


class Kind(StrEnum):
    EQUAL = "equal"
    BATCH = "where transformers differs between batch sizes"  # in the same row, no later
    TIE = "within rounding"
    WRONG = "wrong"


@dataclass(frozen=True)
class Verdict:
    """Of one answer. `equal`: tokens before its first difference from transformers'; `place`: of that difference, or
    of the first wrong token; `lost` and `allowed` there, in logits."""

    kind: Kind
    tokens: int
    equal: int
    place: int | None = None
    lost: float = 0.0
    allowed: float = 0.0


def losses(exact: Tensor, answers: Sequence[Sequence[int]]) -> Tensor:
    """How much each token [answers, places] loses to the best, by `exact` logits [answers, places, vocabulary]."""
    chosen = torch.tensor([list(answer) for answer in answers], device=exact.device)
    lost: Tensor = exact.amax(-1) - exact.gather(-1, chosen[..., None])[..., 0]
    return lost


def allowances(exact: Tensor, rounded: Tensor, dtype: torch.dtype) -> Tensor:
    """What rounding may cost at each place [answers, places]: twice the largest distance of the `rounded` logits, those
    of transformers in `dtype`, from the exact ones, or twice what `dtype` rounds the best logit by, where that is more.
    """
    noise = (rounded.to(exact.dtype) - exact).abs().amax()
    unit = torch.finfo(dtype).eps / 2 * exact.amax(-1).abs()
    return 2 * torch.maximum(noise, unit)


def judge(
    answer: Sequence[int],
    alone: Sequence[int],
    together: Sequence[int],
    lost: Sequence[float],
    allowed: Sequence[float],
) -> Verdict:
    """`alone` and `together`: what transformers answers to the same prompt, in a batch of one and of several."""
    tokens, first = len(answer), difference(answer, alone)
    equal = tokens if first is None else first
    for place, (loss, most) in enumerate(zip(lost, allowed, strict=True)):
        if not loss <= most:  # NaN is wrong, too
            return Verdict(Kind.WRONG, tokens, min(equal, place), place, loss, most)
    if first is None:
        return Verdict(Kind.EQUAL, tokens, tokens)
    varies = difference(together, alone)
    kind = Kind.BATCH if varies is not None and varies <= first else Kind.TIE
    return Verdict(kind, tokens, equal, first, lost[first], allowed[first])


def difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place at which they differ; None where they are the same."""
    if list(one) == list(other):
        return None
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def share(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> float:
    """Per cent of the first texts' tokens that come before the first difference from the second."""
    alike = sum(len(one) if (place := difference(one, other)) is None else place for one, other in pairs)
    return 100 * alike / sum(len(one) for one, _ in pairs)

"""Chooses one row's next token from its logits. Nothing of another row can change the choice.

Order: bias, penalties, constraint, then temperature, top-k, top-p, min-p, and a draw whose random number
is a function of (seed, position) alone. Knows nothing of models or text.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.errors import EngineError, InvalidInput
from server.types import SamplingParams

Logits = NDArray[np.float32]

_MOST_STOPS = 16
_MOST_LOGPROBS = 20
_HEAD = 1024  # tokens looked at first for top-p: sorting the whole vocabulary is rarely needed


class TokenMask(Protocol):
    def apply(self, logits: Logits) -> None:
        """Sets what may not come next to -inf."""

    def accept(self, token: int) -> None: ...


@dataclass(frozen=True)
class Choice:
    """A token; its log-probability and the best alternatives by the unchanged logits, where asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def check_sampling(params: SamplingParams, vocabulary: int) -> None:
    """Raises InvalidInput naming the value, the rule and the bound."""
    rules = (
        ("temperature", params.temperature, 0.0, 100.0),
        ("top_p", params.top_p, 1e-6, 1.0),
        ("min_p", params.min_p, 0.0, 1.0),
        ("top_k", params.top_k, 0, math.inf),
        ("repetition_penalty", params.repetition_penalty, 1e-2, 100.0),
        ("presence_penalty", params.presence_penalty, -100.0, 100.0),
        ("frequency_penalty", params.frequency_penalty, -100.0, 100.0),
        ("max_tokens", params.max_tokens, 1, math.inf),
        ("logprobs", params.logprobs or 0, 0, _MOST_LOGPROBS),
    )
    for name, value, low, high in rules:
        if not low <= value <= high:  # NaN fails too
            raise InvalidInput(f"{name} is {value}, and must lie between {low:g} and {high:g}")
    if len(params.stop) > _MOST_STOPS:
        raise InvalidInput(f"{len(params.stop)} stop strings were given, and the most is {_MOST_STOPS}")
    for token, bias in params.logit_bias.items():
        if not 0 <= token < vocabulary:
            raise InvalidInput(f"logit_bias names token {token}, and the model's tokens are 0 to {vocabulary - 1}")
        if math.isnan(bias):
            raise InvalidInput(f"logit_bias of token {token} is not a number")


class Sampler:
    """One row's choices. `mask` is the row's constraint, told of every token that is chosen."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], mask: TokenMask | None = None) -> None:
        self._params = params
        self._mask = mask
        self._seed = secrets.randbits(63) if params.seed is None else params.seed % 2**64
        self._position = 0
        self._counts: dict[int, int] = {}
        self._seen = set(prompt) if params.repetition_penalty != 1.0 else set()
        self.plain_greedy = (
            params.temperature == 0 and mask is None and not params.logit_bias and params.logprobs is None
            and params.repetition_penalty == 1.0 and not params.presence_penalty and not params.frequency_penalty
        )

    def choose(self, logits: Logits) -> Choice:
        """`logits` [vocabulary] may be changed. Raises EngineError when they are not numbers."""
        if not np.isfinite(logits.max()):
            raise EngineError("the model gave no usable numbers for this answer; try again or shorten the prompt")
        raw = logits.copy() if self._params.logprobs is not None else None
        self._shape(logits)
        if not np.isfinite(logits.max()):
            raise EngineError("no token may follow here: logit_bias or the output format rules out every one")
        token = int(logits.argmax()) if self._params.temperature == 0 else self._draw(logits)
        self.note(token)
        return Choice(token) if raw is None else self._with_logprobs(token, raw)

    def note(self, token: int) -> None:
        """Counts a token as written; `choose` does it itself."""
        self._position += 1
        if self._params.presence_penalty or self._params.frequency_penalty:
            self._counts[token] = self._counts.get(token, 0) + 1
        if self._params.repetition_penalty != 1.0:
            self._seen.add(token)
        if self._mask is not None:
            self._mask.accept(token)

    def _shape(self, logits: Logits) -> None:
        params = self._params
        for token, bias in params.logit_bias.items():
            logits[token] += np.float32(bias)
        if self._seen:
            ids = np.fromiter(self._seen, np.int64)
            known = logits[ids]
            logits[ids] = np.where(known > 0, known / params.repetition_penalty, known * params.repetition_penalty)
        if self._counts:
            ids = np.fromiter(self._counts, np.int64)
            times = np.fromiter(self._counts.values(), np.float32)
            logits[ids] -= params.presence_penalty + params.frequency_penalty * times
        if self._mask is not None:
            self._mask.apply(logits)

    def _draw(self, logits: Logits) -> int:
        params = self._params
        scaled = logits.astype(np.float64) / params.temperature
        probabilities = np.exp(scaled - scaled.max())
        if 0 < params.top_k < len(probabilities):
            lowest = np.partition(probabilities, -params.top_k)[-params.top_k]
            probabilities[probabilities < lowest] = 0
        if params.top_p < 1:
            _keep_top_p(probabilities, params.top_p)
        if params.min_p > 0:
            probabilities[probabilities < params.min_p * probabilities.max()] = 0
        sums = np.cumsum(probabilities)
        place = int(np.searchsorted(sums, self._random() * sums[-1], side="right"))
        return min(place, int(np.flatnonzero(probabilities)[-1]))

    def _random(self) -> float:
        """Uniform in [0, 1), a counter-based generator (Salmon et al., 2011) read at this position."""
        return float(np.random.Generator(np.random.Philox(key=self._seed, counter=self._position)).random())

    def _with_logprobs(self, token: int, raw: Logits) -> Choice:
        values = raw.astype(np.float64)
        values -= values.max()
        values -= math.log(float(np.exp(values).sum()))
        count = min(self._params.logprobs or 0, len(values))
        best = np.argpartition(-values, count - 1)[:count] if count else np.empty(0, np.int64)
        ordered = sorted(((int(i), float(values[i])) for i in best), key=lambda pair: (-pair[1], pair[0]))
        return Choice(token, float(values[token]), tuple(ordered))


def _keep_top_p(probabilities: NDArray[np.float64], top_p: float) -> None:
    """Zeroes all but the fewest tokens whose share reaches `top_p` (Holtzman et al., 2020, 3.1)."""
    wanted = top_p * probabilities.sum()
    size = min(_HEAD, len(probabilities))
    while True:
        head = np.argpartition(-probabilities, size - 1)[:size]
        head = head[np.lexsort((head, -probabilities[head]))]
        sums = np.cumsum(probabilities[head])
        if sums[-1] >= wanted or size == len(probabilities):
            break
        size = min(size * 8, len(probabilities))
    kept = head[: int(np.searchsorted(sums, wanted)) + 1]
    values = probabilities[kept].copy()
    probabilities[:] = 0
    probabilities[kept] = values

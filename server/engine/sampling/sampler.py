"""Chooses each row's next token from its logits. Nothing of another row can change the choice.

Order: bias, penalties, constraint, then temperature, top-k, top-p, min-p, and a draw whose random number
is a function of (seed, position) alone. All that is kept is the beginning of the tokens sorted by likelihood, so
a short head of that list, found for all rows at once, nearly always decides. Knows nothing of models or text.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from server.engine.sampling.isolation import isolated
from server.errors import EngineError, InvalidInput, OutputFormatError
from server.types import SamplingParams

Logits = NDArray[np.float32]

_MAX_STOPS = 16
_MAX_LOGPROBS = 20
_HEAD = 64  # likeliest tokens looked at first: sorting the whole vocabulary is rarely needed


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
        ("logprobs", params.logprobs or 0, 0, _MAX_LOGPROBS),
    )
    for name, value, low, high in rules:
        if not low <= value <= high:  # NaN fails too
            raise InvalidInput(f"{name} is {value}, and must lie between {low:g} and {high:g}")
    if len(params.stop) > _MAX_STOPS:
        raise InvalidInput(f"{len(params.stop)} stop strings were given, and the most is {_MAX_STOPS}")
    _check_logit_bias(params.logit_bias, vocabulary)


def _check_logit_bias(logit_bias: Mapping[int, float], vocabulary: int) -> None:
    for token, bias in logit_bias.items():
        if not 0 <= token < vocabulary:
            raise InvalidInput(f"logit_bias names token {token}, and the model's tokens are 0 to {vocabulary - 1}")
        if math.isnan(bias):
            raise InvalidInput(f"logit_bias of token {token} is not a number")


class Sampler:
    """One row's choices. `mask` is the row's constraint; it accepts every token that is chosen."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], mask: TokenMask | None = None) -> None:
        self._params = params
        self._mask = mask
        self.temperature = params.temperature
        self.random = params.temperature > 0
        self.logprobs = params.logprobs is not None
        self._seed = secrets.randbits(63) if params.seed is None else params.seed % 2**64
        self._position = 0
        self._counts: dict[int, int] = {}
        self._seen = set(prompt) if params.repetition_penalty != 1.0 else set()
        self.plain = (  # nothing changes the logits, nothing reports them
            mask is None
            and not params.logit_bias
            and params.logprobs is None
            and params.repetition_penalty == 1.0
            and not params.presence_penalty
            and not params.frequency_penalty
        )

    def accept(self, token: int) -> None:
        """Counts a token as written; `choose_tokens` does it itself."""
        self._position += 1
        if self._params.presence_penalty or self._params.frequency_penalty:
            self._counts[token] = self._counts.get(token, 0) + 1
        if self._params.repetition_penalty != 1.0:
            self._seen.add(token)
        if self._mask is not None:
            self._mask.accept(token)

    def process_logits(self, logits: Logits) -> None:
        """Bias, penalties and constraint, in place."""
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

    def draw(
        self, values: Logits, ids: NDArray[np.int64], mass: float, vocabulary: int, logits: Callable[[], Logits]
    ) -> int:
        """A token by temperature, top-k, top-p and min-p. `values` and `ids`: the head of the sorted logits; `mass`:
        the sum of exp((logit - highest) / temperature) over all of them; `logits` is called where the head is too
        short."""
        params = self._params
        order = np.lexsort((ids, -values))  # equals in the order of their ids, whoever sorted
        values, ids = values[order], ids[order]
        likely = np.exp((values.astype(np.float64) - values[0]) / params.temperature)
        whole = len(ids) == vocabulary
        if 0 < params.top_k <= len(likely):
            likely, whole = likely[: params.top_k], True
            mass = float(likely.sum())
        elif whole:
            mass = float(likely.sum())
        elif params.top_k and params.top_p < 1:  # the share is one of the top-k's mass, which this head does not hold
            return self._draw_further(len(ids), mass, logits())
        sums = np.cumsum(likely)
        kept = int(np.count_nonzero(likely))
        if params.top_p < 1:  # the fewest whose share reaches it (Holtzman et al., 2020, section 3.1)
            reached = int(np.searchsorted(sums, params.top_p * mass))
            kept, whole = min(kept, reached + 1), whole or reached < len(likely)
        if params.min_p > 0:
            likely_enough = int(np.count_nonzero(likely >= params.min_p))
            whole = whole or likely_enough < len(likely)
            kept = min(kept, likely_enough)
        filtered = params.top_p < 1 or params.min_p > 0 or params.top_k > 0
        if filtered and not whole:
            return self._draw_further(len(ids), mass, logits())
        point = self._random() * (float(sums[kept - 1]) if whole else mass)
        found = int(np.searchsorted(sums[:kept], point, side="right"))
        if found >= kept and not whole:
            return self._draw_further(len(ids), mass, logits())
        return int(ids[min(found, kept - 1)])

    def _draw_further(self, seen: int, mass: float, logits: Logits) -> int:
        size = min(16 * seen, len(logits))
        ids = np.argpartition(-logits, size - 1)[:size]
        return self.draw(logits[ids], ids, mass, len(logits), lambda: logits)

    def _random(self) -> float:
        """Uniform in [0, 1), a counter-based generator (Salmon et al., 2011) read at this position."""
        return float(np.random.Generator(np.random.Philox(key=self._seed, counter=self._position)).random())

    def with_logprobs(self, token: int, raw: Logits) -> Choice:
        """`raw`: the logits before anything changed them."""
        values = raw.astype(np.float64)
        values -= values.max()
        values -= math.log(float(np.exp(values).sum()))
        count = min(self._params.logprobs or 0, len(values))
        best = np.argpartition(-values, count - 1)[:count] if count else np.empty(0, np.int64)
        ordered = sorted(((int(i), float(values[i])) for i in best), key=lambda pair: (-pair[1], pair[0]))
        return Choice(token, float(values[token]), tuple(ordered))


class _Watched(Sampler):
    """Of a row that goes on with its prompt: whether its numbers are usable, nothing is chosen."""

    def accept(self, token: int) -> None: ...


WATCHED = _Watched(SamplingParams(temperature=0.0), ())


def choose_tokens(samplers: Sequence[Sampler], logits: Tensor) -> list[Choice | EngineError]:
    """The next token of each row, logits [rows, vocabulary], which may change; an error where there is none."""
    if not samplers:
        return []
    if logits.device.type != "cpu":
        return choose_on_device(samplers, logits)
    if all(sampler.plain and not sampler.random for sampler in samplers):
        return [
            isolated(_accepted, sampler, Choice(token)) if math.isfinite(best) else _unusable()
            for sampler, best, token in zip(samplers, *_highest(logits), strict=True)
        ]
    return _choose_on_host(samplers, logits.float())


def choose_on_device(samplers: Sequence[Sampler], logits: Tensor) -> list[Choice | EngineError]:
    """As `choose_tokens`. Of rows that nothing changes and nothing reports, only the heads of the sorted logits come to
    the host, all in one copy; of others, and where a head is too short, the whole row does."""
    plain = [number for number, sampler in enumerate(samplers) if sampler.plain]
    others = [number for number, sampler in enumerate(samplers) if not sampler.plain]
    choices: dict[int, Choice | EngineError] = {}
    if plain:
        rows = logits if not others else logits[plain]
        values = rows.float()
        best, found = values.max(-1)
        head = values.topk(min(_HEAD, values.shape[1]))
        heat = torch.tensor([[samplers[number].temperature or 1.0] for number in plain], device=values.device)
        masses = ((values - best[:, None]) / heat).exp_().sum(-1)
        columns = best[:, None], found[:, None], masses[:, None], head.values, head.indices
        heads = to_host(torch.cat([column.double() for column in columns], 1))  # a token's number is exact in them
        for number, values_row, (highest, token, mass, *rest) in zip(plain, values, heads.tolist(), strict=True):
            choices[number] = (
                isolated(_choose_from_head, samplers[number], int(token), mass, rest, values_row)
                if math.isfinite(highest)
                else _unusable()
            )
    if others:
        whole = to_host((logits if not plain else logits[others]).float())
        chosen = _choose_on_host([samplers[number] for number in others], whole)
        choices.update(zip(others, chosen, strict=True))
    return [choices[number] for number in range(len(samplers))]


def to_host(tensor: Tensor) -> Tensor:
    """Waits for the device: once in most steps."""
    return tensor.cpu()


def _choose_from_head(sampler: Sampler, highest: int, mass: float, head: list[float], logits: Tensor) -> Choice:
    if not sampler.random:
        return _accepted(sampler, Choice(highest))
    size = len(head) // 2
    values, ids = np.array(head[:size], np.float32), np.array(head[size:], np.int64)
    return _accepted(sampler, Choice(sampler.draw(values, ids, mass, len(logits), lambda: to_host(logits).numpy())))


def _choose_on_host(samplers: Sequence[Sampler], values: Tensor) -> list[Choice | EngineError]:
    """values [rows, vocabulary], float32, which change."""
    raw, failed = _process_logits(samplers, values)
    best, found = _highest(values)
    for number in range(len(samplers)):
        if number not in failed and not math.isfinite(best[number]):
            failed[number] = OutputFormatError(
                "no token may follow here: logit_bias or the output format rules out every one"
            )
    drawn = _draws([n for n, sampler in enumerate(samplers) if sampler.random and n not in failed], samplers, values)
    return [
        failed[number]
        if number in failed
        else isolated(_chosen, sampler, drawn.get(number, found[number]), raw.get(number))
        for number, sampler in enumerate(samplers)
    ]


def _process_logits(samplers: Sequence[Sampler], values: Tensor) -> tuple[dict[int, Logits], dict[int, EngineError]]:
    """Changes each row's values in place. (The unchanged ones of rows that report log-probabilities, the rows that
    failed.)"""
    raw: dict[int, Logits] = {}
    failed: dict[int, EngineError] = {}
    usable = torch.isfinite(values.amax(-1)).tolist()
    for number, (sampler, row) in enumerate(zip(samplers, values.numpy(), strict=True)):
        if not usable[number]:
            failed[number] = _unusable()
            continue
        if sampler.logprobs:
            raw[number] = row.copy()
        error = isolated(sampler.process_logits, row)
        if error is not None:
            failed[number] = error
    return raw, failed


def _highest(values: Tensor) -> tuple[list[float], list[int]]:
    """Each row's highest value and the first index that has it; NaN and its index where a row has one."""
    if values.device.type == "cpu" and values.dtype == torch.float32:  # numpy takes a tenth of torch's time for it
        rows = values.numpy()
        found = rows.argmax(-1)
        return rows[np.arange(len(rows)), found].tolist(), found.tolist()
    best, indices = values.max(-1)
    return best.tolist(), indices.tolist()


def _draws(numbers: list[int], samplers: Sequence[Sampler], values: Tensor) -> dict[int, int | EngineError]:
    """The tokens of those rows that draw."""
    if not numbers:
        return {}
    chosen = values if len(numbers) == len(values) else values[numbers]
    head = chosen.topk(min(_HEAD, chosen.shape[1]))
    heat = torch.tensor([[samplers[number].temperature] for number in numbers])
    masses = ((chosen - head.values[:, :1]) / heat).exp_().sum(-1).tolist()
    tops, ids, rows = head.values.numpy(), head.indices.numpy(), values.numpy()
    return {
        number: isolated(
            samplers[number].draw, tops[n], ids[n], masses[n], rows.shape[1], partial(rows.__getitem__, number)
        )
        for n, number in enumerate(numbers)
    }


def _chosen(sampler: Sampler, token: int | EngineError, raw: Logits | None) -> Choice:
    if isinstance(token, EngineError):
        raise token
    return _accepted(sampler, Choice(token) if raw is None else sampler.with_logprobs(token, raw))


def _accepted(sampler: Sampler, choice: Choice) -> Choice:
    sampler.accept(choice.token)
    return choice


def _unusable() -> EngineError:
    return EngineError("the model gave no usable numbers for this answer; try again or shorten the prompt")

"""What the engine's answers must equal: transformers with PEFT in float32, one text at a time, without any cache."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from server.types import TokenLogprob

if TYPE_CHECKING:
    from server.engine import LocalEngine
    from tests.engine.conftest import Reply

TOLERANCE = 1e-4
_BIAS = -100.0


@contextmanager
def peft_quiet() -> Iterator[None]:
    """PEFT still asks transformers by names that are going away, and warns of tied layers it leaves alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def reference(base: Path, adapter: Path | None = None) -> Any:
    """What must be equalled: transformers, with PEFT where there is an adapter."""
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32).eval()
    if adapter is None:
        return model
    with peft_quiet():
        return PeftModel.from_pretrained(model, str(adapter)).eval()


@torch.inference_mode()
def greedy(model: Any, prompt: list[int] | tuple[int, ...], count: int, stop: frozenset[int]) -> list[int]:
    """Tokens by full recomputation, without any cache: the plainest oracle there is."""
    ids = list(prompt)
    for _ in range(count):
        token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        ids.append(token)
        if token in stop:
            break
    return ids[len(prompt) :]


@dataclass(frozen=True)
class Answer:
    """Tokens, and the log-probabilities [tokens, vocabulary] that each was chosen from."""

    tokens: tuple[int, ...]
    logprobs: torch.Tensor


class Oracle:
    """Each answer is computed once. `banned` tokens are never chosen."""

    def __init__(self, base: Path, adapter: Path | None = None) -> None:
        self._model = reference(base, adapter)
        self._answers: dict[Any, Answer] = {}

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        return self._model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]

    def answer(self, prompt: Sequence[int], count: int, banned: Iterable[int] = ()) -> Answer:
        unwanted = sorted(banned)
        key = (tuple(prompt), count, tuple(unwanted))
        if key not in self._answers:
            ids, rows = list(prompt), []
            for _ in range(count):
                last = self.logits(ids)[-1]
                rows.append(torch.log_softmax(last, -1))
                last = last.clone()
                last[unwanted] += _BIAS
                ids.append(int(last.argmax()))
            self._answers[key] = Answer(tuple(ids[len(prompt) :]), torch.stack(rows))
        return self._answers[key]


def unspeakable(engine: LocalEngine) -> dict[int, float]:
    """A bias against tokens that are no text of their own (ends of turns, parts of characters), so that an answer
    has its full length and each token can be told by its text."""
    decode = engine.tokenizer.decode
    vocabulary = engine._runtime.vocabulary
    return {token: _BIAS for token in range(vocabulary) if not (text := decode([token])) or "\ufffd" in text}


def entries(reply: Reply) -> list[TokenLogprob]:
    return [entry for delta in reply.deltas for entry in delta.logprobs]


def assert_is(reply: Reply, answer: Answer, engine: LocalEngine, tolerance: float = TOLERANCE) -> None:
    """`reply`, asked for with `unspeakable` and 20 logprobs, is this answer: its tokens, and the numbers behind."""
    decode = engine.tokenizer.decode
    assert reply.text == decode(answer.tokens)
    assert reply.usage.completion_tokens == len(answer.tokens)
    found = entries(reply)
    assert [entry.token for entry in found] == [decode([token]) for token in answer.tokens]
    for entry, token, expected in zip(found, answer.tokens, answer.logprobs, strict=True):
        assert abs(entry.logprob - float(expected[token])) <= tolerance
        best = expected.topk(21)
        values = best.values.tolist()
        assert len(entry.top) == 20
        for index, (text, value) in enumerate(entry.top):
            assert abs(value - values[index]) <= tolerance
            apart = min(values[max(index - 1, 0)] - values[index] if index else 1.0, values[index] - values[index + 1])
            if apart > 2 * tolerance:
                assert text == decode([int(best.indices[index])])


def prompt(seed: int, length: int) -> list[int]:
    return [3 + (seed * 37 + index * 11 + index * index * seed) % 330 for index in range(length)]

"""Whether a passage answers a question, read together: the embedder's layers with low-rank changes of their own.

A cross-encoder (Nogueira & Cho, 2019) on the layers that are loaded anyway (LoRA; Hu et al., 2021), so it costs some
megabytes, and a forward pass for each pair: it is for the best few of a search. Every token of the passage has a score,
and the log odds are the logarithm of the sum of their exponents: one sentence that answers is enough, wherever it
stands. Learned by `python -m bench.embedder.train_reader`. Knows nothing of files, searches, or what the odds decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

SHIPPED: Final = Path(__file__).parent / "data" / "reader.safetensors"
MAX_TOKENS: Final = 256  # of question and passage; of a longer passage the beginning is read
QUESTION_TOKENS: Final = 100
_HEAD: Final = ("head.weight", "head.bias")


class _Switch:
    """Whether the layers compute as the reader's."""

    on = False


class _LowRank(nn.Module):
    """A linear layer, and what the reader adds to it: down [rank, in], up [out, rank]."""

    def __init__(self, layer: nn.Module, down: Tensor, up: Tensor, switch: _Switch) -> None:
        super().__init__()
        self._layer, self._down, self._up, self._switch = layer, down, up, switch

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._layer(x)
        return y + x @ self._down.T @ self._up.T if self._switch.on else y


class PassageReader:
    """`layers` are an encoder's, whose linear layers it wraps; `tensors` what was learned. Not safe to call from two
    threads, nor while the layers compute vectors."""

    def __init__(self, layers: nn.Module, tokenizer: Any, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self._layers, self._tokenizer, self._device = layers, tokenizer, device
        self._switch = _Switch()
        self._weight, self._bias = (tensors[name].to(device, torch.float32) for name in _HEAD)
        for name in sorted({key.rpartition(".")[0] for key in tensors if key not in _HEAD}):
            down, up = (tensors[f"{name}.{side}"].to(device, torch.float32) for side in ("a", "b"))
            parent, _, child = name.rpartition(".")
            module = layers.get_submodule(parent)
            setattr(module, child, _LowRank(getattr(module, child), down, up, self._switch))

    def encode(self, question: str, passages: Sequence[str]) -> dict[str, Tensor]:
        """Tokens of each pair, and their mask: [passages, tokens]."""
        asked = f"query: {question}"
        within = self._tokenizer(
            asked, truncation=True, max_length=QUESTION_TOKENS, add_special_tokens=False, return_offsets_mapping=True
        )
        asked = asked[: within["offset_mapping"][-1][1]]
        return dict(
            self._tokenizer(
                [asked] * len(passages),
                [f"passage: {passage}" for passage in passages],
                padding=True,
                truncation="only_second",
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
        )

    @torch.inference_mode()
    def log_odds(self, encoded: Mapping[str, Tensor]) -> Tensor:
        """[passages], float32, of what `encode` gave."""
        return self.scores(encoded).cpu()

    def scores(self, encoded: Mapping[str, Tensor]) -> Tensor:
        """The same where the layers are, with gradients."""
        ids, mask = encoded["input_ids"].to(self._device), encoded["attention_mask"].to(self._device)
        with self._switched_on():
            hidden = self._layers(input_ids=ids, attention_mask=mask).last_hidden_state
        scores = (hidden.float() @ self._weight.T + self._bias)[..., 0]
        ends = ids == self._tokenizer.sep_token_id
        inside = (ends.cumsum(1) >= 2) & ~ends & mask.bool()
        return torch.logsumexp(scores.masked_fill(~inside, -1e4), 1)

    @contextmanager
    def _switched_on(self) -> Iterator[None]:
        self._switch.on = True
        try:
            yield
        finally:
            self._switch.on = False


def shipped_reader(weights: str, model: SentenceTransformer, path: Path = SHIPPED) -> PassageReader | None:
    """Of the model with this digest of its weights; None where what ships was learned for another."""
    if not path.is_file():
        return None
    with safe_open(str(path), framework="pt") as file:
        if (file.metadata() or {}).get("weights") != weights:
            return None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return PassageReader(model[0].auto_model, model.tokenizer, tensors, model.device)

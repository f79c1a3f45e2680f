"""One step of the model for a batch of rows, in the best way the architecture allows.

`PackedForward` computes all rows in one pass; `SingleForward` one row a pass with the model's own cache.
`choose_path` tries the first against the model's plain forward and takes it only if the logits agree.
Knows nothing of sampling, text or queues. Runs on the model thread alone.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from server.engine.attention import NAME, PackedRow, packed
from server.engine.kv import RowKV
from server.engine.lora_layers import LoraLayers, LoraWeights, Segment

log = logging.getLogger("tailor.engine")

# What a model's own code raises when a way of calling it does not fit.
_MISFITS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, NotImplementedError, AssertionError)


@dataclass(frozen=True)
class Part:
    """Some tokens of one row that go through the model in this step; `wanted`: the logits after the last."""

    tokens: Sequence[int]
    cache: Any
    weights: LoraWeights | None
    wanted: bool


class ForwardPath(Protocol):
    """`chunked`: a prompt may come in several parts."""

    chunked: bool

    def new_cache(self, capacity: int) -> Any: ...

    def run(self, parts: Sequence[Part]) -> Tensor:
        """Logits of the wanted parts in order, [wanted, vocabulary]. Parts of one adapter stand side by side."""


@dataclass(frozen=True)
class ChosenPath:
    path: ForwardPath
    reason: str
    bytes_per_token: int


class PackedForward:
    """All rows in one [1, tokens] pass with attention of our own."""

    chunked = True

    def __init__(self, model: Any, layers: LoraLayers) -> None:
        self._model = model
        self._layers = layers
        self._device = model.device
        self._selects = "logits_to_keep" in inspect.signature(model.forward).parameters

    def new_cache(self, capacity: int) -> RowKV:
        return RowKV(capacity)

    def run(self, parts: Sequence[Part]) -> Tensor:
        tokens: list[int] = []
        positions: list[int] = []
        rows: list[PackedRow] = []
        wanted: list[int] = []
        for part in parts:
            begin = len(tokens)
            tokens += part.tokens
            positions += range(part.cache.length, part.cache.length + len(part.tokens))
            rows.append(PackedRow(begin, len(tokens), part.cache))
            if part.wanted:
                wanted.append(len(tokens) - 1)
        segments = _segments((row.end - row.begin, part.weights) for row, part in zip(rows, parts, strict=True))
        asked = wanted or [len(tokens) - 1]  # an empty selection would mean every token to the model
        outputs = _segments((1, part.weights) for part in parts if part.wanted)
        with packed(rows), self._layers.applied(segments, outputs if wanted else ()):
            logits = self._logits(tokens, positions, asked)
        for part in parts:
            part.cache.commit(len(part.tokens))
        return logits if wanted else logits[:0]

    def _logits(self, tokens: list[int], positions: list[int], asked: list[int]) -> Tensor:
        def ids(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=self._device)

        selection = {"logits_to_keep": ids(asked)} if self._selects else {}
        output = self._model(
            input_ids=ids(tokens)[None], position_ids=ids(positions)[None], use_cache=False, **selection
        )
        logits: Tensor = output.logits[0]
        return logits if self._selects else logits[ids(asked)]


def _segments(counts: Iterable[tuple[int, LoraWeights | None]]) -> list[Segment]:
    """Neighbours with the same adapter become one segment; rows of the base model none."""
    segments: list[Segment] = []
    place = 0
    for count, weights in counts:
        if weights is not None:
            if segments and segments[-1].weights is weights and segments[-1].end == place:
                segments[-1] = Segment(segments[-1].begin, place + count, weights)
            else:
                segments.append(Segment(place, place + count, weights))
        place += count
    return segments


@dataclass
class OwnCache:
    """The model's own cache of one row; `tokens` is kept where it has none and all is computed again."""

    state: Any = None
    tokens: tuple[int, ...] = ()
    length: int = 0


class SingleForward:
    """One row a pass, for architectures that cannot be packed: correct, and as slow as it sounds."""

    def __init__(self, model: Any, layers: LoraLayers, *, chunked: bool, caches: bool) -> None:
        self.chunked = chunked
        self._caches = caches
        self._model = model
        self._layers = layers
        selects = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._selection = {"logits_to_keep": 1} if selects else {}

    def new_cache(self, capacity: int) -> OwnCache:
        return OwnCache()

    def run(self, parts: Sequence[Part]) -> Tensor:
        rows = [logits for part in parts if (logits := self._one(part)) is not None]
        if not rows:
            return torch.empty(0, 0)
        return torch.stack(rows)

    def _one(self, part: Part) -> Tensor | None:
        cache: OwnCache = part.cache
        cache.tokens += tuple(part.tokens)
        cache.length += len(part.tokens)
        if not self._caches and not part.wanted:
            return None
        tokens = part.tokens if self._caches else cache.tokens
        segments = _segments([(len(tokens), part.weights)])
        ids = torch.tensor([list(tokens)], dtype=torch.long, device=self._model.device)
        state = {"past_key_values": cache.state, "use_cache": True} if self._caches else {"use_cache": False}
        with self._layers.applied(segments, segments):
            output = self._model(input_ids=ids, **state, **self._selection)
        if self._caches:
            cache.state = output.past_key_values
        logits: Tensor = output.logits[0, -1]
        return logits if part.wanted else None


# ── the choice ───────────────────────────────────────────────────────────────────────────────────


@torch.inference_mode()
def choose_path(model: Any, layers: LoraLayers, kv_bytes_guess: int) -> ChosenPath:
    """The fastest way of running `model` whose logits equal its plain forward's. `kv_bytes_guess` is
    what a token costs where it cannot be measured."""
    texts = _sample_texts(int(model.get_input_embeddings().weight.shape[0]))
    plain = [model(input_ids=torch.tensor([text], device=model.device), use_cache=False).logits[0].float()
             for text in texts]
    original = model.config._attn_implementation
    problem = _pack(model)
    if not problem:
        path = PackedForward(model, layers)
        problem, caches = _try(path, texts, plain, model.dtype)
        if not problem:
            reason = "packed: all rows in one pass, checked against the model's plain forward"
            return ChosenPath(path, reason, caches[0].bytes_per_token())
        model.set_attn_implementation(original)
    log.warning("packed attention does not fit this model: %s", problem)
    for chunked, caches_ in ((True, True), (False, True), (False, False)):
        single = SingleForward(model, layers, chunked=chunked, caches=caches_)
        why, _ = _try(single, texts, plain, model.dtype)
        if not why:
            how = "with its own cache" if caches_ else "without a cache, each token anew"
            return ChosenPath(single, f"one row a pass, {how}: {problem}", kv_bytes_guess)
        problem = f"{problem}; {why}"
    raise NotImplementedError(problem)


def _pack(model: Any) -> str:
    """Switches the model to packed attention; the reason where that cannot be."""
    if getattr(model.config.get_text_config(), "attention_chunk_size", None):
        return "it attends in chunks"
    try:
        model.set_attn_implementation(NAME)
    except _MISFITS as error:
        return f"its attention cannot be replaced ({error})"
    return "" if model.config._attn_implementation == NAME else "its attention cannot be replaced"


def _sample_texts(vocabulary: int) -> list[list[int]]:
    """Two texts of different lengths, spread over the vocabulary."""
    return [[(place * 7919 + 13) % vocabulary for place in range(first, first + length)]
            for first, length in ((1, 21), (400, 13))]


def _try(
    path: ForwardPath, texts: list[list[int]], plain: list[Tensor], plain_type: torch.dtype
) -> tuple[str, list[Any]]:
    """Runs both texts side by side in uneven parts; '' or how the logits differ."""
    caches = [path.new_cache(len(text)) for text in texts]
    cuts = [(0, 9, 17, 18, 19, 21), (0, 5, 10, 11, 12, 13)] if path.chunked else [(0, 19, 20, 21), (0, 11, 12, 13)]
    tolerance = 1e-3 if plain_type == torch.float32 else 5e-2  # of the largest logit; a wrong mask costs far more
    try:
        for step in range(len(cuts[0]) - 1):
            parts = [
                Part(text[cut[step]:cut[step + 1]], cache, None, True)
                for text, cut, cache in zip(texts, cuts, caches, strict=True)
            ]
            logits = path.run(parts).float()
            for row, cut in enumerate(cuts):
                expected = plain[row][cut[step + 1] - 1]
                error = float((logits[row] - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
                if not error <= tolerance:
                    return f"its logits differ by {error:.1%} in step {step + 1}", caches
    except _MISFITS as error:
        return f"it fails ({type(error).__name__}: {error})", caches
    return "", caches

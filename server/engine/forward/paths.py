"""One step of the model for a batch of rows, in the best way the architecture allows.

`DecoderForward` is our own decoder, `PackedForward` transformers' with our attention, both all rows in one pass;
`SingleForward` is one row a pass with the model's own cache. `choose_path` takes the first whose logits equal the
model's plain forward. Knows nothing of sampling, text or queues. Runs on the model thread alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from server.engine.adapters.lora_layers import LoraBank, LoraGroup, Work, linear_layers
from server.engine.cache.kv import KVArena, KVShape
from server.engine.forward.attention import NAME, AttentionStep, Span, serving
from server.engine.forward.chunk import Part
from server.engine.forward.decoder import Decoder, group_names, misfit
from server.engine.forward.graphs import DecodeGraphs, Recorder, cuda_recorder
from server.engine.forward.linears import LinearChoice

_QUANTIZED = 0.3  # how far int8 logits may be from exact ones, of the largest

# What a model's forward and its output call its cache: since transformers 5.24, and before.
_CACHE_NAMES = ("cache", "past_key_values", "cache_params")

# What a model's own code raises when a way of calling it does not fit.
_MISFITS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, NotImplementedError, AssertionError)


class ForwardPath(Protocol):
    """`chunked`: a prompt may come in several parts. `arena`: where keys and values are, if they are ours."""

    chunked: bool
    bank: LoraBank

    @property
    def arena(self) -> KVArena | None: ...

    def run(self, parts: Sequence[Part]) -> Tensor:
        """Logits of the wanted parts in order, [wanted, vocabulary]. Parts of one adapter stand side by side, in
        rising order of its place; those of the base first."""

    def forget(self, place: int) -> None:
        """The row at that place has ended."""


class DecoderForward:
    """`record`: how steps of one token a row are recorded to be replayed; None: they are not."""

    chunked = True

    def __init__(
        self, model: Any, linear: LinearChoice, layers: Mapping[str, tuple[int, int]], places: int,
        record: Recorder | None = None,
    ) -> None:
        like = model.get_input_embeddings().weight
        self.bank = LoraBank(group_names(layers), layers, places, like)
        self._decoder = Decoder(model, linear.make, self.bank)
        self.arena = KVArena(self._decoder.shape)
        self._graphs = DecodeGraphs(self._decoder, self.arena, self.bank, record) if record is not None else None

    def forget(self, place: int) -> None: ...

    def run(self, parts: Sequence[Part]) -> Tensor:
        if self._graphs is not None and all(part.wanted and len(part.tokens) == 1 for part in parts):
            return self._graphs.run(parts)
        packed = _pack(parts, self.arena, self.bank)
        return self._decoder.run(packed.tokens, packed.attention, packed.lots, packed.asked, packed.asked_lots)


@dataclass(frozen=True)
class _Packed:
    tokens: Tensor
    attention: AttentionStep
    lots: list[Work]
    asked: Tensor
    asked_lots: list[Work]


def _pack(parts: Sequence[Part], arena: KVArena, bank: LoraBank) -> _Packed:
    device = arena.shape.device
    tokens: list[int] = []
    spans: list[Span] = []
    asked: list[int] = []
    for part in parts:
        begin = len(tokens)
        tokens += part.tokens
        spans.append(Span(begin, len(tokens), part.place, part.length))
        if part.wanted:
            asked.append(len(tokens) - 1)
    return _Packed(
        torch.tensor(tokens, device=device),
        AttentionStep(arena, spans),
        bank.lots([(part.lora, len(part.tokens)) for part in parts]),
        torch.tensor(asked, dtype=torch.long, device=device),
        bank.lots([(part.lora, 1) for part in parts if part.wanted]),
    )


class LoraHooks:
    """Adapters for models that transformers runs: a hook on each linear layer."""

    def __init__(self, model: Any, layers: Mapping[str, tuple[int, int]], places: int) -> None:
        self.bank = LoraBank([(name,) for name in layers], layers, places, model.get_input_embeddings().weight)
        self._lots: Sequence[Work] = ()
        self._asked: Sequence[Work] = ()
        output = model.get_output_embeddings()
        for name, module in model.named_modules():
            if name in layers:
                group = self.bank.group(name)
                if isinstance(module, torch.nn.Linear):
                    group.attach(partial(getattr, module, "weight"), module.bias)
                module.register_forward_hook(self._hook(group, module is output))

    @contextmanager
    def applied(self, lots: Sequence[Work], asked: Sequence[Work]) -> Iterator[None]:
        """During one forward; `asked` is for the output layer, which sees only the tokens asked for."""
        self._lots, self._asked = lots, asked
        try:
            yield
        finally:
            self._lots = self._asked = ()

    def _hook(self, group: LoraGroup, output: bool) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
        def add(module: Any, inputs: tuple[Tensor, ...], y: Tensor) -> None:
            lots = self._asked if output else self._lots
            if lots:
                x = inputs[0]
                group.add(x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1]), lots)

        return add


class PackedForward:
    """All rows in one [1, tokens] pass of transformers' model, with attention of our own."""

    chunked = True

    def __init__(self, model: Any, hooks: LoraHooks) -> None:
        """Raises NotImplementedError where the model's keys and values are not alike in all layers."""
        self._model = model
        self._hooks = hooks
        self.bank = hooks.bank
        self._selects = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.arena = KVArena(_probe(model))

    def forget(self, place: int) -> None: ...

    def run(self, parts: Sequence[Part]) -> Tensor:
        packed = _pack(parts, self.arena, self.bank)
        # an empty selection would mean every token to the model
        asked = packed.asked if len(packed.asked) else torch.zeros_like(packed.tokens[:1])
        selection = {"logits_to_keep": asked} if self._selects else {}
        with serving(packed.attention), self._hooks.applied(
            packed.lots, packed.asked_lots if self._selects else packed.lots
        ):
            output = self._model(input_ids=packed.tokens[None], position_ids=packed.attention.positions[None],
                                 use_cache=False, **selection)
        logits: Tensor = output.logits[0]
        if not self._selects:
            return logits[packed.asked]
        return logits[:len(packed.asked)]


class _Probe:
    """Stands in for a step of attention and notes each layer's keys and values."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, int, int]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
        self.seen[layer] = (k.shape[1], k.shape[2], v.shape[2])
        return v.new_zeros(q.shape[0], q.shape[1], v.shape[2])


def _probe(model: Any) -> KVShape:
    probe = _Probe()
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with serving(probe):
        model(input_ids=ids, position_ids=ids, use_cache=False)
    if sorted(probe.seen) != list(range(len(probe.seen))) or len(set(probe.seen.values())) != 1:
        raise NotImplementedError("keys and values differ between its layers")
    return KVShape(len(probe.seen), *probe.seen[0], model.dtype, model.device)


@dataclass
class OwnCache:
    """The model's own cache of one row; `tokens` is kept where it has none and all is computed again."""

    state: Any = None
    tokens: tuple[int, ...] = ()


class SingleForward:
    """One row a pass, for architectures that cannot be packed: correct, and as slow as it sounds."""

    arena: KVArena | None = None

    def __init__(self, model: Any, hooks: LoraHooks, *, chunked: bool, caches: bool) -> None:
        self.chunked = chunked
        self.bank = hooks.bank
        self._hooks = hooks
        self._caches = caches
        self._model = model
        self._rows: dict[int, OwnCache] = {}
        parameters = inspect.signature(model.forward).parameters
        self._selection = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._cache_name = next((name for name in _CACHE_NAMES if name in parameters), _CACHE_NAMES[0])

    def run(self, parts: Sequence[Part]) -> Tensor:
        rows = [logits for part in parts if (logits := self._one(part)) is not None]
        return torch.stack(rows) if rows else torch.empty(0, 0)

    def forget(self, place: int) -> None:
        self._rows.pop(place, None)

    def _one(self, part: Part) -> Tensor | None:
        if part.length == 0:
            self._rows[part.place] = OwnCache()
        cache = self._rows[part.place]
        cache.tokens += tuple(part.tokens)
        if not self._caches and not part.wanted:
            return None
        tokens = part.tokens if self._caches else cache.tokens
        ids = torch.tensor([list(tokens)], dtype=torch.long, device=self._model.device)
        state = {self._cache_name: cache.state, "use_cache": True} if self._caches else {"use_cache": False}
        lots = self.bank.lots([(part.lora, len(tokens))])
        asked = self.bank.lots([(part.lora, 1)]) if self._selection else lots
        with self._hooks.applied(lots, asked):
            output = self._model(input_ids=ids, **state, **self._selection)
        if self._caches:
            cache.state = getattr(output, self._cache_name)
        logits: Tensor = output.logits[0, -1]
        return logits if part.wanted else None


# ── the choice ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ChosenPath:
    path: ForwardPath
    reason: str


@torch.inference_mode()
def choose_path(model: Any, load: Callable[[], Any], linear: LinearChoice, places: int) -> ChosenPath:
    """The fastest way of running `model` whose logits equal its plain forward's. `load` loads it anew, for
    when a try has taken it apart; `places`: adapters at once."""
    texts = _sample_texts(int(model.get_input_embeddings().weight.shape[0]))
    plain = [model(input_ids=torch.tensor([text], device=model.device), use_cache=False).logits[0].float()
             for text in texts]
    layers = linear_layers(model)
    rounding = 1e-4 if model.dtype == torch.float32 else 5e-2  # of the largest logit; a wrong mask costs far more
    problem = misfit(model)
    records: list[tuple[Recorder | None, str]] = [(None, "")]
    if model.device.type == "cuda":
        records.insert(0, (cuda_recorder, ", steps replayed as CUDA graphs"))
    for record, how in records if not problem else ():
        decoder = DecoderForward(model, linear, layers, places, record)
        problem = _try(decoder, texts, plain, rounding if linear.exact else _QUANTIZED)
        if not problem:
            return ChosenPath(decoder, f"our own decoder, {linear.reason}{how}")
        model = load()
    original = model.config._attn_implementation
    hooks = LoraHooks(model, layers, places)
    unpacked = _switch(model)
    if not unpacked:
        try:
            packed = PackedForward(model, hooks)
        except _MISFITS as error:
            unpacked = str(error)
        else:
            unpacked = _try(packed, texts, plain, rounding)
            if not unpacked:
                return ChosenPath(packed, f"transformers' layers, all rows in one pass ({problem}; slower)")
        model.set_attn_implementation(original)
    problem = f"{problem}; {unpacked}"
    for chunked, caches in ((True, True), (False, True), (False, False)):
        single = SingleForward(model, hooks, chunked=chunked, caches=caches)
        why = _try(single, texts, plain, rounding)
        if not why:
            how = "with its own cache" if caches else "without a cache, each token anew"
            return ChosenPath(single, f"transformers' layers, one row a pass, {how} ({problem}; slow)")
        problem = f"{problem}; {why}"
    raise NotImplementedError(problem)


def _switch(model: Any) -> str:
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


def _try(path: ForwardPath, texts: list[list[int]], plain: list[Tensor], tolerance: float) -> str:
    """Runs both texts side by side in uneven parts; '' or how the logits differ by more than `tolerance`
    of the largest."""
    cuts = [(0, 9, 17, 18, 19, 21), (0, 5, 10, 11, 12, 13)] if path.chunked else [(0, 19, 20, 21), (0, 11, 12, 13)]
    try:
        if path.arena is not None:
            path.arena.fit(len(texts) + 1, 64, {})
        for step in range(len(cuts[0]) - 1):
            parts = [Part(text[cut[step]:cut[step + 1]], place, cut[step])
                     for place, (text, cut) in enumerate(zip(texts, cuts, strict=True))]
            logits = path.run(parts).float()
            for row, cut in enumerate(cuts):
                expected = plain[row][cut[step + 1] - 1]
                error = float((logits[row] - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
                if not error <= tolerance:
                    return f"its logits differ by {error:.2%} in step {step + 1}"
    except _MISFITS as error:
        return f"it fails ({type(error).__name__}: {error})"
    finally:
        for place in range(len(texts)):
            path.forget(place)
    return ""

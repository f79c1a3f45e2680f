"""One step of the model for a batch of rows, in the best way the architecture allows.

`DecoderForward` is our own decoder, `PackedForward` transformers' with our attention, both all rows in one pass;
`SingleForward` is one row a pass with the model's own cache. `choice.py` takes the first that is right. Knows nothing
of sampling, text or queues. Runs on the model thread alone.
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

from server.engine.adapters.lora_layers import LoraBank, LoraGroup
from server.engine.adapters.segments import LoraPlan
from server.engine.cache.kv import KVArena, KVShape
from server.engine.cache.pages import PAGE_SIZE, KVPages
from server.engine.forward.attention import AttentionStep, Span, active_step
from server.engine.forward.chunk import RowChunk
from server.engine.forward.decoder import Decoder, group_names
from server.engine.forward.graphs import DecodeGraphs, GraphCapture
from server.engine.forward.linears import LinearChoice
from server.engine.forward.paged_attention import PagedStep, RowTables, unsupported_by_flash

CPU = torch.device("cpu")

# What a model's forward and its output call its cache: since transformers 5.24, and before.
_CACHE_NAMES = ("cache", "past_key_values", "cache_params")


class ForwardPath(Protocol):
    """`chunked`: a prompt may come in several chunks. `kv`: where keys and values are, if they are ours."""

    chunked: bool
    bank: LoraBank

    @property
    def kv(self) -> KVArena | KVPages | None: ...

    def run(self, chunks: Sequence[RowChunk]) -> Tensor:
        """Logits of the chunks that need them in order, [such chunks, vocabulary]. Chunks of one adapter are
        neighbours, in rising order of its stack index; those of the base come first."""

    def release(self, kv_slot: int) -> None:
        """The row in that slot has ended."""


class DecoderForward:
    """`device` says how memory is laid out: None on a processor. Steps of one token a row are captured and replayed
    there where it captures."""

    chunked = True

    def __init__(
        self,
        model: Any,
        linear: LinearChoice,
        layers: Mapping[str, tuple[int, int]],
        max_loras: int,
        device: DeviceLayout | None = None,
    ) -> None:
        like = model.get_input_embeddings().weight
        if device is not None:
            like = like[:0].to(device.device)
        self.bank = LoraBank(group_names(layers), layers, max_loras, like, device.lora_rank if device else 0)
        self._decoder = Decoder(model, linear, self.bank)
        self.kv: KVArena | KVPages = (
            KVPages(self._decoder.shape, device.page_size) if device else KVArena(self._decoder.shape)
        )
        self._flash = not flash_problem(self.kv)
        self._graphs: DecodeGraphs | None = None
        if device is not None and device.capture is not None and isinstance(self.kv, KVPages):
            self._graphs = DecodeGraphs(self._decoder, self.kv, self.bank, device.capture, flash=self._flash)

    @property
    def captures(self) -> bool:
        return self._graphs is not None

    @property
    def capture_failure(self) -> str:
        """Why a step could not be captured; '' where all could."""
        return self._graphs.failure if self._graphs is not None else ""

    def stop_capturing(self) -> None:
        self._graphs = None

    def capture_anew(self) -> None:
        """Forgets what was captured, and what could not be."""
        if self._graphs is not None:
            self._graphs.clear()

    def record(self, max_rows: int) -> None:
        """Captures the steps of up to so many rows now, rather than when the first of them comes."""
        if self._graphs is not None:
            self._graphs.record(max_rows)

    def release(self, kv_slot: int) -> None: ...

    def run(self, chunks: Sequence[RowChunk]) -> Tensor:
        if self._graphs is None:
            return self._compute(chunks)
        replayed = [number for number, chunk in enumerate(chunks) if len(chunk.tokens) == 1 and chunk.needs_logits]
        logits = self._graphs.run([chunks[number] for number in replayed]) if replayed else None
        if logits is None:
            return self._compute(chunks)
        if len(replayed) == len(chunks):
            return logits
        known = set(replayed)
        others = [number for number in range(len(chunks)) if number not in known]
        rest = self._compute([chunks[number] for number in others])
        others = [number for number in others if chunks[number].needs_logits]
        order = sorted(range(len(replayed) + len(others)), key=[*replayed, *others].__getitem__)
        return torch.cat((logits, rest))[torch.tensor(order, device=logits.device)]

    def _compute(self, chunks: Sequence[RowChunk]) -> Tensor:
        packed = _pack(chunks, self.kv, self.bank, flash=self._flash)
        return self._decoder.run(
            packed.tokens, packed.attention, packed.lora_plan, packed.logits_indices, packed.logits_lora_plan
        )


@dataclass(frozen=True)
class DeviceLayout:
    """How memory is laid out on a device: keys and values in pages, stacks of adapters of one rank that never move.
    `capture`: how steps are captured; None: they are not."""

    lora_rank: int
    capture: GraphCapture | None = None
    page_size: int = PAGE_SIZE
    device: torch.device = CPU


def flash_problem(kv: KVArena | KVPages) -> str:
    """Why FlashAttention cannot read them; '' where it can."""
    shape = kv.shape
    return unsupported_by_flash(shape.key_dim, shape.value_dim, shape.dtype, shape.device)


@dataclass(frozen=True)
class _PackedBatch:
    tokens: Tensor
    attention: AttentionStep | PagedStep
    lora_plan: LoraPlan
    logits_indices: Tensor
    logits_lora_plan: LoraPlan


def _pack(chunks: Sequence[RowChunk], kv: KVArena | KVPages, bank: LoraBank, *, flash: bool) -> _PackedBatch:
    device = kv.shape.device
    tokens: list[int] = []
    spans: list[Span] = []
    logits_indices: list[int] = []
    for chunk in chunks:
        begin = len(tokens)
        tokens += chunk.tokens
        spans.append(Span(begin, len(tokens), chunk.kv_slot, chunk.computed))
        if chunk.needs_logits:
            logits_indices.append(len(tokens) - 1)
    attention: AttentionStep | PagedStep
    if isinstance(kv, KVPages):
        attention = PagedStep(kv, RowTables.of(chunks, kv), flash=flash)
    else:
        attention = AttentionStep.from_spans(kv, spans)
    return _PackedBatch(
        torch.tensor(tokens, device=device),
        attention,
        bank.plan([(chunk.stack_index, len(chunk.tokens)) for chunk in chunks]),
        torch.tensor(logits_indices, dtype=torch.long, device=device),
        bank.plan([(chunk.stack_index, 1) for chunk in chunks if chunk.needs_logits]),
    )


class LoraHooks:
    """Adapters for models that transformers runs: a hook on each linear layer."""

    def __init__(
        self, model: Any, layers: Mapping[str, tuple[int, int]], max_loras: int, device: DeviceLayout | None = None
    ) -> None:
        self.device = device
        like, rank = model.get_input_embeddings().weight, device.lora_rank if device else 0
        self.bank = LoraBank([(name,) for name in layers], layers, max_loras, like, rank)
        self._lora_plan: LoraPlan = ()
        self._logits_lora_plan: LoraPlan = ()
        output = model.get_output_embeddings()
        for name, module in model.named_modules():
            if name in layers:
                group = self.bank.group(name)
                if isinstance(module, torch.nn.Linear):
                    group.attach(partial(getattr, module, "weight"), module.bias)
                module.register_forward_hook(self._hook(group, module is output))

    @contextmanager
    def applied(self, lora_plan: LoraPlan, logits_lora_plan: LoraPlan) -> Iterator[None]:
        """During one forward; the output layer, which sees only tokens whose logits are needed, has its own plan."""
        self._lora_plan, self._logits_lora_plan = lora_plan, logits_lora_plan
        try:
            yield
        finally:
            self._lora_plan = self._logits_lora_plan = ()

    def _hook(self, group: LoraGroup, output: bool) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
        def add(module: Any, inputs: tuple[Tensor, ...], y: Tensor) -> None:
            lora_plan = self._logits_lora_plan if output else self._lora_plan
            if lora_plan:
                x = inputs[0]
                group.add(x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1]), lora_plan)

        return add


class PackedForward:
    """All rows in one [1, tokens] pass of transformers' model, with attention of our own."""

    chunked = True

    def __init__(self, model: Any, hooks: LoraHooks) -> None:
        """Raises NotImplementedError where the model's keys and values are not alike in all layers."""
        self._model = model
        self._hooks = hooks
        self.bank = hooks.bank
        self._selects_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        shape = _probe_kv_shape(model)
        self.kv: KVArena | KVPages = KVPages(shape, hooks.device.page_size) if hooks.device else KVArena(shape)
        self._flash = not flash_problem(self.kv)

    def release(self, kv_slot: int) -> None: ...

    def run(self, chunks: Sequence[RowChunk]) -> Tensor:
        packed = _pack(chunks, self.kv, self.bank, flash=self._flash)
        # an empty selection would mean every token to the model
        logits_indices = packed.logits_indices if len(packed.logits_indices) else torch.zeros_like(packed.tokens[:1])
        selection = {"logits_to_keep": logits_indices} if self._selects_logits else {}
        with (
            active_step(packed.attention),
            self._hooks.applied(
                packed.lora_plan, packed.logits_lora_plan if self._selects_logits else packed.lora_plan
            ),
        ):
            output = self._model(
                input_ids=packed.tokens[None],
                position_ids=packed.attention.positions[None],
                use_cache=False,
                **selection,
            )
        logits: Tensor = output.logits[0]
        if not self._selects_logits:
            return logits[packed.logits_indices]
        return logits[: len(packed.logits_indices)]


class _Probe:
    """Stands in for a step of attention and notes each layer's keys and values."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, int, int]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
        self.seen[layer] = (k.shape[1], k.shape[2], v.shape[2])
        return v.new_zeros(q.shape[0], q.shape[1], v.shape[2])


def _probe_kv_shape(model: Any) -> KVShape:
    probe = _Probe()
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with active_step(probe):
        model(input_ids=ids, position_ids=ids, use_cache=False)
    if sorted(probe.seen) != list(range(len(probe.seen))) or len(set(probe.seen.values())) != 1:
        raise NotImplementedError("keys and values differ between its layers")
    return KVShape(len(probe.seen), *probe.seen[0], model.dtype, model.device)


@dataclass
class ModelCache:
    """The model's own cache of one row; `tokens` is kept where it has none and all is computed again."""

    state: Any = None
    tokens: tuple[int, ...] = ()


class SingleForward:
    """One row a pass, for architectures that cannot be packed: correct, and as slow as it sounds."""

    kv: KVArena | KVPages | None = None

    def __init__(self, model: Any, hooks: LoraHooks, *, chunked: bool, use_cache: bool) -> None:
        self.chunked = chunked
        self.bank = hooks.bank
        self._hooks = hooks
        self._use_cache = use_cache
        self._model = model
        self._rows: dict[int, ModelCache] = {}
        parameters = inspect.signature(model.forward).parameters
        self._selection = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._cache_name = next((name for name in _CACHE_NAMES if name in parameters), _CACHE_NAMES[0])

    def run(self, chunks: Sequence[RowChunk]) -> Tensor:
        rows = [logits for chunk in chunks if (logits := self._run_row(chunk)) is not None]
        return torch.stack(rows) if rows else torch.empty(0, 0)

    def release(self, kv_slot: int) -> None:
        self._rows.pop(kv_slot, None)

    def _run_row(self, chunk: RowChunk) -> Tensor | None:
        if chunk.computed == 0:
            self._rows[chunk.kv_slot] = ModelCache()
        cache = self._rows[chunk.kv_slot]
        cache.tokens += tuple(chunk.tokens)
        if not self._use_cache and not chunk.needs_logits:
            return None
        tokens = chunk.tokens if self._use_cache else cache.tokens
        ids = torch.tensor([list(tokens)], dtype=torch.long, device=self._model.device)
        state = {self._cache_name: cache.state, "use_cache": True} if self._use_cache else {"use_cache": False}
        lora_plan = self.bank.plan([(chunk.stack_index, len(tokens))])
        logits_lora_plan = self.bank.plan([(chunk.stack_index, 1)]) if self._selection else lora_plan
        with self._hooks.applied(lora_plan, logits_lora_plan):
            output = self._model(input_ids=ids, **state, **self._selection)
        if self._use_cache:
            cache.state = getattr(output, self._cache_name)
        logits: Tensor = output.logits[0, -1]
        return logits if chunk.needs_logits else None

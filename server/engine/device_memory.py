"""What a card's memory goes to, planned before a weight is read: weights, adapters, what a step and its captured forms
need, a margin; all the rest is one pool of pages for keys, values and kept prompts.

From the model's configuration alone, so that what does not fit is refused at once, with what would. Bytes throughout.
Knows nothing of devices, rows or queues.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from server.config import EngineSettings, Quantize
from server.engine.adapters.lora_layers import linear_layers, stack_rank
from server.engine.cache.pages import PAGE_SIZE
from server.engine.forward.decoder import group_names, unsupported_reason
from server.engine.forward.graphs import row_counts
from server.engine.forward.int4 import GROUP
from server.errors import ModelError

MIB, GIB = 1024**2, 1024**3

_LEAST_CONTEXT = 4096  # tokens of one chat for which there must be room, where the model takes so many
_WORKSPACES = 3 * 32 * MIB  # cuBLAS's on Hopper, for the streams of steps, of captures and of loads
_LOGIT_BYTES = 12  # sampling's: in float32, less their highest, over the temperature
_KERNELS = 21, 40  # of a captured step: a layer, and around the layers (tests/engine/forward/test_budgets.py)
_SPREAD = {"none": 0, "int8": 6, "int4": 7}  # bytes a weight at the most, of a layer that is spread out for a prompt
_SPREAD_ROWS = 96  # from about so many on the output layer would be, too
_NODE = 24 * 1024  # the driver's memory for a captured kernel; vLLM's captures of 8B models take 10 to 20 MB each
_MARGIN = 0.03  # of the card: what the allocator cannot use of its blocks
_LEAST_MARGIN = 512 * MIB


@dataclass(frozen=True)
class ModelShape:
    """What of a model takes memory. `groups`: (in, layers, out together) of linear layers that share an input;
    `linear`, `linear_outs`: weights and outputs of all linear layers; `others`: parameters that are never quantized;
    `shared`: those that the output layer shares with the embedding; `kv_numbers`: keys and values of a token;
    `packable`: our own decoder runs it, the only one that packs weights in 8 or 4 bits."""

    layers: int
    hidden: int
    vocabulary: int
    context_length: int
    kv_numbers: int
    groups: tuple[tuple[int, int, int], ...]
    linear: int
    linear_outs: int
    others: int
    shared: int
    packable: bool = True

    @property
    def parameters(self) -> int:
        return self.linear + self.others - self.shared


def measure_model(config: Any) -> ModelShape:
    """By its configuration, on a device that holds nothing. Raises ModelError for what is no causal language model."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, ImportError) as error:
        raise ModelError(f"a model of type {config.model_type} cannot be planned for: {error}") from error
    layers = linear_layers(model)
    packable = not unsupported_reason(model)
    grouped = group_names(layers) if packable else [(name,) for name in layers]
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None) or 1
    dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    linear = sum(inside * out for inside, out in layers.values())
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings().weight
    shared = embedding.numel() if output is not None and output.weight is embedding else 0
    total = sum(parameter.numel() for parameter in model.parameters())
    return ModelShape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=embedding.shape[0],
        context_length=int(getattr(text, "max_position_embeddings", 0) or 2048),
        kv_numbers=2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads) * dim,
        groups=tuple((layers[names[0]][0], len(names), sum(layers[name][1] for name in names)) for names in grouped),
        linear=linear,
        linear_outs=sum(out for _, out in layers.values()),
        others=total - linear + shared,
        shared=shared,
        packable=packable,
    )


@dataclass(frozen=True)
class MemoryPlan:
    """`available`: of the card, what may be used; `margin` and all before it are reserved, `pages` are the rest."""

    available: int
    weights: int
    adapters: int
    step: int
    graphs: int
    margin: int
    page_bytes: int
    pages: int
    context_length: int
    wanted_context: int
    max_loras: int
    rank: int
    max_batch: int
    numbers: str

    @property
    def reserved(self) -> int:
        return self.weights + self.adapters + self.step + self.graphs + self.margin

    @property
    def tokens(self) -> int:
        """That the pool holds; one page is spare."""
        return max(0, self.pages - 1) * PAGE_SIZE

    def chats(self, tokens: int) -> int:
        """How many of that length fit at once."""
        return max(0, self.pages - 1) // math.ceil(tokens / PAGE_SIZE)

    def lines(self) -> list[str]:
        cut = f", cut from {self.wanted_context:,}" if self.context_length < self.wanted_context else ""
        lengths = sorted({min(2000, self.context_length), self.context_length})
        chats = " or ".join(f"{self.chats(length):,} × {length:,}" for length in lengths)
        return [
            f"weights: {_gib(self.weights)} in {self.numbers}, of {_gib(self.available)} that may be used",
            f"adapters: {_gib(self.adapters)} for {self.max_loras} of rank {self.rank}",
            f"steps: {_gib(self.step)}, {_gib(self.graphs)} for captured ones of up to {self.max_batch} rows, "
            f"{_gib(self.margin)} of margin",
            f"keys, values and kept prompts: {_gib(self.pages * self.page_bytes)}, {self.tokens:,} tokens: chats at "
            f"once, {chats} tokens (context {self.context_length:,}{cut})",
        ]


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


@dataclass(frozen=True)
class Wanted:
    """What is to run, and where. `context_length` 0: as the model was made, or what fits."""

    shape: ModelShape
    settings: EngineSettings
    dtype: torch.dtype
    quantize: Quantize
    context_length: int
    free: int
    total: int


def plan_memory(wanted: Wanted) -> MemoryPlan:
    """Raises ModelError, which says what would fit."""
    plan = _plan(wanted)
    if _fits(wanted, plan):
        return plan
    least = _least_context(wanted)
    needed = plan.reserved + (1 + math.ceil(least / PAGE_SIZE)) * plan.page_bytes
    remedies = list(_remedies(wanted))
    raise ModelError(
        f"the model does not fit the card: {_gib(needed)} are needed for a chat of {least:,} tokens (weights "
        f"{_gib(plan.weights)} in {plan.numbers}, adapters {_gib(plan.adapters)}, steps "
        f"{_gib(plan.step + plan.graphs)}, margin {_gib(plan.margin)}), and {_gib(plan.available)} may be used "
        f"(engine.gpu_memory {wanted.settings.gpu_memory:g} of {_gib(wanted.total)}, of which {_gib(wanted.free)} are "
        f"free). " + (f"It would fit with {', or with '.join(remedies)}" if remedies else _largest(wanted))
    )


def plan_pool(wanted: Wanted, plan: MemoryPlan, free: int) -> MemoryPlan:
    """The plan once weights and adapters are there: the pool is what is `free` then, behind what is reserved for steps.
    Raises ModelError where they took so much more than planned that a chat does not fit any more."""
    left = _available(wanted, free) - plan.step - plan.graphs - plan.margin
    plan = replace(plan, pages=max(0, left // plan.page_bytes))
    if not _fits(wanted, plan):
        raise ModelError(
            f"weights and adapters left {_gib(free)} of the card, less than planned: the pool would hold "
            f"{plan.tokens:,} tokens, and a chat may have {_least_context(wanted):,}. Set a shorter "
            "model.context_length, fewer engine.max_loras, or --quantize"
        )
    return replace(plan, context_length=min(plan.context_length, plan.tokens))


def _available(wanted: Wanted, free: int) -> int:
    used = wanted.total - free
    return min(free, int(wanted.total * wanted.settings.gpu_memory) - used)


def _plan(wanted: Wanted) -> MemoryPlan:
    shape, settings, item = wanted.shape, wanted.settings, wanted.dtype.itemsize
    rank = stack_rank(settings.max_lora_rank)
    adapter = sum(inside * layers * rank + out * rank + out for inside, layers, out in shape.groups) * item
    token = _token_bytes(shape, rank, item)
    logits = settings.max_batch * shape.vocabulary
    step = (settings.prefill_tokens + settings.max_batch) * token + logits * (2 * item + _LOGIT_BYTES) + _WORKSPACES
    widths = shape.groups if settings.max_batch > _SPREAD_ROWS else shape.groups[:-1]
    quantize = _packed_as(wanted)
    step += _SPREAD[quantize] * max(inside * out for inside, _, out in widths)
    kernels = _KERNELS[0] * shape.layers + _KERNELS[1]
    captures = 2 * len(row_counts(settings.max_batch))  # with adapters and without
    graphs = settings.max_batch * token + captured_logits(shape, settings.max_batch, item) + captures * kernels * _NODE
    if settings.max_batch > _SPREAD_ROWS:  # within their own memory, which a step's does not lend to
        graphs += _SPREAD[quantize] * max(inside * out for inside, _, out in shape.groups)
    plan = MemoryPlan(
        available=max(0, _available(wanted, wanted.free)),
        weights=_weights(wanted),
        adapters=settings.max_loras * adapter,
        step=step,
        graphs=graphs,
        margin=max(_LEAST_MARGIN, int(_MARGIN * wanted.total)),
        page_bytes=shape.kv_numbers * item * PAGE_SIZE,
        pages=0,
        context_length=wanted.context_length or shape.context_length,
        wanted_context=wanted.context_length or shape.context_length,
        max_loras=settings.max_loras,
        rank=rank,
        max_batch=settings.max_batch,
        numbers=str(wanted.dtype).removeprefix("torch.") if quantize == "none" else quantize,
    )
    plan = replace(plan, pages=max(0, (plan.available - plan.reserved) // plan.page_bytes))
    return replace(plan, context_length=min(plan.context_length, plan.tokens))


def captured_logits(shape: ModelShape, max_batch: int, item: int) -> int:
    """Of all captured steps, in bytes of `item` a number: each keeps its own, or the next capture would write there."""
    return 2 * sum(row_counts(max_batch)) * shape.vocabulary * item  # with adapters and without


def _packed_as(wanted: Wanted) -> Quantize:
    """How weights are packed where it is asked for: on a card, 8 bits take 16-bit numbers, and int4's kernel bfloat16
    alone (`forward/linears.py`, which says so when it leaves them out)."""
    if not wanted.shape.packable or wanted.dtype not in (torch.bfloat16, torch.float16):
        return "none"
    return "int8" if wanted.quantize == "int4" and wanted.dtype != torch.bfloat16 else wanted.quantize


def _token_bytes(shape: ModelShape, rank: int, item: int) -> int:
    """Of a token on its way through a layer, as if nothing were let go of: the residual and three of its kind, and what
    the layer's products give, twice (rotated, gated), with what adapters' first products give in float32."""
    outputs = sum(out for _, _, out in shape.groups[:-1]) // max(1, shape.layers)  # of a layer; the last is the head
    return (4 * shape.hidden + 2 * outputs) * item + 4 * 3 * rank * 16


def _weights(wanted: Wanted) -> int:
    shape, item, quantize = wanted.shape, wanted.dtype.itemsize, _packed_as(wanted)
    if quantize == "none":
        return shape.parameters * item
    if quantize == "int8":
        linear = shape.linear + shape.linear_outs * 4
    else:  # half a byte, and a scale and a zero for each group; the output layer is of int8
        inside, _, vocabulary = shape.groups[-1]
        grouped = shape.linear - inside * vocabulary
        linear = grouped // 2 + grouped // GROUP * 2 * item + inside * vocabulary + vocabulary * 4
    return linear + shape.others * item


def _least_context(wanted: Wanted) -> int:
    return wanted.context_length or min(wanted.shape.context_length, _LEAST_CONTEXT)


def _fits(wanted: Wanted, plan: MemoryPlan) -> bool:
    return plan.tokens >= _least_context(wanted)


def _remedies(wanted: Wanted) -> Iterator[str]:
    """Single changes that would do; where none does, pairs of them, or all at once. And a shorter context."""
    changes = _changes(wanted)
    found = [name for name, changed in changes if _fits(changed, _plan(changed))]
    for name, changed in changes if not found else ():
        for other, both in _changes(changed):
            if f"{other} and {name}" not in found and name.split()[0] != other.split()[0] and _fits(both, _plan(both)):
                found.append(f"{name} and {other}")
    names, smallest = _smallest(wanted)
    if not found and names and _fits(smallest, _plan(smallest)):
        found.append(names)
    tokens = _plan(wanted).tokens
    if tokens >= PAGE_SIZE:
        found.append(f"model.context_length {tokens}")
    yield from found


def _smallest(wanted: Wanted) -> tuple[str, Wanted]:
    """All changes at once, the furthest of each kind: their names, and what would then be wanted."""
    names, least = [], wanted
    for kind in ("model.dtype", "--quantize", "engine.max_lora_rank", "engine.max_loras"):
        for name, changed in [change for change in _changes(least) if change[0].split()[0] == kind][-1:]:
            names.append(name)
            least = changed
    return " and ".join(names), least


def _changes(wanted: Wanted) -> list[tuple[str, Wanted]]:
    """Settings that take less, each with what would then be wanted."""
    changes = []
    if wanted.dtype == torch.float32:
        changes.append(("model.dtype bfloat16", replace(wanted, dtype=torch.bfloat16)))
    kinds: tuple[Quantize, ...] = ("none", "int8", "int4")
    for kind in kinds[kinds.index(wanted.quantize) + 1 :]:
        changed = replace(wanted, quantize=kind)
        if _packed_as(changed) == kind:  # or it would be left out, and change nothing
            changes.append((f"--quantize {kind}", changed))
    for name, value in (("max_lora_rank", 16), ("max_loras", 2)):
        if getattr(wanted.settings, name) > value:
            changes.append((f"engine.{name} {value}", _set(wanted, name, value)))
    return changes


def _set(wanted: Wanted, name: str, value: int) -> Wanted:
    return replace(wanted, settings=wanted.settings.model_copy(update={name: value}))


def _largest(wanted: Wanted) -> str:
    """How large a model of its kind may be."""
    names, smallest = _smallest(wanted)
    plan = _plan(smallest)
    row = (1 + math.ceil(_least_context(wanted) / PAGE_SIZE)) * plan.page_bytes  # one page is spare
    share = max(0.0, (plan.available - (plan.reserved - plan.weights) - row) / plan.weights)
    return (
        (f"Even with {names} it does not: a" if names else "A")
        + f" model of about {wanted.shape.parameters * share / 1e9:.1f} billion parameters would, this one has "
        f"{wanted.shape.parameters / 1e9:.1f}"
    )

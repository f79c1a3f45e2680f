"""Chooses how the loaded model is run: the fastest way whose logits equal the model's plain forward.

Each way is tried on two short texts. Knows nothing of sampling, text or queues. Runs on the model thread alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from server.engine import kernels
from server.engine.adapters.lora_layers import linear_layers
from server.engine.adapters.reading import LoraPair
from server.engine.cache.kv import KVArena
from server.engine.cache.pages import KVPages
from server.engine.forward.attention import NAME
from server.engine.forward.chunk import RowChunk
from server.engine.forward.decoder import unsupported_reason
from server.engine.forward.linears import LinearChoice
from server.engine.forward.paths import (
    DecoderForward,
    DeviceLayout,
    ForwardPath,
    LoraHooks,
    PackedForward,
    SingleForward,
    flash_problem,
)

log = logging.getLogger("tailor.engine")

_QUANTIZED = 0.3  # how far int8 logits may be from exact ones, of the largest

# What a model's own code raises when a way of calling it does not fit.
_TRIAL_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, NotImplementedError, AssertionError)


@dataclass(frozen=True)
class ChosenPath:
    path: ForwardPath
    reason: str


@torch.inference_mode()
def choose_path(
    load: Callable[[], Any], linear: LinearChoice, max_loras: int, device: DeviceLayout | None = None
) -> ChosenPath:
    """The fastest way of running the model that `load` loads whose logits equal its plain forward's. It is loaded
    again when a try has taken it apart; the first one is let go of before. `max_loras`: adapters at once; `device`: how
    memory is laid out where the model is not on a processor."""
    model = load()
    texts = _sample_texts(int(model.get_input_embeddings().weight.shape[0]))
    plain = [
        model(input_ids=torch.tensor([text], device=model.device), use_cache=False).logits[0].float().cpu()
        for text in texts
    ]
    log.debug("ready: plain forward")
    layers = linear_layers(model)
    rounding = 1e-4 if model.dtype == torch.float32 else 5e-2  # of the largest logit; a wrong mask costs far more
    problem = unsupported_reason(model)
    if not problem:
        decoder = DecoderForward(model, linear, layers, max_loras, device)
        log.debug("ready: decoder")
        chosen = _choose_way(decoder, linear, layers, texts, plain, rounding if linear.exact else _QUANTIZED)
        if isinstance(chosen, ChosenPath):
            return chosen
        problem = chosen
        del decoder, model  # two models at once may not fit
        model = load()
    if device is not None:  # one that was to be packed is still on the host
        model = model.to(device.device)
    original = model.config._attn_implementation
    hooks = LoraHooks(model, layers, max_loras, device)
    unpacked = _replace_attention(model)
    if not unpacked:
        try:
            packed = PackedForward(model, hooks)
        except _TRIAL_ERRORS as error:
            unpacked = str(error)
        else:
            unpacked = _try_path(packed, texts, plain, rounding)
            if not unpacked:
                return ChosenPath(packed, f"transformers' layers, all rows in one pass ({problem}; slower)")
        model.set_attn_implementation(original)
    problem = f"{problem}; {unpacked}"
    for chunked, use_cache in ((True, True), (False, True), (False, False)):
        single = SingleForward(model, hooks, chunked=chunked, use_cache=use_cache)
        why = _try_path(single, texts, plain, rounding)
        if not why:
            how = "with its own cache" if use_cache else "without a cache, each token anew"
            return ChosenPath(single, f"transformers' layers, one row a pass, {how} ({problem}; slow)")
        problem = f"{problem}; {why}"
    raise NotImplementedError(problem)


def _choose_way(
    decoder: DecoderForward,
    linear: LinearChoice,
    layers: Mapping[str, tuple[int, int]],
    texts: list[list[int]],
    plain: list[Tensor],
    tolerance: float,
) -> ChosenPath | str:
    """Our own decoder, where it can with kernels of its own and with captured steps; what is wrong where it cannot be
    run at all."""
    reason, problem = f"our own decoder, {linear.reason}", ""
    if decoder.captures:
        unflashed = flash_problem(decoder.kv) if decoder.kv.shape.device.type == "cuda" else ""
        if not unflashed:
            problem = _try_captured(decoder, layers, texts, plain, tolerance)
            if not problem:
                return ChosenPath(decoder, f"{reason}, steps replayed as CUDA graphs")
            if kernels.uses_triton(decoder.kv.shape.device):  # the plain operators may do where Triton's do not
                kernels.use_triton(False)
                decoder.capture_anew()
                plainly = _try_captured(decoder, layers, texts, plain, tolerance)
                if not plainly:
                    return ChosenPath(
                        decoder, f"{reason}, steps replayed as CUDA graphs, without Triton's kernels: {problem}"
                    )
                problem = plainly
        decoder.stop_capturing()
        reason = f"{reason}; its steps are not captured: {unflashed or problem}"
    problem = _try_path(decoder, texts, plain, tolerance)
    return problem or ChosenPath(decoder, reason)


def _replace_attention(model: Any) -> str:
    """Switches the model to packed attention; the reason where that cannot be."""
    if getattr(model.config.get_text_config(), "attention_chunk_size", None):
        return "it attends in chunks"
    try:
        model.set_attn_implementation(NAME)
    except _TRIAL_ERRORS as error:
        return f"its attention cannot be replaced ({error})"
    return "" if model.config._attn_implementation == NAME else "its attention cannot be replaced"


def _sample_texts(vocabulary: int) -> list[list[int]]:
    """Two texts of different lengths, spread over the vocabulary."""
    return [
        [(position * 7919 + 13) % vocabulary for position in range(first, first + length)]
        for first, length in ((1, 21), (400, 13))
    ]


def _try_captured(
    decoder: DecoderForward,
    layers: Mapping[str, tuple[int, int]],
    texts: list[list[int]],
    plain: list[Tensor],
    tolerance: float,
) -> str:
    """As `_try_path`, where the second text has an adapter, whose product is nothing; '' or what is wrong."""
    generator = torch.Generator().manual_seed(0)
    made_up = {
        name: LoraPair(torch.randn(8, inside, generator=generator), torch.zeros(out, 8), 1.0)
        for name, (inside, out) in layers.items()
    }
    try:
        decoder.bank.write(0, decoder.bank.pack(made_up))
        return _try_path(decoder, texts, plain, tolerance, (None, 0)) or decoder.capture_failure
    except _TRIAL_ERRORS as error:
        return f"it fails ({type(error).__name__}: {error})"
    finally:
        decoder.bank.clear(0)


def _trial_pages(path: ForwardPath, row: int) -> Sequence[int]:
    each = path.kv.row_pages if isinstance(path.kv, KVPages) else 0
    return range(1 + row * each, 1 + (row + 1) * each)


def _try_path(
    path: ForwardPath,
    texts: list[list[int]],
    plain: list[Tensor],
    tolerance: float,
    stack_indices: Sequence[int | None] = (None, None),
) -> str:
    """Runs both texts side by side in uneven chunks; '' or how the logits differ by more than `tolerance`
    of the largest."""
    cuts = [(0, 9, 17, 18, 19, 21), (0, 5, 10, 11, 12, 13)] if path.chunked else [(0, 19, 20, 21), (0, 11, 12, 13)]
    try:
        if isinstance(path.kv, KVArena):
            path.kv.fit(len(texts) + 1, 64, {})
        elif path.kv is not None:
            each = path.kv.count(max(len(text) for text in texts))
            path.kv.allocate(1 + len(texts) * each, each)
        for step in range(len(cuts[0]) - 1):
            chunks = [
                RowChunk(
                    text[cut[step] : cut[step + 1]],
                    kv_slot,
                    cut[step],
                    stack_indices[kv_slot],
                    pages=_trial_pages(path, kv_slot),
                )
                for kv_slot, (text, cut) in enumerate(zip(texts, cuts, strict=True))
            ]
            logits = path.run(chunks).float().cpu()
            for row, cut in enumerate(cuts):
                expected = plain[row][cut[step + 1] - 1]
                error = float((logits[row] - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
                if not error <= tolerance:
                    return f"its logits differ by {error:.2%} in step {step + 1}"
    except _TRIAL_ERRORS as error:
        return f"it fails ({type(error).__name__}: {error})"
    finally:
        for kv_slot in range(len(texts)):
            path.release(kv_slot)
    return ""

"""Loads a causal language model: which device, which number type, and why.

Knows nothing of batches, adapters or text.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM

from server.config import ModelSettings
from server.errors import ModelError

log = logging.getLogger("tailor.engine")

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """Where the model runs, in which numbers, and the reason in words."""

    device: str
    dtype: torch.dtype
    reason: str


@dataclass(frozen=True)
class LoadedModel:
    """`vocabulary` is how many logits a token has; `kv_bytes` what a token of context costs, by the config."""

    model: Any
    placement: Placement
    context_length: int
    vocabulary: int
    parameters: int
    kv_bytes: int


def choose_placement(settings: ModelSettings) -> Placement:
    """Raises ModelError when the device that is set is not there."""
    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise ModelError(
            "model.device is 'cuda', and torch finds no CUDA device here: use 'cpu' or 'auto', or install "
            "a torch build for your driver"
        )
    device = "cuda" if cuda and settings.device != "cpu" else "cpu"
    if settings.device != "auto":
        why = f"{device} as set"
    else:
        why = "a CUDA device is there" if device == "cuda" else "no CUDA device is there"
    if settings.dtype != "auto":
        return Placement(device, _TYPES[settings.dtype], f"{why}; {settings.dtype} as set")
    if device == "cpu":
        return Placement(device, torch.float32, f"{why}; float32 is exact and fastest without special units")
    if torch.cuda.is_bf16_supported():
        return Placement(device, torch.bfloat16, f"{why}; it computes in bfloat16")
    return Placement(device, torch.float16, f"{why}; it has no bfloat16")


def load_model(path: str, settings: ModelSettings, *, on_host: bool = False) -> LoadedModel:
    """Blocks for as long as reading the weights takes. `on_host`: in memory of the host, wherever it is going to run.
    Raises ModelError."""
    placement = choose_placement(settings)
    _set_threads()
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=placement.dtype)
        model = model.to("cpu" if on_host else placement.device).eval()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model {path} cannot be loaded: {error}") from error
    config = model.config.get_text_config()
    return LoadedModel(
        model=model,
        placement=placement,
        context_length=_context_length(config, settings, path),
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
        parameters=sum(tensor.numel() for tensor in model.parameters()),
        kv_bytes=_kv_bytes(config, placement.dtype),
    )


def load_config(path: str) -> Any:
    """Raises ModelError."""
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the configuration of {path} cannot be read: {error}") from error


def _context_length(config: Any, settings: ModelSettings, path: str) -> int:
    known = getattr(config, "max_position_embeddings", None)
    wanted = settings.context_length
    if known and wanted > known:
        raise ModelError(f"model.context_length is {wanted}, and {path} was made for {known} tokens: set at most that")
    return wanted or int(known or 2048)


def _kv_bytes(config: Any, dtype: torch.dtype) -> int:
    heads = getattr(config, "num_attention_heads", None) or 1
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kv_heads * dim * dtype.itemsize)


def _set_threads() -> None:
    """As many threads as processors this process may use, for the thread that calls: others compute alone, because a
    second team of threads in a process makes the first one sleep at each product's end (libgomp's throttling)."""
    torch.ones(1 << 16).add_(1)  # the first parallel work takes whatever number another thread has set last
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(max(1, int(os.environ["OMP_NUM_THREADS"].split(",")[0] or 1)))
    else:
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

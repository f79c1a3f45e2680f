"""Everything about the loaded model that does not change while it serves, built once.

Built on the model thread. Knows nothing of rows or queues.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from server.config import EngineSettings, ModelSettings
from server.engine.adapters.lora_layers import linear_layers
from server.engine.adapters.reading import AdapterTarget
from server.engine.cache.kv import KVBudget
from server.engine.cache.pages import KVPages
from server.engine.device_memory import Wanted, measure_model, plan_memory, plan_pool
from server.engine.forward.choice import choose_path
from server.engine.forward.graphs import CudaCapture
from server.engine.forward.linears import choose_linear
from server.engine.forward.paths import DecoderForward, DeviceLayout, ForwardPath
from server.engine.model.fingerprint import model_fingerprint
from server.engine.model.loading import Placement, choose_placement, load_config, load_model
from server.engine.model.tokenizer import ModelTokenizer
from server.engine.sampling.constraint import ConstraintCompiler
from server.errors import ModelError
from server.types import ModelCard

log = logging.getLogger("tailor.engine")


@dataclass(frozen=True)
class Runtime:
    card: ModelCard
    tokenizer: ModelTokenizer
    compiler: ConstraintCompiler
    target: AdapterTarget
    path: ForwardPath
    vocabulary: int
    bytes_per_token: int
    loaded_in_s: float


def build_runtime(model_path: str, settings: EngineSettings, model_settings: ModelSettings) -> Runtime:
    """Loads the model and tries its forward paths. Blocks for seconds. Raises ModelError.

    Tells the debug log when each part is ready, as `python -m bench.startup` reads it."""
    began = time.monotonic()
    tokenizer = ModelTokenizer(model_path)
    log.debug("ready: tokenizer")
    fingerprint = model_fingerprint(model_path)
    log.debug("ready: fingerprint")
    placement = choose_placement(model_settings)
    wanted = _wanted(model_path, settings, model_settings, placement) if placement.device == "cuda" else None
    plan = plan_memory(wanted) if wanted is not None else None
    on_host = placement.device != "cpu" and model_settings.quantize != "none"  # it may fit the card only as it is then
    loaded = load_model(model_path, model_settings, on_host=on_host)
    log.debug("ready: weights")
    target = AdapterTarget(fingerprint, linear_layers(loaded.model), settings.max_lora_rank)
    linear = choose_linear(model_settings.quantize, torch.device(placement.device), placement.dtype)
    log.debug("ready: products")
    models, loaded = [loaded.model], replace(loaded, model=None)  # nothing else holds it, so that a try can let it go

    def load() -> Any:
        return models.pop() if models else load_model(model_path, model_settings).model

    try:
        chosen = choose_path(load, linear, settings.max_loras, device_layout(placement, settings))
    except NotImplementedError as error:
        raise ModelError(f"the model {model_path} cannot be run step by step: {error}") from error
    except torch.OutOfMemoryError as error:
        raise ModelError(f"the card has no memory for {model_path}: {error}") from error
    log.debug("ready: forward path")
    context_length, kv_bytes = loaded.context_length, settings.kv_bytes
    if wanted is not None and plan is not None:
        torch.cuda.empty_cache()
        plan = plan_pool(wanted, plan, torch.cuda.mem_get_info()[0])
        kv_bytes = plan.pages * plan.page_bytes
        context_length = min(context_length, plan.context_length)
        for line in plan.lines():
            log.info("memory: %s", line)
    if isinstance(chosen.path.kv, KVPages):
        context_length = _allocate_pages(chosen.path.kv, kv_bytes, context_length)
        if isinstance(chosen.path, DecoderForward):
            chosen.path.record(settings.max_batch)
    bytes_per_token = chosen.path.kv.shape.token_bytes if chosen.path.kv is not None else loaded.kv_bytes
    capacity = KVBudget(kv_bytes, bytes_per_token, 1).total
    if capacity < 64:
        raise ModelError(f"engine.kv_bytes holds {capacity} tokens of {model_path}: set it higher")
    card = ModelCard(
        id=Path(model_path).name if Path(model_path).is_dir() else model_path,
        fingerprint=fingerprint,
        device=placement.device,
        dtype=str(placement.dtype).removeprefix("torch."),
        reason=placement.reason,
        path=chosen.reason,
        context_length=min(context_length, capacity),
        parameters=loaded.parameters,
    )
    return Runtime(
        card=card,
        tokenizer=tokenizer,
        compiler=ConstraintCompiler(tokenizer, loaded.vocabulary),
        target=target,
        path=chosen.path,
        vocabulary=loaded.vocabulary,
        bytes_per_token=bytes_per_token,
        loaded_in_s=time.monotonic() - began,
    )


def _wanted(model_path: str, settings: EngineSettings, model_settings: ModelSettings, placement: Placement) -> Wanted:
    """What is to run on the card that is there."""
    free, total = torch.cuda.mem_get_info()
    return Wanted(
        measure_model(load_config(model_path)),
        settings,
        placement.dtype,
        model_settings.quantize,
        model_settings.context_length,
        free,
        total,
    )


def device_layout(placement: Placement, settings: EngineSettings) -> DeviceLayout | None:
    if placement.device == "cpu":
        return None
    return DeviceLayout(settings.max_lora_rank, CudaCapture(), device=torch.device(placement.device))


def _allocate_pages(kv: KVPages, pool_bytes: int, context_length: int) -> int:
    """The context that a row of the pool may have."""
    pages = pool_bytes // (kv.shape.token_bytes * kv.page_size)
    if pages < 2:
        raise ModelError(f"there is room for {pages} pages of {kv.page_size} tokens, and one row needs 2")
    kv.allocate(pages, min(pages - 1, kv.count(context_length)))
    return min(context_length, kv.row_pages * kv.page_size)

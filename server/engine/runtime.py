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
from server.engine.forward.choice import choose_path
from server.engine.forward.linears import choose_linear
from server.engine.forward.paths import ForwardPath
from server.engine.model.fingerprint import model_fingerprint
from server.engine.model.loading import load_model
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
    loaded = load_model(model_path, model_settings)
    log.debug("ready: weights")
    target = AdapterTarget(fingerprint, linear_layers(loaded.model), settings.max_lora_rank)
    placement = loaded.placement
    linear = choose_linear(model_settings.quantize, torch.device(placement.device), placement.dtype)
    log.debug("ready: products")
    models, loaded = [loaded.model], replace(loaded, model=None)  # nothing else holds it, so that a try can let it go

    def load() -> Any:
        return models.pop() if models else load_model(model_path, model_settings).model

    try:
        chosen = choose_path(load, linear, settings.max_loras)
    except NotImplementedError as error:
        raise ModelError(f"the model {model_path} cannot be run step by step: {error}") from error
    log.debug("ready: forward path")
    bytes_per_token = chosen.path.arena.shape.token_bytes if chosen.path.arena is not None else loaded.kv_bytes
    capacity = KVBudget(settings.kv_bytes, bytes_per_token, 1).total
    if capacity < 64:
        raise ModelError(f"engine.kv_bytes holds {capacity} tokens of {model_path}: set it higher")
    card = ModelCard(
        id=Path(model_path).name if Path(model_path).is_dir() else model_path,
        fingerprint=fingerprint,
        device=placement.device,
        dtype=str(placement.dtype).removeprefix("torch."),
        reason=placement.reason,
        path=chosen.reason,
        context_length=min(loaded.context_length, capacity),
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

"""Checks all adapters of a folder against a base model of which only the shapes are made. Knows nothing of serving."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from server.engine.adapters.folders import AdapterCatalogue
from server.engine.adapters.lora_layers import linear_layers
from server.engine.adapters.reading import AdapterTarget, check_adapter
from server.engine.model.fingerprint import model_fingerprint
from server.errors import AdapterInvalid, ModelError


def adapter_faults(catalogue: AdapterCatalogue, model_path: str, max_rank: int) -> Iterator[tuple[str, AdapterInvalid]]:
    """Name and fault of each version that cannot be used. Reads every file. Raises ModelError."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path))
        target = AdapterTarget(model_fingerprint(model_path), linear_layers(model), max_rank)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"the model {model_path} cannot be read: {error}") from error
    for folder in catalogue.folders():
        name = f"{folder.name}@{folder.version}"
        try:
            if folder.problem:
                raise AdapterInvalid(folder.problem)
            check_adapter(folder.path, target)
        except AdapterInvalid as error:
            yield name, error

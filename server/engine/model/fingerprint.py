"""A fingerprint of a base model: cheap to take, the same for every copy of the same weights.

Covers the configuration (without names, versions and storage types), every tensor's name and shape, and
three rows of values of each tensor as float32. Reads about a megabyte, never the whole model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

from server.errors import ModelError

_VOLATILE = {
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
    "architectures",
    "quantization_config",
}


def model_fingerprint(path: str) -> str:
    """16 hex characters for the causal LM at a folder or hub id. Raises ModelError when it cannot be read."""
    config_file = _file(path, "config.json")
    if config_file is None:
        raise ModelError(f"{path} holds no config.json")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        digest = hashlib.sha256(json.dumps(_stable(config), sort_keys=True).encode())
        for file in _weight_files(path):
            _add_weights(digest, file, bool(config.get("tie_word_embeddings")))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"the model at {path} cannot be read: {error}") from error
    return digest.hexdigest()[:16]


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stable(inner) for key, inner in value.items() if key not in _VOLATILE and inner is not None}
    return value


def _weight_files(path: str) -> list[Path]:
    index = _file(path, "model.safetensors.index.json")
    if index is not None:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"] if _file(path, "model.safetensors") else ["pytorch_model.bin"]
    return [found for name in names if (found := _file(path, name)) is not None]


def _add_weights(digest: Any, file: Path, tied: bool) -> None:
    if file.suffix != ".safetensors":
        with file.open("rb") as opened:  # never unpickled for this
            digest.update(f"{file.name} {file.stat().st_size}".encode() + opened.read(1 << 20))
        return
    with safe_open(str(file), framework="pt") as opened:
        for name in sorted(opened.keys()):
            if tied and name == "lm_head.weight":
                continue
            part = opened.get_slice(name)
            shape = part.get_shape()
            digest.update(f"{name} {shape}".encode())
            for row in sorted({0, shape[0] // 2, shape[0] - 1}) if shape and shape[0] else ():
                digest.update(part[row : row + 1].to(torch.float32).contiguous().numpy().tobytes())


def _file(path: str, name: str) -> Path | None:
    found = cached_file(
        path, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return Path(found) if found is not None else None

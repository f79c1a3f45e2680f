"""Reads and checks an adapter folder: PEFT's LoRA format, safetensors only, nothing is ever unpickled.

Everything is checked against the base model before anything reaches the device: format, scale, target
layers, shapes, rank, values. Knows nothing of slots, threads or how the weights are applied.

`W x + scale · B(A x)`: LoRA (Hu et al., 2021), scale = alpha / r; rsLoRA (Kalajdzievski, 2023), alpha / sqrt(r).
DoRA (Liu et al., 2024) multiplies each output with its magnitude over the norm of its row of `W + scale · B A`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from server.engine.adapters.patterns import LayerValues, check_targets, without_patterns
from server.errors import AdapterForeign, AdapterInvalid

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILE = "adapter_model.safetensors"
TAILOR_FILE = "tailor.json"

_MAX_JSON_BYTES = 1 << 20
_MAX_SCALE = 1e4  # of an adapter's product; trained ones have up to a few dozen
_MAGNITUDE = "magnitude"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?:(?P<side>[AB])\.weight|(?P<dora>magnitude_vector))")
_NEUTRAL = {  # keys of PEFT's LoRA settings that change nothing here, or are read below
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
}
_REFUSED = {
    "lora_bias": "LoRA with biases",
    "modules_to_save": "whole saved modules (modules_to_save)",
    "layer_replication": "replicated layers",
    "use_qalora": "QALoRA",
    "target_parameters": "bare parameters as targets",
    "trainable_token_indices": "trained token embeddings",
    "alora_invocation_tokens": "activated LoRA",
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that rewrite the base weights


@dataclass(frozen=True)
class AdapterTarget:
    """What an adapter must fit: the base's fingerprint, its linear layers as name → (in, out), the highest rank."""

    fingerprint: str
    modules: Mapping[str, tuple[int, int]]
    max_rank: int


class LoraPair(NamedTuple):
    """a [r, in] and b [out, r]. `magnitude` [out] is DoRA's: of the changed weights' rows."""

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None


@dataclass(frozen=True)
class AdapterFacts:
    """What a check found. `bytes` is the size of the tensors as float32."""

    rank: int
    modules: int
    bytes: int
    description: str


def check_adapter(folder: Path, target: AdapterTarget) -> AdapterFacts:
    """Reads everything, keeps nothing. Blocks. Raises AdapterInvalid with the reason,
    AdapterForeign when the adapter says that it is made for another base."""
    return read_adapter(folder, target)[0]


def read_adapter(folder: Path, target: AdapterTarget) -> tuple[AdapterFacts, dict[str, LoraPair]]:
    """The checked weights by the base's layer name, float32, on the CPU. Blocks. Raises AdapterInvalid."""
    torch.set_num_threads(1)  # this thread's: a second team of threads in the process halves the speed of the model's
    try:
        _check_files(folder)
        config = _json(folder / CONFIG_FILE)
        _check_config(config)
        description = _check_tailor(folder, target)
        tensors = _tensors(folder / WEIGHT_FILE, target)
        ranks = LayerValues("rank_pattern", config.get("rank_pattern") or {}, config.get("r", 8))
        alphas = LayerValues("alpha_pattern", config.get("alpha_pattern") or {}, config.get("lora_alpha", 8))
        pairs = {name: _pair(name, sides, config, ranks.of(name), alphas.of(name)) for name, sides in tensors.items()}
    except AdapterInvalid as error:
        raise type(error)(f"the adapter in {_label(folder)} cannot be used: {error}") from error
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise AdapterInvalid(f"the adapter in {_label(folder)} cannot be read: {error}") from error
    size = sum(pair.a.nbytes + pair.b.nbytes for pair in pairs.values())
    return AdapterFacts(max(pair.a.shape[0] for pair in pairs.values()), len(pairs), size, description), pairs


def continued_settings(folder: Path) -> dict[str, Any]:
    """Settings with which PEFT may read this adapter to train it further, instead of the patterns in its file; {} where
    it has none. Raises AdapterInvalid, OSError."""
    _check_files(folder)
    config = _json(folder / CONFIG_FILE)
    _check_config(config)
    named = [config.get(key) for key in ("exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")]
    if not any(named) and not isinstance(config.get("target_modules"), str):
        return {}
    ranks: dict[str, int] = {}
    for key, tensor in _header(folder / WEIGHT_FILE).items():
        match = _TENSOR.fullmatch(key)
        if match is not None and match["side"] == "A":
            ranks[match["module"]] = int(tensor["shape"][0])
    return without_patterns(config, ranks)


def _label(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


# ── files and settings ───────────────────────────────────────────────────────────────────────────


def _check_files(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _PICKLES:
            raise AdapterInvalid(
                f"{path.name} is a pickle, which can run any code when it is opened: save the adapter as safetensors "
                "(PEFT's default) and remove the file"
            )
    for name in (CONFIG_FILE, WEIGHT_FILE):
        if not (folder / name).is_file():
            raise AdapterInvalid(f"{name} is missing")
    resolved = folder.resolve()
    for name in (CONFIG_FILE, WEIGHT_FILE, TAILOR_FILE):
        if (folder / name).resolve().parent != resolved:
            raise AdapterInvalid(f"{name} is a link to a place outside the adapter's folder: copy the file in")


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise AdapterInvalid(f"{path.name} is larger than {_MAX_JSON_BYTES} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AdapterInvalid(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise AdapterInvalid(f"{path.name} must hold a JSON object")
    return content


def _check_config(config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise AdapterInvalid(f"its type is {config.get('peft_type')!r}, and only LORA adapters can be served")
    for key, name in _REFUSED.items():
        if config.get(key):
            raise AdapterInvalid(f"it uses {name} ({key}), which is not supported: train it with plain LoRA or rsLoRA")
    if config.get("bias", "none") != "none":
        raise AdapterInvalid(f"it changes biases (bias={config['bias']!r}), which is not supported: use bias='none'")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise AdapterInvalid(f"init_lora_weights={start!r} changes the base model's weights: convert it to plain LoRA")
    known = _NEUTRAL | set(_REFUSED) | {"bias", "loftq_config", "corda_config", "lora_ga_config"}
    unknown = sorted(key for key, value in config.items() if key not in known and value)
    if unknown:
        raise AdapterInvalid(f"it uses settings that are not supported: {', '.join(unknown)}")
    _check_numbers(config)
    check_targets(config)


def _check_numbers(config: dict[str, Any]) -> None:
    if not _is_number(config.get("lora_alpha", 8)):
        raise AdapterInvalid("lora_alpha must be a number")
    if not isinstance(config.get("r", 8), int) or isinstance(config.get("r"), bool):
        raise AdapterInvalid("r must be a whole number")
    for key in ("rank_pattern", "alpha_pattern"):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict) or not all(_is_number(value) for value in pattern.values()):
            raise AdapterInvalid(f"{key} must map layer names to numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_tailor(folder: Path, target: AdapterTarget) -> str:
    """The description; the base's fingerprint must match where the file names one."""
    if not (folder / TAILOR_FILE).is_file():
        return ""
    facts = _json(folder / TAILOR_FILE)
    base = facts.get("base_fingerprint")
    if base is not None and base != target.fingerprint:
        raise AdapterForeign(
            f"it was trained for another base model (fingerprint {str(base)[:32]}, this one is {target.fingerprint})"
        )
    description = facts.get("description", "")
    return description if isinstance(description, str) else ""


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────


def _tensors(path: Path, target: AdapterTarget) -> dict[str, dict[str, Tensor]]:
    """Module → {"A": …, "B": …} as float32; every tensor must belong to a linear layer of the base."""
    most = _MAX_JSON_BYTES + 4 * sum((i + o) * target.max_rank + o for i, o in target.modules.values())
    size = path.stat().st_size
    if size > most:
        raise AdapterInvalid(
            f"{path.name} has {size} bytes, and an adapter of rank {target.max_rank} for this base at most {most}"
        )
    _header(path)
    found: dict[str, dict[str, Tensor]] = {}
    exact: dict[str, Tensor] = {}
    for key, tensor in load(path.read_bytes()).items():  # never mapped: a mapped file that shrinks ends the process
        match = _TENSOR.fullmatch(key)
        if match is None and key.endswith(".base_layer.weight"):
            raise AdapterInvalid(
                f"it carries a copy of the base's layer '{key[:200]}': save it with PEFT's "
                "save_pretrained(..., save_embedding_layers=False)"
            )
        if match is None:
            raise AdapterInvalid(f"tensor '{key[:200]}' is no LoRA weight of a linear layer")
        module, side = match["module"], match["side"] or _MAGNITUDE
        if module not in target.modules:
            raise AdapterInvalid(_no_such_layer(module, target))
        _check_shape(module, side, list(tensor.shape), target)
        if not tensor.is_floating_point():
            raise AdapterInvalid(f"tensor '{key}' holds {tensor.dtype}, not floating point numbers")
        found.setdefault(module, {})[side] = exact[key] = tensor.to(torch.float32).contiguous()
    if not found:
        raise AdapterInvalid("it holds no tensors")
    _check_finite(exact)
    return found


def _header(path: Path) -> dict[str, Any]:
    """The file's table of tensors, which must be no longer than settings may be."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MAX_JSON_BYTES:
            raise AdapterInvalid(f"{path.name} has a header of {size} bytes, and the most is {_MAX_JSON_BYTES}")
        try:
            header = json.loads(file.read(size))
        except (ValueError, RecursionError) as error:
            raise AdapterInvalid(f"{path.name} cannot be read, it has no valid header: {error}") from error
    if not isinstance(header, dict):
        raise AdapterInvalid(f"{path.name} cannot be read, its header must be a JSON object")
    return header


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    """The sums show it in one pass; only where they do not, each number is checked."""
    if torch.isfinite(torch.stack([tensor.sum() for tensor in tensors.values()])).all():
        return
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise AdapterInvalid(f"tensor '{key}' holds NaN or infinite values: the training diverged")


def _check_shape(module: str, side: str, shape: list[int], target: AdapterTarget) -> None:
    in_features, out_features = target.modules[module]
    if side == _MAGNITUDE:
        if shape != [out_features]:
            raise AdapterInvalid(
                f"the magnitudes of layer '{module}' have shape {shape}, and the base's layer has "
                f"{out_features} outputs: made for another base"
            )
        return
    if len(shape) != 2:
        raise AdapterInvalid(f"lora_{side} of layer '{module}' has shape {shape}: two dimensions are needed")
    rank, width = (shape[0], shape[1]) if side == "A" else (shape[1], shape[0])
    wanted = in_features if side == "A" else out_features
    if width != wanted:
        raise AdapterInvalid(
            f"lora_{side} of layer '{module}' is {width} wide and the base's layer {wanted}: made for another base"
        )
    if not 1 <= rank <= target.max_rank:
        raise AdapterInvalid(
            f"its rank is {rank} in layer '{module}', and the most is {target.max_rank} (setting engine.max_lora_rank)"
        )


def _no_such_layer(module: str, target: AdapterTarget) -> str:
    last = module.rpartition(".")[2]
    if any(name.rpartition(".")[2] == last for name in target.modules):
        return f"the base model has no layer '{module[:200]}': the adapter is for a deeper or another base model"
    return f"'{module[:200]}' is no linear layer of the base model: embeddings and other layers cannot be adapted"


def _pair(module: str, sides: dict[str, Tensor], config: dict[str, Any], rank: float, alpha: float) -> LoraPair:
    for side in ("A", "B"):
        if side not in sides:
            raise AdapterInvalid(f"lora_{side} of layer '{module}' is missing")
    a, b = sides["A"], sides["B"]
    if a.shape[0] != b.shape[1] or a.shape[0] != rank:
        raise AdapterInvalid(
            f"layer '{module}' has ranks {a.shape[0]} (A) and {b.shape[1]} (B), and adapter_config.json says {rank:g}"
        )
    magnitude = sides.get(_MAGNITUDE)
    if (magnitude is not None) != bool(config.get("use_dora")):
        raise AdapterInvalid(
            f"layer '{module}' {'has' if magnitude is not None else 'lacks'} DoRA's magnitudes, and "
            f"adapter_config.json says use_dora={bool(config.get('use_dora'))}"
        )
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    if abs(scale) > _MAX_SCALE:
        raise AdapterInvalid(
            f"layer '{module}' is scaled by {scale:g} (lora_alpha {alpha:g}, r {rank:g}), "
            f"and the most is {_MAX_SCALE:g}"
        )
    return LoraPair(a, b, scale, magnitude)

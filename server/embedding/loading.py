"""A sentence-transformers model, made smaller and faster on a processor: 8-bit products, a mapped vocabulary.

What is a large part of a multilingual model is the table of its vocabulary, of which a text reads a few rows: it stays
in its file, mapped into memory, in the numbers that the file has. Linear layers compute in 8 bits
(`server.quantization`) where texts keep their vectors. Knows nothing of what the vectors are for.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers.utils import cached_file

from server.errors import ModelError
from server.quantization import Linear, LinearFactory, choose_int8

log = logging.getLogger("tailor.models")

MAPPED_WEIGHTS: Final = 1 << 24  # a table of so many is mapped
LEAST_COSINE: Final = 0.96  # of a text's vector with that of the exact layers, at the middle; else they stay
PROBES: Final = (
    "How long does the delivery of a lamp take?", "The warranty covers parts for two years.",
    "배송은 얼마나 걸리나요?", "환불은 영업일 기준 사흘 안에 처리됩니다.",
    "My sister lives in Busan and teaches music.", "def total(rows): return sum(row.price for row in rows)",
    "회의는 목요일 오후 두 시로 옮겼습니다.", "오늘 점심에는 김치찌개를 먹었다.",
)  # fmt: skip


@dataclass(frozen=True)
class LoadedModel:
    """`weights` changes with the layers, their weights and the vocabulary, `fingerprint` also with whether 8 bits are
    computed in."""

    model: SentenceTransformer
    weights: str
    fingerprint: str


def load_model(path_or_id: str, device: str, *, quantize: bool) -> LoadedModel:
    """In float32 on a processor, whatever the file has. Raises ModelError."""
    on_processor = torch.device(device).type == "cpu"
    try:
        model = SentenceTransformer(
            path_or_id, device=device, model_kwargs={"dtype": torch.float32} if on_processor else None
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(
            f"the embedding model '{path_or_id}' cannot be loaded: {error}; "
            "set embedding.name to a sentence-transformers folder or hub id"
        ) from error
    digest = _digest(model)
    weights = digest.hexdigest()[:16]
    if on_processor:
        _map_tables(model, path_or_id)
    eight_bits = on_processor and quantize and _quantize(model)
    digest.update(b"int8" if eight_bits else b"")
    _return_freed_memory()
    return LoadedModel(model, weights, digest.hexdigest()[:16])


def _return_freed_memory() -> None:
    """What loading took and freed goes back to the system; glibc would keep some 60 MB of it."""
    gc.collect()
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _digest(model: SentenceTransformer) -> hashlib._Hash:
    """Of the layers and their settings, the weights' names, shapes and sampled values, the vocabulary. Sixteen values
    of each tensor are enough: training changes nearly all of them."""
    digest = hashlib.sha256()
    modules: list[tuple[str, object]] = [(type(one).__name__, getattr(one, "get_config_dict", dict)()) for one in model]
    digest.update(f"{modules!r} {model.max_seq_length}".encode())  # layers, pooling, input length
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 16)][:17].to("cpu", torch.float32).numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + sample.tobytes())
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    whole = tokenizer.to_str() if hasattr(tokenizer, "to_str") else repr(sorted(tokenizer.get_vocab().items()))
    digest.update(str(whole).encode())
    return digest


# ── the vocabulary ───────────────────────────────────────────────────────────────────────────────


class _MappedEmbedding(nn.Module):
    """A table in a file; rows are read as they are needed."""

    def __init__(self, table: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self._table, self._dtype = table, dtype

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self._table).to(self._dtype)


def _map_tables(model: SentenceTransformer, path_or_id: str) -> None:
    large = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Embedding and module.weight.numel() >= MAPPED_WEIGHTS
    }
    stored = _stored_tensors(path_or_id) if large else {}
    for name, module in large.items():
        found = [table for key, table in stored.items() if f"{name}.weight".endswith(f".{key}")]
        if len(found) == 1 and found[0].shape == module.weight.shape:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _MappedEmbedding(found[0], module.weight.dtype))


def _stored_tensors(path_or_id: str) -> Mapping[str, Tensor]:
    """By name, mapped into memory; {} where the model is in several files, or in none of this kind."""
    try:
        file = cached_file(path_or_id, "model.safetensors", local_files_only=True)
        tensors: Mapping[str, Tensor] = load_file(Path(str(file)))
    except (OSError, ValueError, SafetensorError) as error:
        log.debug("the tables of %s are not mapped: %s", path_or_id, error)
        return {}
    return tensors


# ── 8 bits ───────────────────────────────────────────────────────────────────────────────────────


class _QuantizedLinear(nn.Module):
    def __init__(self, linear: Linear, out_features: int) -> None:
        super().__init__()
        self._linear, self._out_features = linear, out_features

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        return self._linear(rows).view(*x.shape[:-1], self._out_features)


def _quantize(model: SentenceTransformer) -> bool:
    """All linear layers, if the vectors of a few texts stay what they were; whether they did."""
    make, how = choose_int8()
    layers = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    if make is None or not layers:
        return False
    exact = _probe(model)
    _replace(model, layers, make)
    cosine = float((_probe(model) * exact).sum(1).median())
    if cosine >= LEAST_COSINE:
        log.info("the embedder computes in %s", how)
        return True
    for name, module in layers.items():
        _set(model, name, module)
    log.info("the embedder computes exactly: with %s a text's vector has a cosine of %.3f with its own", how, cosine)
    return False


def _replace(model: SentenceTransformer, layers: Mapping[str, nn.Linear], make: LinearFactory) -> None:
    for name, module in layers.items():
        bias = None if module.bias is None else module.bias.detach()
        _set(model, name, _QuantizedLinear(make(module.weight.detach(), bias), module.out_features))


def _set(model: SentenceTransformer, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _probe(model: SentenceTransformer) -> Tensor:
    found = model.encode(list(PROBES), normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False)
    vectors: Tensor = found.cpu().float()
    return vectors

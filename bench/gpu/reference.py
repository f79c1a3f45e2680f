"""What the engine's answers are compared with: transformers and PEFT on the same device.

Knows nothing of the engine.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.context import Device


class Reference:
    """One PeftModel with all adapters, in one type of numbers. Not safe for two threads: which adapter is on is a
    state of the model."""

    def __init__(
        self, model: Path, adapters: Mapping[str, Path], device: Device, dtype: torch.dtype, attention: str = "sdpa"
    ) -> None:
        """`attention`: "eager" computes every product in `dtype`; kernels of "sdpa" may round more."""
        self._device = device
        loaded = AutoModelForCausalLM.from_pretrained(str(model), dtype=dtype, attn_implementation=attention)
        (first, folder), *others = adapters.items()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT asks transformers by names that are going away
            peft = PeftModel.from_pretrained(loaded, str(folder), adapter_name=first, autocast_adapter_dtype=False)
            for name, path in others:
                peft.load_adapter(str(path), name, autocast_adapter_dtype=False)
        self._model: Any = peft.to(device, dtype).eval()

    def answers(
        self, prompts: Sequence[Sequence[int]], adapter: str | None, new: int, scale: float = 1.0
    ) -> list[list[int]]:
        """Greedy, all prompts in one batch: they must be of one length. `scale`: of the adapter's own, to be wrong."""
        ids = self._tensor(prompts)
        with self._using(adapter, scale):
            whole = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )
        return [list(row) for row in whole[:, ids.shape[1] :].tolist()]

    def logits(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], adapter: str | None) -> Tensor:
        """[answers, places, vocabulary]: what each token of each answer was to be chosen from, given those before it.

        In one pass, without a cache."""
        texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        with self._using(adapter, 1.0):
            logits: Tensor = self._model(input_ids=self._tensor(texts), use_cache=False).logits
        return logits[:, len(prompts[0]) - 1 : -1]

    def _tensor(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([list(row) for row in rows], device=self._device)

    @contextmanager
    def _using(self, adapter: str | None, scale: float) -> Iterator[None]:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if adapter is None:
                with self._model.disable_adapter():
                    yield
                return
            self._model.set_adapter(adapter)
            with rescale_adapter_scale(self._model, scale):
                yield


def wider(dtype: torch.dtype) -> torch.dtype:
    """Numbers in which what `dtype` rounds away is there."""
    return torch.float64 if dtype == torch.float32 else torch.float32

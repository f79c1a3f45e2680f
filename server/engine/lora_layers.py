"""Adds adapters' weights to the base's linear layers, each to its own rows, by forward hooks.

Rows of one adapter must stand side by side in the batch: then each adapter is one slice, and nothing is
gathered. A batch without adapters passes through untouched. Only the model thread may use this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers.pytorch_utils import Conv1D

from server.engine.lora import LoraPair


@dataclass(frozen=True)
class LoraWeights:
    """An adapter on the device. `id` is fresh for each load: weights that changed are never mistaken."""

    id: int
    pairs: Mapping[str, LoraPair]

    @property
    def bytes(self) -> int:
        return sum(pair.a.nbytes + pair.b.nbytes for pair in self.pairs.values())


@dataclass(frozen=True)
class Segment:
    """Rows [begin, end) of a layer's input are computed with `weights`."""

    begin: int
    end: int
    weights: LoraWeights


def linear_layers(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Layers an adapter may change, name → (in, out). Experts are left out: they see a few tokens each,
    in an order of their own."""
    layers: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if ".experts." in f".{name}.":
            continue
        if isinstance(module, torch.nn.Linear):
            layers[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            layers[name] = (module.nx, module.nf)
    return layers


class LoraLayers:
    """Hooks on a model's layers. A layer gets its hook when the first adapter that changes it arrives."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules = dict(model.named_modules())
        output = getattr(model, "get_output_embeddings", lambda: None)()
        self._output = next((name for name, module in self._modules.items() if module is output), None)
        self._hooked: set[str] = set()
        self._segments: Sequence[Segment] = ()
        self._output_segments: Sequence[Segment] = ()

    def prepare(self, id: int, pairs: Mapping[str, LoraPair], like: Tensor) -> LoraWeights:
        """Moves the pairs to the model's device and type."""
        for name in pairs:
            if name not in self._hooked:
                self._modules[name].register_forward_hook(self._hook(name))
                self._hooked.add(name)
        moved = {
            name: LoraPair(pair.a.to(like.device, like.dtype), pair.b.to(like.device, like.dtype), pair.scale)
            for name, pair in pairs.items()
        }
        return LoraWeights(id, moved)

    @contextmanager
    def applied(self, segments: Sequence[Segment], output_segments: Sequence[Segment]) -> Iterator[None]:
        """During one forward: `segments` for the layers, `output_segments` for the output layer, which
        sees only the tokens whose logits are wanted."""
        self._segments, self._output_segments = segments, output_segments
        try:
            yield
        finally:
            self._segments = self._output_segments = ()

    def _hook(self, name: str) -> Any:
        def add(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            segments = self._output_segments if name == self._output else self._segments
            if not segments:
                return
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            y = output.view(-1, output.shape[-1])
            for segment in segments:
                pair = segment.weights.pairs.get(name)
                if pair is not None:
                    reduced = F.linear(x[segment.begin:segment.end], pair.a)
                    y[segment.begin:segment.end].addmm_(reduced, pair.b.t(), alpha=pair.scale)

        return add

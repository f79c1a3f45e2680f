"""The card a run is on: whether there is one, what it is, and how large a model it takes.

The one module of the benchmarks that asks torch about a card; the rest is given what it found.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.context import LLAMA_1B, LLAMA_3B, LLAMA_8B, Shape, Sizes

SHAPES = (LLAMA_8B, LLAMA_3B, LLAMA_1B)
_REST_BYTES = 4 << 30  # keys and values, graphs, what two processes take for themselves
_USED = 0.9  # of the memory; the rest is the driver's, and a screen's


class NoCard(Exception):
    """There is none that torch can use; the text says why, and what to do, in one line."""


@dataclass(frozen=True)
class Card:
    """`memory` in bytes; `capability` as NVIDIA counts it, such as 9.0; `count`: cards that torch sees."""

    name: str
    memory: int
    capability: str
    driver: str
    cuda: str
    count: int = 1

    @property
    def lines(self) -> list[str]:
        """For the head of the results."""
        which = f", the first of {self.count}" if self.count > 1 else ""
        return [
            f"GPU: {self.name}{which}, {self.memory / 2**30:.1f} GiB, compute capability {self.capability}; "
            f"driver {self.driver}, CUDA {self.cuda} of torch"
        ]


def find() -> Card:
    """The card that torch uses where nothing else is said. Raises NoCard."""
    if not torch.cuda.is_available():
        raise NoCard(missing(torch.__version__, torch.version.cuda))
    properties = torch.cuda.get_device_properties(0)
    return Card(
        name=properties.name,
        memory=properties.total_memory,
        capability=f"{properties.major}.{properties.minor}",
        driver=_driver(),
        cuda=torch.version.cuda or "unknown",
        count=torch.cuda.device_count(),
    )


def missing(version: str, cuda: str | None) -> str:
    """Why torch of that version finds no card, and the fix."""
    if cuda is None:
        return (
            f"--device cuda: torch {version} is a build without CUDA; install one for your driver into .venv "
            "(https://pytorch.org/get-started), then run this again"
        )
    return (
        f"--device cuda: torch {version} (CUDA {cuda}) finds no device; `nvidia-smi` must list one, its driver must be "
        "new enough for that CUDA, and CUDA_VISIBLE_DEVICES must not hide it"
    )


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return next(iter(done.stdout.split()), "unknown") if done.returncode == 0 else "unknown"


def needed(shape: Shape, sizes: Sizes) -> int:
    """Bytes on the card while ours and a peer are both there, all in numbers of two bytes."""
    adapters = sizes.adapters * sizes.rank * shape.linear_widths
    return 2 * 2 * shape.parameters + 2 * 2 * adapters + _REST_BYTES


def fitting(memory: int, sizes: Sizes, shapes: Sequence[Shape] = SHAPES) -> Shape:
    """The first shape that fits into a card of so many bytes; the last one where none does."""
    return next((shape for shape in shapes if needed(shape, sizes) <= _USED * memory), shapes[-1])


def shape_line(shape: Shape) -> str:
    """What the figures' model is, for the head of the results."""
    return (
        f"Model of the figures: a random Llama of {shape.parameters / 1e9:.1f}B parameters (hidden {shape.hidden}, "
        f"{shape.layers} layers, {shape.heads} heads over {shape.kv_heads}, vocabulary {shape.vocabulary}), "
        "the largest of three of which the card holds two"
    )

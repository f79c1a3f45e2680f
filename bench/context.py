"""What every figure is given: the device, a folder to work in, and how large the work is.

Knows nothing of models, engines or figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "bench"  # git-ignored; each run makes a folder of its own there and removes it
PEERS = ROOT / "build" / "peers"  # environments of peers that cannot live in ours

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Shape:
    """A Llama with random weights; its input and output tables are two."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int = 32000
    context: int = 8192

    @property
    def linear_widths(self) -> int:
        """Inputs and outputs of all linear layers but the head, summed: numbers that an adapter of rank 1 has."""
        keys = self.kv_heads * self.hidden // self.heads
        return self.layers * (2 * 2 * self.hidden + 2 * (self.hidden + keys) + 3 * (self.hidden + self.intermediate))

    @property
    def parameters(self) -> int:
        keys = self.kv_heads * self.hidden // self.heads
        layer = 2 * self.hidden * (self.hidden + keys) + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + 2 * self.vocabulary * self.hidden + self.hidden


LLAMA_1B = Shape(hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192)
LLAMA_3B = Shape(hidden=3072, layers=28, heads=24, kv_heads=8, intermediate=8192, vocabulary=128256)
LLAMA_8B = Shape(hidden=4096, layers=32, heads=32, kv_heads=8, intermediate=14336, vocabulary=128256)
CHECKED = Shape(hidden=1024, layers=8, heads=8, kv_heads=2, intermediate=2816, vocabulary=8000)
TINY = Shape(hidden=64, layers=2, heads=4, kv_heads=2, intermediate=96, vocabulary=1000)


@dataclass(frozen=True)
class Sizes:
    """How large each figure's work is. Token counts are of one chat."""

    chats: int = 16
    prompt: int = 64
    new: int = 32
    adapters: int = 8
    rank: int = 16
    alone: int = 128  # new tokens of one chat alone
    turns: int = 10
    answer: int = 300  # new tokens of one of those turns: what the sample's domain allows
    streams: int = 8
    idle_s: float = 5.0  # how long streams are watched before anything disturbs them
    long_prompt: int = 4000
    cycles: int = 1000
    bandwidth_bytes: int = 1 << 30
    large: Shape = LLAMA_1B
    checked: Shape = TINY  # whose answers are compared with transformers' token by token
    checked_rows: int = 2  # of the base and of each adapter
    checked_new: int = 12
    churn_bytes: int = 1 << 26  # most that is held at once to disturb the allocator


FULL = Sizes()
FULL_CUDA = Sizes(
    chats=64, adapters=32, streams=16, large=LLAMA_8B, checked=CHECKED, checked_rows=6, checked_new=64,
    churn_bytes=4 << 30,
)  # fmt: skip
QUICK = Sizes(
    chats=4, prompt=16, new=6, adapters=2, rank=8, alone=12, turns=4, answer=6, streams=2, idle_s=0.5,
    long_prompt=200, cycles=40, bandwidth_bytes=1 << 28, large=TINY,
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """One run. `model` is the folder of the model that is served; None fetches the default one. `memory` are the bytes
    of the card; 0 without one."""

    device: Device
    folder: Path
    threads: int
    sizes: Sizes = field(default_factory=Sizes)
    model: Path | None = None
    report: Callable[[str], None] = print
    memory: int = 0

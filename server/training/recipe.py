"""How an adapter is trained: the numbers, and nothing that runs."""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Recipe:
    """LoRA (Hu et al., 2021) on every linear layer but the head, with AdamW and a linear decay.

    `target_modules` empty means all linear layers. `max_tokens` bounds a whole row, prompt and answer;
    longer rows are left out, and more than `max_left_out` of them refuse the file. `held_out` is the
    share of the rows that is never trained on, by whole groups.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    learning_rate: float = 5e-4
    epochs: float = 2.0
    batch: int = 8  # rows in one forward pass
    accumulation: int = 1  # passes to one step of the optimiser
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.0
    max_tokens: int = 1024
    max_left_out: float = 0.1
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("rank", "alpha", "learning_rate", "epochs", "batch", "accumulation", "max_tokens")
        for name in positive:
            if getattr(self, name) <= 0:
                raise InvalidInput(f"recipe: {name} must be above 0, not {getattr(self, name)}")
        for name in ("dropout", "warmup", "max_left_out", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInput(f"recipe: {name} must be in [0, 1), not {getattr(self, name)}")

"""Training of adapters: from a file of examples to a checked, placed LoRA folder."""

from server.training.recipe import Recipe
from server.training.run import TrainResult, train

__all__ = ["Recipe", "TrainResult", "train"]

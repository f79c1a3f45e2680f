"""Training of adapters: from a file of examples to a checked, placed LoRA folder.

Knows nothing of serving, chats or HTTP.
"""

from typing import TYPE_CHECKING, Any

from server.training.recipe import Recipe

if TYPE_CHECKING:
    from server.training.run import TrainResult, train

__all__ = ["Recipe", "TrainResult", "train"]


def __getattr__(name: str) -> Any:
    """torch and transformers are imported for a run (PEP 562), not for who asks for a recipe's numbers."""
    if name in ("TrainResult", "train"):
        from server.training import run

        return getattr(run, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

"""Comparison of prompts and adapters on held-out rows, with intervals and tests. Knows nothing of training or HTTP."""

from server.evaluation.compare import compare
from server.evaluation.comparison import Comparison, Lever, LeverResult

__all__ = ["Comparison", "Lever", "LeverResult", "compare"]

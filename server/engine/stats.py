"""The engine's counters, for its callers and for `/metrics`. Knows nothing of where they come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Levels now, each beside its bound, and counts since the start."""

    running: int
    max_batch: int
    waiting: int
    max_waiting: int
    kv_bytes: int  # of rows; what finished ones have touched counts until the memory is compacted
    max_kv_bytes: int
    prefix_bytes: int  # kept for later rows
    max_prefix_bytes: int
    adapters: int  # loaded, or being loaded
    max_adapters: int
    adapter_bytes: int
    max_adapter_bytes: int
    max_per_user: int
    max_tokens: int
    prompt_tokens: int = 0  # of admitted rows
    cached_tokens: int = 0  # of those, taken from the prefix store
    completion_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0  # rows that a fault ended
    refused: int = 0  # "busy"
    preempted: int = 0
    steps: int = 0
    step_s: float = 0.0  # in the model
    restarts: int = 0  # of the model after a fault

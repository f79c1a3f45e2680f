"""Copies an adapter that was read into the LoRA stacks, between steps, on the thread of the model.

A processor copies it at once. Beside running answers a device is given some groups of layers a step, on a stream of its
own, so that no step waits for the copies: the adapter is there once they are done. Knows nothing of slots or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import islice
from typing import Any

import torch

from server.engine.adapters.lora_layers import LoraBank, PackedLora

GROUPS_A_STEP = 16  # of layers: about 100 launches, half a millisecond of the host


@cache
def _copy_stream(device: torch.device) -> Any:
    """One for all loads, so that they keep their order."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Installation:
    """`advance` until it says that all is in place. Raises RuntimeError where there is no memory for it."""

    def __init__(self, bank: LoraBank, stack_index: int, packed: Mapping[str, PackedLora]) -> None:
        self._groups = bank.write_groups(stack_index, packed)
        self._left = len(packed) + 1  # the last time it is found to have ended
        self._fixed = bank.fixed
        self._stream: Any = None
        self._copied: Any = None  # an event behind the last copy
        if bank.device.type == "cuda":
            self._stream = _copy_stream(bank.device)
            self._stream.wait_stream(torch.cuda.current_stream(bank.device))  # whose steps read what was there

    def advance(self, *, beside_answers: bool) -> bool:
        """Whether the adapter is in place."""
        some = GROUPS_A_STEP if self._fixed and beside_answers else self._left
        with self._streaming():
            for _ in islice(self._groups, some):
                pass
        self._left -= min(some, self._left)
        if self._left:
            return False
        if self._stream is None:
            return True
        if self._copied is None:
            self._copied = self._stream.record_event()
        if not beside_answers:
            self._copied.synchronize()
        return bool(self._copied.query())

    def _streaming(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

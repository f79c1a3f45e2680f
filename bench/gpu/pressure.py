"""The same answers while the card's memory is in turmoil and adapters come and go.

A thread takes memory of random sizes from torch's allocator, fills it with bytes that are no numbers (NaN as a float,
-1 as an index) and gives it back. What the engine reads after it was freed, in a captured graph for one, is then
garbage, and the answers show it.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import torch
from torch import Tensor

from bench import ours
from bench.context import Bench, Device
from bench.figure import Bound, Figure, Measure, Reading, Round
from bench.gpu import cases, judging
from bench.gpu.tokens import at_once, engine_settings, in_turn, review
from server.engine import LocalEngine

_SMALLEST = 512  # bytes: the allocator's own granularity
_PAUSE_S = 0.0005  # between two takings, so that the card still computes
_EMPTIED = 100  # takings after which what is cached goes back to the driver


class Churn:
    """Takes and gives back memory in a thread of its own, from entering to leaving. `taken`: how often it did.

    It uses the default stream, as the engine does: torch gives what one stream has freed to that stream again.
    """

    def __init__(self, device: Device, most_bytes: int, seed: int = 0) -> None:
        """Holds `most_bytes` at once at most."""
        self.taken = 0
        self._device = device
        self._most = most_bytes
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="churn", daemon=True)

    def __enter__(self) -> Churn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Raises what ended the thread early."""
        self._ended.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            torch.set_num_threads(1)
            held: list[Tensor] = []
            while not self._ended.is_set():
                self._take(held)
                self._ended.wait(_PAUSE_S)
        except Exception as error:  # noqa: BLE001  edge of the thread: raised where the block ends
            self._failed = error

    def _take(self, held: list[Tensor]) -> None:
        size = int(2 ** self._random.uniform(math.log2(_SMALLEST), math.log2(self._most / 4)))
        while held and (self._random.random() < 0.4 or size + sum(each.numel() for each in held) > self._most):
            held.pop(self._random.randrange(len(held)))
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device=self._device).fill_(255))
        except torch.OutOfMemoryError:  # the engine has grown: it goes first
            held.clear()
            return
        self.taken += 1
        if self._device == "cuda" and self.taken % _EMPTIED == 0:
            torch.cuda.empty_cache()


async def come_and_go(engine: LocalEngine, ended: asyncio.Event) -> int:
    """Loads and unloads the spare adapters in turn until the event is set; how many loads there were."""
    count = 0
    while not ended.is_set():
        name = cases.SPARE[count % len(cases.SPARE)]
        await engine.load_adapter(name)
        await engine.unload_adapter(name)
        count += 1
    return count


def churn_bytes(bench: Bench) -> int:
    """No more than a quarter of what is free now."""
    if bench.device == "cpu":
        return bench.sizes.churn_bytes
    free, _ = torch.cuda.mem_get_info()
    return min(bench.sizes.churn_bytes, free // 4)


@asynccontextmanager
async def under_pressure(bench: Bench) -> AsyncIterator[Round]:
    asked = cases.made(bench)

    async def one_round(number: int) -> Mapping[str, Reading]:
        async with ours.started(bench, asked.model, asked.adapters, settings=engine_settings(bench, asked)) as engine:
            quiet = await at_once(engine, asked)
            ended = asyncio.Event()
            began = time.monotonic()
            with Churn(bench.device, churn_bytes(bench)) as churn:
                coming = asyncio.create_task(come_and_go(engine, ended))
                try:
                    passes = {"first": await at_once(engine, asked), "in turn": await in_turn(engine, asked)}
                    passes["last"] = await at_once(engine, asked)
                finally:
                    ended.set()
                loads = await coming
            engine.check_integrity()
            note = f"{churn.taken:,} allocations and {loads:,} loads in {time.monotonic() - began:.0f} s"
            numbers: torch.dtype = getattr(torch, engine.model.dtype)
        found = review(asked, passes, bench.device, numbers)
        pairs = [
            (disturbed, calm)
            for answers in passes.values()
            for adapter, rows in answers.items()
            for disturbed, calm in zip(rows, quiet[adapter], strict=True)
        ]
        return {
            "wrong": Reading(found.wrong, note=f"{found.note()}; {note}"),
            "same": Reading(judging.share(pairs), note=f"{len(pairs)} answers"),
        }

    yield one_round


FIGURE = Figure(
    "cuda-pressure",
    (
        Measure(
            "wrong", "answers with a token that transformers + peft would not choose, while memory is taken and given "
            "back and adapters load and unload", "answers", Bound(0, at_most=True),
        ),
        Measure("same", "the same: tokens before an answer's first difference from the quiet one", "%"),
    ),
    under_pressure,
    device="cuda",
    rounds=1,
    gate=True,
)  # fmt: skip

"""Adapters that break, or are given up, on their way from the disk to the model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from server.config import EngineSettings
from server.engine.adapters import loader, reading
from server.engine.adapters.folders import AdapterFolder
from server.engine.adapters.lora_layers import LoraGroup
from server.engine.adapters.manager import AdapterManager
from server.errors import AdapterInvalid
from server.types import AdapterState
from tests.engine.conftest import EngineFactory, Reply, ask, until
from tests.engine.oracle import prompt


async def test_a_file_that_is_cut_off_after_its_check(tiny, adapters, engines, exact, monkeypatch) -> None:
    weights = adapters / "a" / "1" / "adapter_model.safetensors"
    whole = weights.read_bytes()
    engine = await engines(tiny("llama"), adapters)

    def cut_off(folder: Path, target: Any):
        if folder.parent.name == "a":
            weights.write_bytes(whole[: len(whole) // 2])
        return reading.read_adapter(folder, target)

    monkeypatch.setattr(loader, "read_adapter", cut_off)
    results = await asyncio.gather(
        ask(engine, prompt(1, 20), adapter="a"),
        exact(engine, prompt(1, 20), "b"),
        engine.load_adapter("a"),
        exact(engine, prompt(1, 20)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [AdapterInvalid, Reply, AdapterInvalid, Reply], results
    assert {info.name: info.state for info in engine.adapters()}["b"] is AdapterState.LOADED
    monkeypatch.undo()
    weights.write_bytes(whole)
    await exact(engine, prompt(1, 20), "a")


async def test_weights_that_cannot_be_installed_fail_their_load_alone(
    tiny, adapters, engines: EngineFactory, exact, monkeypatch
) -> None:
    engine = await engines(tiny("llama"), adapters)
    await exact(engine, prompt(1, 20), "b")
    write, broken = LoraGroup.write, True

    def sometimes(self: LoraGroup, stack_index: int, pairs: Any) -> None:
        if broken and "down_proj" in self.names[0]:
            raise RuntimeError("out of memory, perhaps")
        write(self, stack_index, pairs)

    monkeypatch.setattr(LoraGroup, "write", sometimes)
    loads = asyncio.gather(
        ask(engine, prompt(1, 20), adapter="a"),
        engine.load_adapter("a"),
        exact(engine, prompt(2, 20), "b", 40),
        return_exceptions=True,
    )
    first, second, other = await asyncio.wait_for(loads, 60)
    for error in (first, second):
        assert isinstance(error, AdapterInvalid)
        assert "out of memory" in str(error)
    assert isinstance(other, Reply), other
    assert engine.health().ok
    broken = False
    await asyncio.wait_for(exact(engine, prompt(1, 20), "a"), 60)


async def test_a_cancelled_load_harms_no_other(tiny, adapters, engines: EngineFactory, exact, monkeypatch) -> None:
    engine = await engines(tiny("llama"), adapters)
    entered, gate = threading.Event(), threading.Event()

    def slow_disk(*args: Any):
        entered.set()
        gate.wait(60)
        return reading.read_adapter(*args)

    monkeypatch.setattr(loader, "read_adapter", slow_disk)
    given_up, kept = (asyncio.create_task(engine.load_adapter("a")) for _ in range(2))
    await asyncio.to_thread(entered.wait, 60)
    running = asyncio.create_task(exact(engine, prompt(1, 20), count=40))
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    gate.set()
    assert (await kept).state is AdapterState.LOADED
    await running
    await exact(engine, prompt(1, 20), "a")
    assert engine.stats().failed == 0


async def test_a_stack_index_that_is_reused_while_it_is_cleared(tiny, adapters, engines, exact, monkeypatch) -> None:
    """Between clearing dropped adapters and installing new ones, another may be dropped and its stack index reused: the
    new one must not be cleared with it."""
    engine = await engines(tiny("llama"), adapters, max_loras=2)
    manager, bank = engine._model_thread.adapter_manager, engine._runtime.path.bank
    for name in ("b", "c"):
        await engine.load_adapter(name)
    clear, loop = bank.clear, asyncio.get_running_loop()
    loads: list[Any] = []

    def clear_slowly(stack_index: int) -> None:
        clear(stack_index)
        if not loads:
            loads.append(None)
            for name in ("a", "b"):  # the second one reuses the index of the last that is loaded
                loads.append(asyncio.run_coroutine_threadsafe(engine.load_adapter(name), loop))
                ends = time.monotonic() + 30
                while not any(slot.folder.name == name for slot, _ in tuple(manager._results)):
                    assert time.monotonic() < ends
                    time.sleep(0.001)

    monkeypatch.setattr(bank, "clear", clear_slowly)
    await engine.unload_adapter("b")
    await until(lambda: len(loads) == 3 and all(load.done() for load in loads[1:]), "both loads")
    await exact(engine, prompt(1, 20))
    await exact(engine, prompt(1, 20), "a")
    await exact(engine, prompt(1, 20), "b")


def test_a_failed_load_is_reported_whatever_becomes_of_the_next(tmp_path: Path) -> None:
    class Bank:
        pack = clear = None
        fixed, device = False, torch.device("cpu")

        def write_groups(self, stack_index: int, packed: object) -> Iterator[None]:
            raise ValueError("nobody has thought of this")
            yield

    changed = threading.Condition()
    manager = AdapterManager(Bank(), None, EngineSettings(), changed)
    broken, good = (manager.slots.reserve(AdapterFolder(name, "1", tmp_path / name, (), ""), 1, 0.0) for name in "ab")
    manager._on_result((broken, AdapterInvalid("it is cut off")))
    manager._on_result((good, {}))
    wrong = manager.install(beside_answers=False)
    assert next(wrong)[0] is broken
    with pytest.raises(ValueError, match="thought"):
        next(wrong)
    manager.close()

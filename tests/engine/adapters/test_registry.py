"""Adapters while the engine runs: load, unload, slots, folders that appear, change, break and go."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
import time
import weakref
from pathlib import Path

import pytest

from server.engine.adapters import loader, reading
from server.engine.adapters.reading import read_adapter
from server.engine.forward.paths import DecoderForward
from server.errors import AdapterForeign, AdapterInUse, AdapterInvalid, AdapterNotFound
from server.types import AdapterState, GenerationRequest, SamplingParams, TokenDelta
from tests.engine.conftest import EngineFactory, ask, greedy, make_adapter, reference, settle, until

PROMPT = [5, 6, 7, 8, 9]
FREE = {"logit_bias": {0: -100.0, 1: -100.0, 2: -100.0}}


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    for seed, name in enumerate("abcd"):
        make_adapter(tiny("llama"), root, name, seed=seed + 1)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "adapters"))


@pytest.fixture
def slow(monkeypatch) -> None:
    run = DecoderForward.run

    def slowly(self, chunks):
        time.sleep(0.003)
        return run(self, chunks)

    monkeypatch.setattr(DecoderForward, "run", slowly)


def stream(engine, adapter: str, most: int = 230):
    params = SamplingParams(temperature=0, max_tokens=most, **FREE)
    return engine.generate(GenerationRequest(tuple(PROMPT), params, adapter))


async def begun(engine, adapter: str, most: int = 230):
    """A stream of that adapter that has given its first text."""
    events = stream(engine, adapter, most)
    async for event in events:
        if isinstance(event, TokenDelta):
            return events
    raise AssertionError("it ended without text")


def states(engine) -> dict[str, AdapterState]:
    return {f"{info.name}@{info.version}": info.state for info in engine.adapters()}


def loaded(engine) -> set[str]:
    return {name for name, state in states(engine).items() if state is AdapterState.LOADED}


async def alone(tiny, engine, folder: Path, count: int = 12) -> str:
    ids = greedy(reference(tiny("llama"), folder), PROMPT, count, engine.tokenizer.stop_ids)
    return engine.tokenizer.decode(ids).rstrip("\ufffd")  # random tokens may end inside a character


async def test_it_loads_on_first_use_and_is_shown(tiny, root: Path, engines: EngineFactory) -> None:
    (root / "a" / "1" / "tailor.json").write_text(json.dumps({"description": "Reads contracts."}))
    engine = await engines(tiny("llama"), root)
    assert states(engine) == dict.fromkeys(("a@1", "b@1", "c@1", "d@1"), AdapterState.AVAILABLE)
    assert (await ask(engine, PROMPT, adapter="a")).text == await alone(tiny, engine, root / "a" / "1")
    info = engine.adapters()[0]
    assert (info.state, info.rank, info.modules, info.in_use) == (AdapterState.LOADED, 4, 9, 0)
    assert info.description == "Reads contracts."
    assert info.bytes > 0
    assert abs((info.last_used or 0) - time.time()) < 60
    assert engine.adapters()[1].last_used is None


async def test_load_and_unload_by_hand(tiny, root: Path, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"), root)
    info = await engine.load_adapter("b")
    assert (info.name, info.version, info.state) == ("b", "1", AdapterState.LOADED)
    assert (await engine.load_adapter("b@1")).state is AdapterState.LOADED
    await engine.unload_adapter("b")
    assert loaded(engine) == set()
    with pytest.raises(AdapterNotFound, match="is not loaded"):
        await engine.unload_adapter("b")
    with pytest.raises(AdapterNotFound, match="no adapter 'z'"):
        await engine.load_adapter("z")


async def test_unloading_gives_the_memory_back_every_time(tiny, root: Path, engines, monkeypatch) -> None:
    read: list[weakref.ref] = []

    def watched(*args):
        facts, pairs = read_adapter(*args)
        read.extend(weakref.ref(pair.a) for pair in pairs.values())
        return facts, pairs

    monkeypatch.setattr("server.engine.adapters.loader.read_adapter", watched)
    engine = await engines(tiny("llama"), root)
    bank = engine._runtime.path.bank
    for _ in range(50):
        await engine.load_adapter("a")
        await ask(engine, PROMPT, adapter="a", max_tokens=1)
        await settle(engine)
        await engine.unload_adapter("a")
    await ask(engine, PROMPT, max_tokens=1)
    gc.collect()
    assert len(read) >= 50
    assert not any(ref() is not None for ref in read)
    assert bank.bytes == 0
    assert engine.stats().adapter_bytes == 0


async def test_the_least_recently_used_is_evicted(tiny, root: Path, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"), root, max_loras=2)
    for name in ("a", "b", "a", "c"):
        await ask(engine, PROMPT, adapter=name, max_tokens=1)
        await settle(engine)
    assert loaded(engine) == {"a@1", "c@1"}


async def test_one_in_use_never_leaves(tiny, root: Path, engines: EngineFactory, slow) -> None:
    engine = await engines(tiny("llama"), root, max_loras=1)
    events = await begun(engine, "a")
    with pytest.raises(AdapterInUse, match="a@1"):
        await engine.load_adapter("b")
    with pytest.raises(AdapterInUse, match="running answers"):
        await engine.unload_adapter("a")
    assert engine.adapters()[0].in_use == 1
    await events.aclose()
    await settle(engine)
    assert (await engine.load_adapter("b")).state is AdapterState.LOADED


async def test_a_request_waits_for_a_slot_instead_of_failing(tiny, root: Path, engines: EngineFactory, slow) -> None:
    engine = await engines(tiny("llama"), root, max_loras=1)
    events = await begun(engine, "a")
    waiting = asyncio.create_task(ask(engine, PROMPT, adapter="b"))
    await until(lambda: engine.health().waiting == 1, "the other")
    assert (await ask(engine, PROMPT, max_tokens=2)).done, "rows of the base pass it"
    await events.aclose()
    assert (await waiting).text == await alone(tiny, engine, root / "b" / "1")


async def test_four_adapters_over_two_slots_all_get_their_own_text(tiny, root: Path, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"), root, max_loras=2)
    names = list("abcdabcddcba")
    replies = await asyncio.gather(*(ask(engine, PROMPT, adapter=name) for name in names))
    expected = {name: await alone(tiny, engine, root / name / "1") for name in "abcd"}
    assert len(set(expected.values())) == 4
    for name, reply in zip(names, replies, strict=True):
        assert reply.text == expected[name]
    assert len(loaded(engine)) <= 2


async def test_loading_and_failing_leave_running_rows_alone(tiny, root: Path, engines: EngineFactory, slow) -> None:
    engine = await engines(tiny("llama"), root, max_loras=3)
    expected = await ask(engine, PROMPT, adapter="a", max_tokens=100, **FREE)
    running = asyncio.create_task(ask(engine, PROMPT, adapter="a", max_tokens=100, **FREE))
    broken = root / "broken" / "1"
    for size in range(6):
        await engine.load_adapter("b")
        await ask(engine, PROMPT, adapter="c", max_tokens=1)
        shutil.copytree(root / "d" / "1", broken)
        (broken / "adapter_model.safetensors").write_bytes(b"x" * size)
        with pytest.raises(AdapterInvalid):
            await engine.load_adapter("broken")
        shutil.rmtree(broken)
        await engine.unload_adapter("b")
    assert (await running).text == expected.text
    assert engine.health().ok


async def test_an_invalid_adapter_is_listed_with_its_reason(tiny, root: Path, engines: EngineFactory) -> None:
    (root / "a" / "1" / "adapter_model.safetensors").unlink()
    (root / "a" / "1" / "adapter_model.bin").write_bytes(b"pickle")
    (root / "Wrong Name").mkdir()
    engine = await engines(tiny("llama"), root)
    infos = {info.name: info for info in engine.adapters()}
    assert infos["a"].state is AdapterState.INVALID
    assert "pickle" in infos["a"].reason
    assert infos["Wrong Name"].state is AdapterState.INVALID
    with pytest.raises(AdapterInvalid, match="pickle"):
        await ask(engine, PROMPT, adapter="a")
    assert (await ask(engine, PROMPT, adapter="b")).done


async def test_an_adapter_of_another_base_is_refused(tiny, root: Path, engines: EngineFactory) -> None:
    (root / "a" / "1" / "tailor.json").write_text(json.dumps({"base_fingerprint": "f" * 16}))
    engine = await engines(tiny("llama"), root)
    with pytest.raises(AdapterForeign, match="another base model"):
        await engine.load_adapter("a")
    (root / "a" / "1" / "tailor.json").write_text(json.dumps({"base_fingerprint": engine.model.fingerprint}))
    assert (await engine.load_adapter("a")).state is AdapterState.LOADED


async def test_a_bad_newest_version_falls_back_to_the_last_good_one(tiny, root: Path, engines: EngineFactory) -> None:
    shutil.copytree(root / "b" / "1", root / "a" / "2")
    (root / "a" / "2" / "adapter_config.json").write_text("{")
    engine = await engines(tiny("llama"), root)
    assert (await ask(engine, PROMPT, adapter="a")).text == await alone(tiny, engine, root / "a" / "1")
    with pytest.raises(AdapterInvalid, match="a/2"):
        await ask(engine, PROMPT, adapter="a@2")
    assert states(engine)["a@2"] is AdapterState.INVALID
    assert states(engine)["a@1"] is AdapterState.LOADED


async def test_a_new_version_serves_new_rows_and_old_ones_keep_theirs(tiny, root: Path, engines, slow) -> None:
    engine = await engines(tiny("llama"), root)
    expected = await ask(engine, PROMPT, adapter="a", max_tokens=120, **FREE)
    old = asyncio.create_task(ask(engine, PROMPT, adapter="a", max_tokens=120, **FREE))
    await until(lambda: engine.health().running == 1, "the old one")
    shutil.copytree(root / "b" / "1", root / "a" / "2")
    new = await ask(engine, PROMPT, adapter="a")
    assert new.text == await alone(tiny, engine, root / "b" / "1")
    assert loaded(engine) == {"a@1", "a@2"}
    assert (await old).text == expected.text
    await settle(engine)
    await engine.refresh_adapters()
    assert loaded(engine) == {"a@2"}


async def test_an_older_version_that_is_asked_for_by_number_stays(tiny, root: Path, engines: EngineFactory) -> None:
    shutil.copytree(root / "b" / "1", root / "a" / "2")
    engine = await engines(tiny("llama"), root)
    await engine.load_adapter("a")
    assert (await engine.load_adapter("a@1")).state is AdapterState.LOADED
    await engine.refresh_adapters()
    assert loaded(engine) == {"a@1", "a@2"}
    await engine.load_adapter("a")
    assert loaded(engine) == {"a@2"}, "the bare name means the newest, and replaces the older one"


async def test_changed_files_are_a_new_load(tiny, root: Path, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"), root)
    before = (await ask(engine, PROMPT, adapter="a")).text
    shutil.copyfile(root / "b" / "1" / "adapter_model.safetensors", root / "a" / "1" / "adapter_model.safetensors")
    after = (await ask(engine, PROMPT, adapter="a")).text
    assert before != after
    assert after == await alone(tiny, engine, root / "b" / "1")


async def test_refresh_loads_what_appears_and_drops_what_goes(tiny, made: Path, root: Path, engines) -> None:
    shutil.rmtree(root / "d")
    engine = await engines(tiny("llama"), root, max_loras=2)
    await engine.refresh_adapters()
    assert loaded(engine) == set(), "what was there at the start waits for its first use"
    shutil.copytree(made / "d", root / "d")
    await engine.refresh_adapters()
    assert loaded(engine) == {"d@1"}
    await engine.unload_adapter("d")
    await engine.refresh_adapters()
    assert loaded(engine) == set(), "what was unloaded by hand stays so"
    await engine.load_adapter("d")
    shutil.rmtree(root / "d")
    await engine.refresh_adapters()
    assert "d@1" not in states(engine)


async def test_refresh_takes_only_free_slots(tiny, made: Path, root: Path, engines) -> None:
    for name in "cd":
        shutil.rmtree(root / name)
    engine = await engines(tiny("llama"), root, max_loras=1)
    await engine.load_adapter("a")
    shutil.copytree(made / "d", root / "d")
    await engine.refresh_adapters()
    assert loaded(engine) == {"a@1"}


async def test_a_half_copied_folder_becomes_valid_when_it_is_whole(tiny, made: Path, root: Path, engines) -> None:
    shutil.rmtree(root / "d")
    engine = await engines(tiny("llama"), root)
    (root / "d" / "1").mkdir(parents=True)
    weights = (made / "d" / "1" / "adapter_model.safetensors").read_bytes()
    (root / "d" / "1" / "adapter_model.safetensors").write_bytes(weights[: len(weights) // 2])
    await engine.refresh_adapters()
    assert states(engine)["d@1"] is AdapterState.INVALID
    shutil.copytree(made / "d", root / "d", dirs_exist_ok=True)
    await engine.refresh_adapters()
    assert states(engine)["d@1"] is AdapterState.LOADED


async def test_a_folder_seen_by_listing_alone_is_checked_behind_it(tiny, made: Path, root: Path, engines) -> None:
    shutil.rmtree(root / "d")
    engine = await engines(tiny("llama"), root)
    (root / "d" / "1").mkdir(parents=True)
    assert "d@1" in states(engine)
    await until(lambda: states(engine)["d@1"] is AdapterState.INVALID, "the check")


async def test_files_that_go_bad_between_check_and_load(tiny, root: Path, engines, monkeypatch) -> None:
    engine = await engines(tiny("llama"), root, max_loras=1)

    def late(folder, target):
        raise AdapterInvalid("the adapter in a/1 cannot be read: it went away")

    monkeypatch.setattr(loader, "read_adapter", late)
    results = await asyncio.gather(
        ask(engine, PROMPT, adapter="a"),
        ask(engine, PROMPT, adapter="a"),
        engine.load_adapter("a"),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [AdapterInvalid] * 3
    monkeypatch.setattr(loader, "read_adapter", reading.read_adapter)
    assert (await ask(engine, PROMPT, adapter="a")).done


async def test_a_bug_in_reading_never_leaves_a_row_waiting(tiny, root: Path, engines, monkeypatch, caplog) -> None:
    engine = await engines(tiny("llama"), root)

    def bug(folder, target):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(loader, "read_adapter", bug)
    with pytest.raises(AdapterInvalid, match="a bug"):
        await asyncio.wait_for(ask(engine, PROMPT, adapter="a"), 60)
    assert "reading an adapter failed" in caplog.text


async def test_reading_never_stalls_a_stream(tiny, root: Path, engines, monkeypatch, slow) -> None:
    engine = await engines(tiny("llama"), root)
    gate = threading.Event()

    def slow_disk(folder, target):
        gate.wait(60)
        return reading.read_adapter(folder, target)

    monkeypatch.setattr(loader, "read_adapter", slow_disk)
    load = asyncio.create_task(engine.load_adapter("a"))
    reply = await ask(engine, PROMPT, max_tokens=30, **FREE)
    assert reply.usage.completion_tokens == 30
    assert not load.done()
    assert states(engine)["a@1"] is AdapterState.LOADING
    gate.set()
    assert (await load).state is AdapterState.LOADED


async def test_cancelling_while_its_adapter_loads(tiny, root: Path, engines, monkeypatch) -> None:
    engine = await engines(tiny("llama"), root)
    gate = threading.Event()

    def slow_disk(folder, target):
        gate.wait(60)
        return reading.read_adapter(folder, target)

    monkeypatch.setattr(loader, "read_adapter", slow_disk)
    task = asyncio.create_task(ask(engine, PROMPT, adapter="a"))
    await until(lambda: states(engine)["a@1"] is AdapterState.LOADING, "the load")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await until(lambda: engine.health().waiting == 0 and engine.adapters()[0].in_use == 0, "its end")
    assert (await ask(engine, PROMPT, adapter="a")).done


@pytest.mark.parametrize("spec", ["../a", "a/1", "A", "a@../../etc", "."])
async def test_ids_that_are_none(tiny, root: Path, engines: EngineFactory, spec: str) -> None:
    engine = await engines(tiny("llama"), root)
    with pytest.raises(AdapterNotFound, match="no adapter id"):
        await ask(engine, PROMPT, adapter=spec)
    with pytest.raises(AdapterNotFound):
        await engine.load_adapter(spec)

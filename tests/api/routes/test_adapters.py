"""Adapters at runtime on the real engine with a tiny model: by API, on first use, by a folder that appears."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from server.config import EngineSettings, ModelSettings
from server.engine import AdapterCatalogue, LocalEngine
from tests.engine.conftest import CONFIGS, make_adapter, save_tiny
from tests.live import LiveServer, chat_session, make_app, make_workspace, only, serving, text_of

MAX_LORAS = 2


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "llama", CONFIGS["llama"]())


@pytest.fixture(scope="module")
def adapter_templates(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters that tests copy from."""
    folder = tmp_path_factory.mktemp("shelf")
    for seed, name in enumerate(("helper", "second", "third"), start=1):
        make_adapter(base, folder, name, seed=seed)
    return folder


@pytest.fixture(scope="module")
def workspace(adapter_templates: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_workspace(tmp_path_factory.mktemp("adapters"))
    general = folder / "prompts" / "general.md"
    general.write_text(general.read_text().replace("memory: true", "sampling: {temperature: 0, max_tokens: 12}"))
    for name in ("helper", "second", "third"):
        shutil.copytree(adapter_templates / name, folder / "adapters" / name)
    return folder


@pytest.fixture(scope="module")
def live(workspace: Path, base: Path) -> Iterator[LiveServer]:
    settings = EngineSettings(max_loras=MAX_LORAS)
    engine = LocalEngine(str(base), settings, ModelSettings(), AdapterCatalogue(workspace / "adapters"))
    with serving(make_app(workspace, engine)) as served:
        yield served


def state(live: LiveServer, name: str) -> dict[str, Any]:
    found = httpx.get(f"{live.url}/api/adapters", timeout=60).json()["adapters"]
    return next((adapter for adapter in found if adapter["name"] == name), {"state": "absent"})


def wait_for(live: LiveServer, name: str, wanted: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (found := state(live, name))["state"] != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def load(live: LiveServer, name: str) -> httpx.Response:
    return httpx.post(f"{live.url}/v1/load_lora_adapter", json={"lora_name": name}, timeout=60)


def unload(live: LiveServer, name: str) -> httpx.Response:
    return httpx.post(f"{live.url}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=60)


def complete(live: LiveServer, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 12}
    return httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=60)


def text(live: LiveServer, model: str) -> str:
    return str(complete(live, model).json()["choices"][0]["message"]["content"])


def test_each_adapter_answers_in_its_own_way_and_the_least_used_leaves(live: LiveServer) -> None:
    answers = {model: text(live, model) for model in ("base", "helper", "second", "third")}
    assert len(set(answers.values())) == 4
    states = {name: state(live, name)["state"] for name in ("helper", "second", "third")}
    assert list(states.values()).count("loaded") == MAX_LORAS
    assert states["third"] == "loaded"
    assert {model: text(live, model) for model in answers} == answers


def test_load_and_unload_by_api(live: LiveServer) -> None:
    assert load(live, "helper").json()["adapter"]["rank"] == 4
    assert state(live, "helper")["bytes"] > 0
    assert unload(live, "helper").status_code == 200
    assert state(live, "helper")["state"] == "available"
    by_path = httpx.post(
        f"{live.url}/v1/load_lora_adapter", json={"lora_name": "helper", "lora_path": "helper/1"}, timeout=60
    )
    assert by_path.json()["adapter"]["version"] == "1"


async def test_a_domains_adapter_is_loaded_on_first_use(live: LiveServer) -> None:
    for name in ("helper", "second", "third"):
        await asyncio.to_thread(unload, live, name)
    async with chat_session(live) as client:
        events = await client.ask("Where is my parcel?", domain="support")
    assert only(events, "prompt")["adapter"] == "helper"
    assert only(events, "done")
    assert (await asyncio.to_thread(state, live, "helper"))["state"] == "loaded"


def test_a_folder_that_appears_is_loaded_and_a_new_version_replaces_it(
    live: LiveServer, workspace: Path, base: Path, tmp_path: Path
) -> None:
    for name in ("helper", "second", "third"):
        unload(live, name)
    make_adapter(base, tmp_path, "fresh", seed=7)
    shutil.copytree(tmp_path / "fresh", workspace / "adapters" / "fresh")
    assert wait_for(live, "fresh", "loaded")["version"] == "1"
    first = text(live, "fresh")
    make_adapter(base, tmp_path / "new", "fresh", "2", seed=8)
    shutil.copytree(tmp_path / "new" / "fresh" / "2", workspace / "adapters" / "fresh" / "2")
    deadline = time.monotonic() + 120
    while state(live, "fresh")["version"] != "2" or state(live, "fresh")["state"] != "loaded":
        assert time.monotonic() < deadline, state(live, "fresh")
        time.sleep(0.1)
    assert text(live, "fresh") != first
    shutil.rmtree(workspace / "adapters" / "fresh")
    wait_for(live, "fresh", "absent")
    assert complete(live, "fresh").status_code == 404


def test_a_folder_that_goes_while_its_adapter_answers_leaves_after_the_answer(
    live: LiveServer, workspace: Path, adapter_templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = live.app.state.services.engine._runtime.path
    run = path.run
    monkeypatch.setattr(path, "run", lambda chunks: time.sleep(0.05) or run(chunks))  # it has not ended meanwhile
    unload(live, "second")
    shutil.copytree(adapter_templates / "third", workspace / "adapters" / "brief")
    wait_for(live, "brief", "loaded")
    body = {"model": "brief", "messages": [{"role": "user", "content": "Go on"}], "max_tokens": 200, "stream": True}
    body["logit_bias"] = {"0": -100, "1": -100, "2": -100}  # it shall not end by itself
    with httpx.stream("POST", f"{live.url}/v1/chat/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()  # kept: a generator that is dropped closes the connection
        next(lines)
        shutil.rmtree(workspace / "adapters" / "brief")
        time.sleep(1)  # the change is noticed while the adapter is used
        assert state(live, "brief")["state"] == "loaded"
    wait_for(live, "brief", "absent")


def test_the_metrics_tell_what_the_real_engine_did(live: LiveServer) -> None:
    def read() -> dict[str, float]:
        found = httpx.get(f"{live.url}/metrics", timeout=60).text
        samples = [line.split() for line in found.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in samples}

    before = read()
    written = complete(live, "helper").json()["usage"]["completion_tokens"]
    deadline = time.monotonic() + 120
    while (after := read())["tailor_requests_finished_total"] == before["tailor_requests_finished_total"]:
        assert time.monotonic() < deadline, after
    assert after["tailor_engine_up"] == 1
    assert after["tailor_completion_tokens_total"] - before["tailor_completion_tokens_total"] == written
    for count in ("tailor_prompt_tokens_total", "tailor_engine_steps_total", "tailor_engine_step_seconds_total"):
        assert after[count] > before[count], count
    assert 1 <= after["tailor_adapters"] <= after["tailor_adapters_max"] == MAX_LORAS
    assert 0 < after["tailor_adapter_bytes"] <= after["tailor_adapter_max_bytes"]


def breakages(folder: Path, base: Path) -> dict[str, tuple[Callable[[], object], str]]:
    """What can be wrong with an adapter's folder, and a word its error must hold."""
    config = folder / "adapter_config.json"
    weights = folder / "adapter_model.safetensors"

    def edit(**fields: Any) -> None:
        config.write_text(json.dumps(json.loads(config.read_text()) | fields))

    def other_base() -> None:
        (folder / "tailor.json").write_text(json.dumps({"base_fingerprint": "0" * 16}))

    def pickle() -> None:
        weights.unlink()
        torch.save({"x": torch.zeros(1)}, folder / "adapter_model.bin")

    return {
        "another base": (other_base, "base"),
        "a rank above the limit": (lambda: edit(r=4096), "rank"),
        "a rank that is not the tensors'": (lambda: edit(r=2), "rank"),
        "a pickle": (pickle, "safetensors"),
        "no weights": (weights.unlink, "adapter_model.safetensors"),
        "no config": (config.unlink, "adapter_config.json"),
        "cut weights": (lambda: weights.write_bytes(weights.read_bytes()[:-100]), "cannot be read"),
        "empty weights": (lambda: weights.write_bytes(b""), "cannot be read"),
        "a config that is no JSON": (lambda: config.write_text("{"), "adapter_config.json"),
        "another kind": (lambda: edit(peft_type="IA3"), "IA3"),
    }


@pytest.mark.parametrize("fault", list(breakages(Path(), Path())))
async def test_a_bad_adapter_is_refused_by_name_while_chats_go_on(
    live: LiveServer, workspace: Path, adapter_templates: Path, base: Path, tmp_path: Path, fault: str
) -> None:
    shutil.copytree(adapter_templates / "helper", tmp_path / "broken")
    breakage, says = breakages(tmp_path / "broken" / "1", base)[fault]
    breakage()
    folder = workspace / "adapters" / "broken"
    (tmp_path / "broken").rename(folder)  # in one step: nobody sees it whole
    try:
        async with chat_session(live) as client:
            await client.frame(type="send", request_id="r", text="Hello", domain="general")
            await client.until("started")
            refused = await asyncio.to_thread(load, live, "broken")
            assert refused.status_code == 422, refused.text
            error = refused.json()["error"]
            assert "broken" in error["message"]
            assert says in error["message"]
            running = await client.until("closed")
            assert only(running, "done")
            assert text_of(running)
        listed = await asyncio.to_thread(wait_for, live, "broken", "invalid")
        assert says in listed["reason"]
    finally:
        shutil.rmtree(folder)
    await asyncio.to_thread(wait_for, live, "broken", "absent")


def test_an_adapter_of_another_base_has_other_shapes(live: LiveServer, workspace: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "qwen", CONFIGS["gpt2"]())
    make_adapter(other, tmp_path, "stranger", target_modules=["c_attn"])
    shutil.copytree(tmp_path / "stranger", workspace / "adapters" / "stranger")
    refused = load(live, "stranger")
    assert refused.status_code == 422
    assert "c_attn" in refused.json()["error"]["message"]
    shutil.rmtree(workspace / "adapters" / "stranger")


@pytest.mark.parametrize("name", ["../helper", "helper/1", "..", "a" * 65, "helper@../../x", ""])
def test_no_name_leads_out_of_the_folder(live: LiveServer, name: str) -> None:
    assert load(live, name).status_code in (400, 404, 422)

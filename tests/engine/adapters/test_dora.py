"""DoRA in mixed batches, against PEFT alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from server.config import ModelSettings
from server.engine.adapters.lora_layers import linear_layers
from server.engine.adapters.reading import AdapterTarget, read_adapter
from server.engine.forward.linears import choose_linear
from server.engine.forward.paths import DecoderForward, DeviceLayout
from server.errors import AdapterInvalid
from tests.engine.conftest import EngineFactory, ask, greedy, make_adapter, peft_quiet, reference

PROMPTS = [
    [3 + (seed * 37 + place * 11) % 330 for place in range(length)] for seed, length in enumerate((30, 5, 41, 9))
]


def make_dora(base: Path, root: Path, name: str, targets) -> Path:
    """Random directions and magnitudes well away from the base's."""
    torch.manual_seed(len(name))
    with peft_quiet(), torch.no_grad():
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(str(base)),
            LoraConfig(
                r=4, lora_alpha=8, use_dora=True, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM"
            ),
        )
        for key, tensor in model.named_parameters():
            if "magnitude" in key:
                tensor.mul_(torch.empty_like(tensor).uniform_(0.7, 1.6))
            elif "lora_" in key:
                tensor.normal_(0, 0.2)
        model.save_pretrained(str(root / name / "1"), save_embedding_layers=False)
    return root / name / "1"


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("llama", ["q_proj", "v_proj", "down_proj"]),
        ("qwen2", ["q_proj", "k_proj", "o_proj", "up_proj"]),  # with biases
        ("bloom", ["query_key_value"]),  # by transformers' layers
    ],
)
async def test_a_dora_row_beside_others_is_what_peft_computes(
    tiny, tmp_path: Path, engines: EngineFactory, name: str, targets
) -> None:
    base = tiny(name)
    folders = {
        "dora": make_dora(base, tmp_path, "dora", targets),
        "again": make_dora(base, tmp_path, "again", targets),
        "plain": make_adapter(base, tmp_path, "plain", target_modules=targets),
    }
    engine = await engines(base, tmp_path)
    adapters = ["dora", None, "plain", "again"]
    jobs = [(prompt, adapter) for prompt in PROMPTS for adapter in adapters]
    replies = await asyncio.gather(*(ask(engine, prompt, adapter=adapter, max_tokens=8) for prompt, adapter in jobs))
    models = {key: reference(base, folder) for key, folder in folders.items()} | {None: reference(base)}
    texts = {}
    for (prompt, adapter), reply in zip(jobs, replies, strict=True):
        expected = greedy(models[adapter], prompt, 8, engine.tokenizer.stop_ids)
        assert reply.text.rstrip("\ufffd") == engine.tokenizer.decode(expected).rstrip("\ufffd"), adapter
        texts.setdefault(adapter, []).append(reply.text)
    assert len({tuple(found) for found in texts.values()}) == 4, "each has an effect of its own"
    await engine.unload_adapter("dora")
    assert (await ask(engine, PROMPTS[0], max_tokens=8)).text == texts[None][0]


async def test_dora_over_int8_counts_with_the_weights_that_serve(tiny, tmp_path: Path, engines: EngineFactory) -> None:
    """A DoRA that changes nothing must change nothing, whatever the base's numbers are."""
    folder = make_dora(tiny("llama"), tmp_path, "same", ["q_proj", "down_proj"])
    engine = await engines(tiny("llama"), tmp_path, model_settings=ModelSettings(device="cpu", quantize="int8"))
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    bank = engine._runtime.path.bank
    for key in tensors:
        if key.endswith("lora_B.weight"):
            tensors[key] = torch.zeros_like(tensors[key])
    for key in tensors:
        if key.endswith("magnitude_vector"):
            module = key.removeprefix("base_model.model.").removesuffix(".lora_magnitude_vector")
            weight = bank.group(module)._base.weight()[: len(tensors[key])]
            tensors[key] = torch.linalg.vector_norm(weight, dim=1)
    save_file(tensors, path)
    plain = await ask(engine, PROMPTS[2], max_tokens=8, logprobs=5)
    same = await ask(engine, PROMPTS[2], adapter="same", max_tokens=8, logprobs=5)
    assert same.text == plain.text


async def test_dora_in_layers_that_keep_their_weights_turned_is_refused(tiny, tmp_path: Path, engines) -> None:
    make_dora(tiny("gpt2"), tmp_path, "turned", ["c_attn"])
    engine = await engines(tiny("gpt2"), tmp_path)
    with pytest.raises(AdapterInvalid, match="DoRA cannot be served in layer"):
        await engine.load_adapter("turned")


async def test_magnitudes_must_be_there_and_fit(tiny, tmp_path: Path, engines: EngineFactory) -> None:
    folder = make_dora(tiny("llama"), tmp_path, "broken", ["q_proj"])
    path = folder / "adapter_model.safetensors"
    whole = load_file(path)
    engine = await engines(tiny("llama"), tmp_path)
    key = next(key for key in whole if "magnitude" in key)
    save_file({name: tensor for name, tensor in whole.items() if name != key}, path)
    with pytest.raises(AdapterInvalid, match="lacks DoRA's magnitudes"):
        await engine.load_adapter("broken")
    save_file(whole | {key: torch.ones(7)}, path)
    with pytest.raises(AdapterInvalid, match=r"shape \[7\].*48 outputs"):
        await engine.load_adapter("broken")


@torch.inference_mode()
def test_gains_computed_on_the_device_are_those_of_the_reader(tiny, tmp_path: Path) -> None:
    """Weights on a device stay there: what an adapter's magnitudes mean is worked out when it is written."""
    base = tiny("qwen2")
    folder = make_dora(base, tmp_path, "dora", ["q_proj", "k_proj", "down_proj"])
    found = []
    for device in (None, DeviceLayout(16)):
        model = reference(base)
        layers = linear_layers(model)
        path = DecoderForward(model, choose_linear("none", torch.device("cpu"), torch.float32), layers, 2, device)
        packed = path.bank.pack(read_adapter(folder, AdapterTarget("", layers, 16))[1])
        path.bank.write(1, packed)
        found.append({name: group._gains for name, group in path.bank._groups.items() if group._with_gains})
    assert found[0]
    torch.testing.assert_close(found[0], found[1])

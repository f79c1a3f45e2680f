"""The one promise that counts: in a mixed batch each row gets what transformers and PEFT give it alone."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from server.types import Message
from tests.engine.conftest import EngineFactory, ask, greedy, make_adapter, reference

TARGETS = {
    "gpt2": ["c_attn", "c_fc"],
    "bloom": ["query_key_value", "dense_h_to_4h"],
    "mamba": ["in_proj", "x_proj"],
}
PLAIN = ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"]


def _prompt(seed: int, length: int) -> list[int]:
    return [3 + (seed * 37 + place * 11) % 330 for place in range(length)]


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "bloom", "mamba"])
async def test_each_row_gets_what_it_gets_alone(tiny, tmp_path: Path, engines: EngineFactory, name: str) -> None:
    base, targets = tiny(name), TARGETS.get(name, PLAIN)
    folders = {
        "one": make_adapter(base, tmp_path, "one", seed=1, target_modules=targets),
        "two": make_adapter(base, tmp_path, "two", seed=2, target_modules=targets, r=2, lora_alpha=16),
        "three": make_adapter(base, tmp_path, "three", seed=3, target_modules=targets[:1], use_rslora=True),
    }
    engine = await engines(base, tmp_path, prefill_tokens=16)
    jobs = [(None, 30), ("one", 5), ("two", 41), (None, 3), ("three", 17), ("one", 23), ("two", 9)]
    prompts = [_prompt(seed, length) for seed, (_, length) in enumerate(jobs)]
    replies = await asyncio.gather(*(
        ask(engine, prompt, adapter=adapter, max_tokens=10)
        for prompt, (adapter, _) in zip(prompts, jobs, strict=True)
    ))
    models = {key: reference(base, folder) for key, folder in folders.items()} | {None: reference(base)}
    for prompt, (adapter, _), reply in zip(prompts, jobs, replies, strict=True):
        expected = greedy(models[adapter], prompt, 10, engine.tokenizer.stop_ids)
        assert reply.usage.completion_tokens == len(expected)
        assert reply.text.rstrip("\ufffd") == engine.tokenizer.decode(expected).rstrip("\ufffd"), adapter
    alone = greedy(models[None], prompts[1], 10, engine.tokenizer.stop_ids)
    assert engine.tokenizer.decode(alone) != replies[1].text, "the adapter has no visible effect"


@pytest.mark.model
async def test_the_default_model_with_three_adapters(
    chat_model_dir: Path, tmp_path: Path, engines: EngineFactory
) -> None:
    folders = {
        key: make_adapter(chat_model_dir, tmp_path, key, seed=seed, scale=0.4, target_modules="all-linear")
        for seed, key in enumerate(("red", "green", "blue"))
    }
    engine = await engines(chat_model_dir, tmp_path, prefill_tokens=32)
    questions = ["What is the capital of France?", "환불은 며칠 안에 되나요?", "Why do we dream?"]
    adapters = [None, "red", "green", "blue"]
    prompts = [engine.tokenizer.render([Message("user", text)]) for text in questions]
    replies = await asyncio.gather(
        *(ask(engine, prompt, adapter=adapter, max_tokens=8) for prompt in prompts for adapter in adapters)
    )
    answers = [reply.text for reply in replies]
    oracle = reference(chat_model_dir, folders["red"])
    for name in ("green", "blue"):
        oracle.load_adapter(str(folders[name]), name)
    for place, adapter in enumerate(adapters):
        oracle.set_adapter("default" if adapter in (None, "red") else adapter)
        with nullcontext() if adapter else oracle.disable_adapter():
            for row, prompt in enumerate(prompts):
                ids = oracle.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=8)[0]
                expected = engine.tokenizer.decode(ids[len(prompt):].tolist())
                assert answers[row * 4 + place] == expected.rstrip("\ufffd"), (adapter, row)
    for place, adapter in enumerate(adapters[1:], 1):
        assert answers[place::4] != answers[::4], f"{adapter} has no visible effect"

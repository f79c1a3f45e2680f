"""Architectures without a decoder of ours: in a mixed batch each row gets what transformers and PEFT give it alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.engine.conftest import EngineFactory, ask, greedy, make_adapter, reference
from tests.engine.oracle import prompt

TARGETS = {
    "gpt2": ["c_attn", "c_fc"],
    "bloom": ["query_key_value", "dense_h_to_4h"],
    "mamba": ["in_proj", "x_proj"],
}


@pytest.mark.parametrize("name", TARGETS)
async def test_each_row_gets_what_it_gets_alone(tiny, tmp_path: Path, engines: EngineFactory, name: str) -> None:
    base, targets = tiny(name), TARGETS[name]
    folders = {
        "one": make_adapter(base, tmp_path, "one", seed=1, target_modules=targets),
        "two": make_adapter(base, tmp_path, "two", seed=2, target_modules=targets, r=2, lora_alpha=16),
        "three": make_adapter(base, tmp_path, "three", seed=3, target_modules=targets[:1], use_rslora=True),
    }
    engine = await engines(base, tmp_path, prefill_tokens=16)
    jobs = [(None, 30), ("one", 5), ("two", 41), (None, 3), ("three", 17), ("one", 23), ("two", 9)]
    prompts = [prompt(seed, length) for seed, (_, length) in enumerate(jobs)]
    replies = await asyncio.gather(
        *(
            ask(engine, tokens, adapter=adapter, max_tokens=10)
            for tokens, (adapter, _) in zip(prompts, jobs, strict=True)
        )
    )
    models = {key: reference(base, folder) for key, folder in folders.items()} | {None: reference(base)}
    for tokens, (adapter, _), reply in zip(prompts, jobs, replies, strict=True):
        expected = greedy(models[adapter], tokens, 10, engine.tokenizer.stop_ids)
        assert reply.usage.completion_tokens == len(expected)
        assert reply.text.rstrip("\ufffd") == engine.tokenizer.decode(expected).rstrip("\ufffd"), adapter
    alone = greedy(models[None], prompts[1], 10, engine.tokenizer.stop_ids)
    assert engine.tokenizer.decode(alone) != replies[1].text, "the adapter has no visible effect"


@pytest.mark.parametrize("name", TARGETS)
async def test_rows_that_were_preempted_lose_nothing(tiny, engines: EngineFactory, name: str) -> None:
    base = tiny(name)
    probe = await engines(base)
    engine = await engines(base, kv_bytes=256 * probe._runtime.bytes_per_token)
    free = {"logit_bias": dict.fromkeys(engine.tokenizer.stop_ids, -100.0)}
    alone = [(await ask(probe, prompt(seed, 60), max_tokens=72, **free)).text for seed in range(2)]
    together = await asyncio.gather(*(ask(engine, prompt(seed, 60), max_tokens=72, **free) for seed in range(2)))
    assert [reply.text for reply in together] == alone
    assert engine.stats().preempted > 0

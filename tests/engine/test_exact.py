"""The one promise that counts: whatever happens around it, each row gets the tokens and the numbers that
transformers and PEFT give it alone."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from server.engine.cache.prefix import BLOCK_SIZE
from server.types import GenerationRequest, Message, SamplingParams
from tests.engine.conftest import EngineFactory, Gate, Reply, ask, greedy, make_adapter, reference, settle, until, whole
from tests.engine.oracle import Answer, Oracle, assert_is, entries, prompt, unspeakable

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"]},
    "rslora": {"target_modules": "all-linear", "use_rslora": True, "r": 8, "lora_alpha": 2},
    "patterns": {
        "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"],
        "r": 3,
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 11},
        "alpha_pattern": {"down_proj": 3, "layers.0.self_attn.q_proj": 20},
    },
}
KINDS = (None, *ADAPTERS)
COUNT = 10


@dataclass(frozen=True)
class Family:
    base: Path
    adapters: Path
    oracles: dict[str | None, Oracle]


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3", "mistral"])
def family(request, tiny, tmp_path_factory) -> Family:
    base, root = tiny(request.param), tmp_path_factory.mktemp("adapters")
    oracles: dict[str | None, Oracle] = {None: Oracle(base)}
    for seed, (name, config) in enumerate(ADAPTERS.items(), 1):
        oracles[name] = Oracle(base, make_adapter(base, root, name, seed=seed, **config))
    return Family(base, root, oracles)


class Serving:
    """An engine of a family whose answers are compared as they come."""

    def __init__(self, engine: Any, family: Family) -> None:
        self.engine = engine
        self.bias = unspeakable(engine)
        self._family = family

    def wanted(self, kind: str | None, tokens: list[int], count: int = COUNT) -> Answer:
        return self._family.oracles[kind].answer(tokens, count, self.bias)

    async def exact(self, kind: str | None, tokens: list[int], count: int = COUNT, like: str | None = "") -> Reply:
        """Asks the adapter `kind`; the answer must be that of the oracle `like`, or its own."""
        reply = await ask(self.engine, tokens, adapter=kind, max_tokens=count, logprobs=20, logit_bias=self.bias)
        assert_is(reply, self.wanted(kind if like == "" else like, tokens, count), self.engine)
        return reply

    def stream(self, kind: str | None, tokens: list[int], count: int = COUNT):
        params = SamplingParams(temperature=0, max_tokens=count, logit_bias=self.bias)
        return self.engine.generate(GenerationRequest(tuple(tokens), params, kind))


@pytest.fixture(autouse=True)
def _both_memories(memory: str) -> None: ...


async def served(engines: EngineFactory, family: Family, **settings: Any) -> Serving:
    return Serving(await engines(family.base, family.adapters, **settings), family)


async def test_alone(family: Family, engines: EngineFactory) -> None:
    serving = await served(engines, family)
    texts = set()
    for kind in KINDS:
        await serving.exact(kind, prompt(1, 30))
        texts.add((await ask(serving.engine, prompt(2, 9), adapter=kind, max_tokens=COUNT)).text)
    assert len(texts) == len(KINDS), "an adapter has no visible effect"


async def test_in_a_mixed_batch(family: Family, engines: EngineFactory) -> None:
    serving = await served(engines, family, prefill_tokens=64)
    lengths = (5, 70, 33)
    await asyncio.gather(
        *(serving.exact(kind, prompt(seed, length)) for seed, length in enumerate(lengths) for kind in KINDS)
    )
    await asyncio.gather(*(serving.exact(kind, prompt(7, 20)) for kind in ("rslora", None, None, "rslora", "lora")))


async def test_greedy_rows_of_the_plainest_kind_in_a_mixed_batch(family: Family, engines: EngineFactory) -> None:
    serving = await served(engines, family, prefill_tokens=16)
    engine, jobs = serving.engine, [(kind, 4 + 9 * seed) for seed in range(2) for kind in KINDS]
    replies = await asyncio.gather(
        *(ask(engine, prompt(seed, length), adapter=kind, max_tokens=COUNT) for seed, (kind, length) in enumerate(jobs))
    )
    for seed, ((kind, length), reply) in enumerate(zip(jobs, replies, strict=True)):
        expected = greedy(family.oracles[kind]._model, prompt(seed, length), COUNT, engine.tokenizer.stop_ids)
        assert reply.usage.completion_tokens == len(expected)
        assert reply.text.rstrip("\ufffd") == engine.tokenizer.decode(expected).rstrip("\ufffd"), kind


async def test_a_prompt_in_chunks(family: Family, engines: EngineFactory) -> None:
    serving = await served(engines, family, prefill_tokens=16)
    await serving.exact("patterns", prompt(3, 100))
    await asyncio.gather(*(serving.exact(kind, prompt(4, 77)) for kind in KINDS))


async def test_a_prefix_hit_is_the_answer_without_a_store(family: Family, engines: EngineFactory, memory: str) -> None:
    serving = await served(engines, family)
    without = await served(engines, family, prefix_bytes=0)
    for kind in KINDS:
        first = prompt(5, 2 * BLOCK_SIZE + 9)
        longer = first + prompt(6, 20)
        assert (await serving.exact(kind, first)).usage.cached_tokens == 0, "another adapter's would be wrong"
        for tokens in (first, longer):
            hit, plain = await serving.exact(kind, tokens), await without.exact(kind, tokens)
            known = len(first) if tokens is longer else len(first) - 1
            assert (hit.usage.cached_tokens, plain.usage.cached_tokens) == (whole(memory, known), 0)
            assert hit.text == plain.text
            for one, other in zip(entries(hit), entries(plain), strict=True):
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    assert without.engine.stats().prefix_bytes == without.engine.stats().max_prefix_bytes == 0
    assert serving.engine.stats().prefix_bytes > 0


async def test_the_next_turn_reuses_the_answer_too(family: Family, engines: EngineFactory, memory: str) -> None:
    serving = await served(engines, family)
    for kind in KINDS:
        question = prompt(8, BLOCK_SIZE + 5)
        answer = serving.wanted(kind, question, BLOCK_SIZE)
        await serving.exact(kind, question, BLOCK_SIZE)
        turn = await serving.exact(kind, [*question, *answer.tokens, *prompt(9, 12)])
        assert turn.usage.cached_tokens == whole(memory, len(question) + BLOCK_SIZE - 1)


async def test_equal_prompts_at_once(family: Family, engines: EngineFactory) -> None:
    serving = await served(engines, family, prefill_tokens=32)
    await asyncio.gather(*(serving.exact(kind, prompt(10, 120)) for kind in KINDS * 2))
    assert serving.engine.stats().cached_tokens >= len(KINDS) * 2 * BLOCK_SIZE, "each was computed once"


async def test_after_a_cancelled_row(family: Family, engines: EngineFactory, gate: Gate, memory: str) -> None:
    serving = await served(engines, family, prefill_tokens=32)
    engine = serving.engine
    for kind in KINDS:
        if kind:
            await engine.load_adapter(kind)
        long, short = prompt(11, 240), prompt(12, BLOCK_SIZE + 2)
        gate.shut()
        in_its_prompt, writing = serving.stream(kind, long), serving.stream(kind, short, 100)
        tasks = [asyncio.ensure_future(anext(stream)) for stream in (writing, in_its_prompt)]
        await until(lambda: engine.health().running + engine.health().waiting == 2, "both rows")
        while not tasks[0].done():
            await gate.let(1)
        for _ in range(3):  # beside one that writes, a prompt comes in small chunks
            await gate.let(1)
        assert not tasks[1].done(), "its prompt is not computed yet"
        for task in tasks:
            task.cancel()
        await writing.aclose()
        await asyncio.gather(*tasks, return_exceptions=True)
        gate.open()
        await settle(engine)
        again = [await serving.exact(kind, tokens) for tokens in (long, short)]
        assert 0 < again[0].usage.cached_tokens < 224, "what it had computed"
        assert again[1].usage.cached_tokens == whole(memory, BLOCK_SIZE + 1)


async def test_after_unloading_and_loading_again(family: Family, engines: EngineFactory, tmp_path: Path) -> None:
    own = Family(family.base, Path(shutil.copytree(family.adapters, tmp_path / "adapters")), family.oracles)
    serving = await served(engines, own)
    engine, tokens = serving.engine, prompt(13, 2 * BLOCK_SIZE + 1)
    await serving.exact(None, tokens)
    for name in ADAPTERS:
        await serving.exact(name, tokens)
        assert (await serving.exact(name, tokens)).usage.cached_tokens == 2 * BLOCK_SIZE
        await settle(engine)
        await engine.unload_adapter(name)
        assert (await serving.exact(name, tokens)).usage.cached_tokens == 0, "a load shares nothing with an earlier one"
    turned = dict(zip(ADAPTERS, [*list(ADAPTERS)[1:], "lora"], strict=True))
    for name, like in turned.items():
        await settle(engine)
        if name == "rslora":
            await engine.unload_adapter(name)
        shutil.rmtree(own.adapters / name)
        shutil.copytree(family.adapters / like, own.adapters / name)
        changed = await serving.exact(name, tokens, like=like)
        assert changed.usage.cached_tokens == 0
        assert (await serving.exact(name, tokens, like=like)).usage.cached_tokens == 2 * BLOCK_SIZE
    assert (await serving.exact(None, tokens)).usage.cached_tokens == 2 * BLOCK_SIZE, "the base's stays"


@pytest.mark.parametrize("store", [True, False])
async def test_after_rows_were_preempted(family: Family, engines: EngineFactory, store: bool, memory: str) -> None:
    probe = await served(engines, family)
    bytes_a_token = probe.engine._runtime.bytes_per_token
    settings = {} if store else {"prefix_bytes": 0}
    serving = await served(engines, family, kv_bytes=(544 if memory == "pages" else 512) * bytes_a_token, **settings)
    for name in ADAPTERS:  # else those without one have ended before the others begin
        await serving.engine.load_adapter(name)
    await asyncio.gather(*(serving.exact(kind, prompt(14 + seed, 64), 68) for seed, kind in enumerate(KINDS)))
    stats = serving.engine.stats()
    assert stats.preempted > 0, "memory was never short"
    assert stats.kv_bytes <= stats.max_kv_bytes == 512 * bytes_a_token


# ── the default model ────────────────────────────────────────────────────────────────────────────


@pytest.mark.model
async def test_the_default_model(
    chat_model_dir: Path, tmp_path: Path, engines: EngineFactory, monkeypatch, memory: str
) -> None:
    # reservations without slack, which rows outgrow at once
    monkeypatch.setattr("server.engine.scheduling.scheduler.KV_GRANULARITY", 0)
    folders = {
        name: make_adapter(chat_model_dir, tmp_path, name, seed=seed, scale=0.4, target_modules="all-linear")
        for seed, name in enumerate(("red", "green"))
    }
    engine = await engines(chat_model_dir, tmp_path, prefill_tokens=32, kv_bytes=46080 * 192)
    oracle = reference(chat_model_dir, folders["red"])
    oracle.load_adapter(str(folders["green"]), "green")
    questions = [
        "What is the capital of France, and which river runs through it? Answer in one short sentence.",
        "환불은 며칠 안에 되나요?",
        "Why do we dream?",
    ]
    jobs = [
        (name, tuple(engine.tokenizer.render([Message("user", text)])))
        for text in questions
        for name in (None, "red", "green")
    ]
    wanted = {job: _generated(oracle, *job, 8) for job in jobs}
    for name in (None, "red"):  # alone, then behind its kept prompt
        job = (name, jobs[0][1])
        assert (await _matching(engine, job, wanted[job])).usage.cached_tokens == 0
        assert (await _matching(engine, job, wanted[job])).usage.cached_tokens >= BLOCK_SIZE
    await asyncio.gather(*(_matching(engine, job, wanted[job]) for job in jobs))  # mixed, in too little memory
    assert engine.stats().preempted > 0 or memory == "pages", "a page has slack"
    assert wanted["red", jobs[0][1]].tokens != wanted[None, jobs[0][1]].tokens, "the adapter has no visible effect"


async def _matching(engine: Any, job: tuple[str | None, tuple[int, ...]], answer: Answer) -> Reply:
    reply = await ask(engine, job[1], adapter=job[0], max_tokens=8, logprobs=20)
    assert reply.text == engine.tokenizer.decode(answer.tokens).rstrip("\ufffd"), job[0]
    for entry, token, expected in zip(entries(reply), answer.tokens, answer.logprobs, strict=False):
        assert entry.logprob == pytest.approx(float(expected[token]), abs=1e-3)
        assert [value for _, value in entry.top] == pytest.approx(expected.topk(20).values.tolist(), abs=1e-3)
    return reply


def _generated(oracle: Any, adapter: str | None, tokens: tuple[int, ...], count: int) -> Answer:
    oracle.set_adapter("green" if adapter == "green" else "default")
    with nullcontext() if adapter else oracle.disable_adapter(), torch.inference_mode():
        made = oracle.generate(
            input_ids=torch.tensor([tokens]),
            do_sample=False,
            max_new_tokens=count,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return Answer(tuple(made.sequences[0, len(tokens) :].tolist()), torch.log_softmax(torch.cat(made.logits), -1))

"""Everything at once: rows that come, go and are cut short while adapters load, leave and are replaced, in too
little memory. Every answer is the oracle's for the weights it was given, and the bookkeeping agrees all along."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from server.config import ModelSettings
from server.engine.cache.prefix import BLOCK_SIZE
from server.engine.scheduling import batch_window
from server.errors import AdapterInUse, AdapterNotFound
from server.types import GenerationRequest, SamplingParams, TokenDelta
from tests.engine.conftest import SMALL_PAGE, EngineFactory, Gate, Reply, ask, make_adapter, settle, until
from tests.engine.oracle import Oracle, entries, prompt, unspeakable

TOKEN_BYTES = 576  # of the tiny Llama
NAMES = ("a", "b", "c")
CONTENTS = range(4)
WORKERS, TURNS = 6, 14

_begun = prompt(1, 130), prompt(2, 90)
SHORT = [(_begun[0][:length], 8) for length in (5, 40, 70, 130)] + [(_begun[1][:length], 5) for length in (33, 90)]
SHORT += [(_begun[0][:64] + _begun[1][:30], 8)]
LONG = (_begun[1][:64], 68)  # outgrows what it reserves at first


class Weights:
    """What each adapter has held, oldest first; all fit one configuration, so that a file can take another's place."""

    def __init__(self, base: Path, made: Path, root: Path) -> None:
        self._made, self._root = made, root
        self.history: dict[str, list[int]] = {name: [number] for number, name in enumerate(NAMES)}
        self._versions = Counter(NAMES)
        self.oracles: dict[int | None, Oracle] = {None: Oracle(base)}
        for content in CONTENTS:
            folder = make_adapter(base, made, str(content), seed=content + 1)
            self.oracles[content] = Oracle(base, folder)
        for name, (content,) in self.history.items():
            shutil.copytree(made / str(content) / "1", root / name / "1")

    def replace(self, name: str, chance: random.Random) -> None:
        """A new version, or other weights in the newest one; each as one move, as careful writers do."""
        content = chance.choice([one for one in CONTENTS if one != self.history[name][-1]])
        if chance.random() < 0.5:
            draft = self._root / name / ".draft"
            shutil.copytree(self._made / str(content) / "1", draft)
            self._versions[name] += 1
            draft.rename(self._root / name / str(self._versions[name]))
        else:
            draft = self._root / ".draft"
            shutil.copyfile(self._made / str(content) / "1" / "adapter_model.safetensors", draft)
            os.replace(draft, self._root / name / str(self._versions[name]) / "adapter_model.safetensors")
        self.history[name].append(content)


class Soak:
    def __init__(self, engine: Any, weights: Weights, seed: int, most: tuple[int, int]) -> None:
        """`most`: tokens of running rows, and of kept beginnings."""
        self.most = most
        self.engine, self.weights, self.seed = engine, weights, seed
        self.bias = unspeakable(engine)
        self.done = 0
        self.over = False

    async def answer(self, name: str | None, job: tuple[list[int], int]) -> None:
        """The adapter may be replaced while the row waits; from its first token on it keeps what it has."""
        tokens, count = job
        history = self.weights.history[name] if name else [None]
        first, last, text = len(history) - 1, None, ""
        params = SamplingParams(temperature=0, max_tokens=count, logit_bias=self.bias)
        async for event in self.engine.generate(GenerationRequest(tuple(tokens), params, name)):
            if isinstance(event, TokenDelta):
                last, text = last or len(history), text + event.text
        possible = history[first:last]
        decode = self.engine.tokenizer.decode
        wanted = {decode(self.weights.oracles[one].answer(tokens, count, self.bias).tokens) for one in possible}
        assert text in wanted, f"{name}, {len(tokens)} tokens, weights {possible}"
        self.done += 1

    async def work(self, number: int) -> None:
        chance = random.Random(self.seed * 100 + number)
        for _ in range(TURNS):
            name, job = chance.choice((None, *NAMES)), chance.choice(SHORT)
            what = chance.choices(
                ("answer", "long", "cancel", "load", "unload", "replace", "refresh"), (50, 6, 18, 7, 7, 6, 6)
            )[0]
            try:
                if what == "answer":
                    await self.answer(name, job)
                elif what == "long":
                    await self.answer(None, LONG)
                elif what == "cancel":
                    await self.cut_short(name, job, chance)
                elif what == "load":
                    await self.engine.load_adapter(name or "a")
                elif what == "unload":
                    await self.engine.unload_adapter(name or "a")
                elif what == "replace":
                    self.weights.replace(name or "a", chance)
                else:
                    await self.engine.refresh_adapters()
            except (AdapterInUse, AdapterNotFound):
                assert what in ("load", "unload")

    async def cut_short(self, name: str | None, job: tuple[list[int], int], chance: random.Random) -> None:
        task = asyncio.create_task(self.answer(name, job))
        await asyncio.sleep(chance.choice((0, 0.002, 0.01, 0.03)))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def watch(self) -> int:
        """Until all is over: sound bookkeeping, and nothing over its bound. How often that was seen."""
        seen = 0
        while not self.over:
            self.engine.check_integrity()
            stats = self.engine.stats()
            assert stats.running <= stats.max_batch
            assert stats.kv_bytes <= stats.max_kv_bytes == self.most[0] * TOKEN_BYTES
            assert stats.prefix_bytes <= stats.max_prefix_bytes == self.most[1] * TOKEN_BYTES
            assert stats.adapters <= stats.max_adapters == 2
            assert stats.adapter_bytes <= stats.max_adapter_bytes
            seen += 1
            await asyncio.sleep(0.001)
        return seen


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_answer_is_right_whatever_happens_around_it(
    tiny, tmp_path: Path, engines: EngineFactory, seed: int, memory: str
) -> None:
    weights = Weights(tiny("llama"), tmp_path / "made", tmp_path / "adapters")
    size = (tmp_path / "made" / "0" / "1" / "adapter_model.safetensors").stat().st_size
    engine = await engines(
        tiny("llama"),
        tmp_path / "adapters",
        max_batch=4,
        prefill_tokens=32,
        max_loras=2,
        kv_bytes=512 * TOKEN_BYTES,
        prefix_bytes=10 * BLOCK_SIZE * TOKEN_BYTES,
        adapter_bytes=5 * size // 2,
    )
    pool = 512 - SMALL_PAGE  # one page is spare
    soak = Soak(engine, weights, seed, (512, 10 * BLOCK_SIZE) if memory == "arena" else (pool, pool))
    watch = asyncio.create_task(soak.watch())
    try:
        await asyncio.gather(*(soak.answer(None, LONG) for _ in range(4)))
        await asyncio.gather(*(soak.work(number) for number in range(WORKERS)))
    finally:
        soak.over = True
    await settle(engine)
    assert await watch > 10
    stats = engine.stats()
    assert (stats.failed, stats.refused, stats.restarts) == (0, 0, 0)
    assert stats.finished >= soak.done > WORKERS * TURNS // 3
    assert stats.preempted > 0, "memory was never short"
    assert stats.cached_tokens > 0, "no prompt was ever found again"
    assert all(info.in_use == 0 for info in engine.adapters())
    for name in {info.name for info in engine.adapters() if info.bytes}:
        await engine.unload_adapter(name)
    await soak.answer(None, SHORT[0])
    assert (engine.stats().adapters, engine.stats().adapter_bytes) == (0, 0)
    bank = engine._runtime.path.bank
    assert bank.fixed or bank.bytes == 0
    assert not any(group._a.any() or group._b.any() for group in bank._groups.values())


class Crowd:
    """Asks rows alone, then in a crowd that is put together the same way each time: all begin in one step."""

    def __init__(self, engine: Any, gate: Gate, jobs: list[tuple[list[int], str | None, dict[str, Any]]]) -> None:
        self.engine, self._gate, self._jobs = engine, gate, jobs

    async def alone_and_together(self) -> tuple[list[Reply], list[Reply]]:
        for name in NAMES:
            await self.engine.load_adapter(name)
        alone = [await ask(self.engine, tokens, adapter=name, **how) for tokens, name, how in self._jobs]
        self._gate.shut()
        first = asyncio.create_task(ask(self.engine, [5, 6], max_tokens=1))
        await self._gate.reached()
        others = [
            (prompt(20 + n, 4 + 5 * n), (None, "a")[n % 2], {"temperature": 1.0, "seed": n, "max_tokens": 18})
            for n in range(6)
        ]
        tasks = [
            asyncio.create_task(ask(self.engine, tokens, adapter=name, **how))
            for tokens, name, how in (*self._jobs, *others)
        ]
        await until(lambda: self.engine.health().waiting == len(tasks), "the crowd")
        self._gate.open()
        _, *together = await asyncio.gather(first, *tasks)
        return alone, together[: len(self._jobs)]


async def test_a_seed_gives_the_same_text_whatever_the_batch_mates(
    tiny, adapters, engines, gate: Gate, memory: str
) -> None:
    engine = await engines(tiny("llama"), adapters)
    settings = [
        {"temperature": 0.9, "seed": 11, "top_p": 0.9},
        {"temperature": 1.2, "seed": 12, "top_k": 30},
        {"temperature": 0.7, "seed": 13, "min_p": 0.05, "repetition_penalty": 1.2},
        {"temperature": 0.0},
    ]
    jobs = [
        (prompt(number, 6 + 3 * number), name, {"max_tokens": 15, **settings[number % 4]})
        for number, name in enumerate((None, "a", "b", "c", "a", "b", None))
    ]
    alone, together = await Crowd(engine, gate, jobs).alone_and_together()
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert (await ask(engine, jobs[0][0], **{**jobs[0][2], "seed": 99})).text != alone[0].text, "it has no effect"


async def test_int8_rows_hardly_notice_their_batch_mates(tiny, adapters, engines: EngineFactory, gate: Gate) -> None:
    """Its linear layers are independent bit for bit; but where attention differs in the last bit, a number can be
    rounded to its other neighbour."""
    engine = await engines(tiny("llama"), adapters, model_settings=ModelSettings(device="cpu", quantize="int8"))
    assert "int8" in engine.model.path
    how = {"max_tokens": 15, "temperature": 0.0, "logprobs": 20, "logit_bias": unspeakable(engine)}
    jobs = [(prompt(number, 6 + 3 * number), name, how) for number, name in enumerate((None, "a", "b", "c") * 2)]
    alone, together = await Crowd(engine, gate, jobs).alone_and_together()
    for one, other in zip(alone, together, strict=True):
        for mine, theirs in zip(entries(one), entries(other), strict=True):
            if mine.token != theirs.token:
                assert abs(mine.logprob - dict(mine.top)[theirs.token]) < 0.1, "they were not nearly as likely"
                break
            assert abs(mine.logprob - theirs.logprob) < 0.1
    assert sum(one.text == other.text for one, other in zip(alone, together, strict=True)) >= len(jobs) - 2


@pytest.mark.parametrize("announced", [False, True], ids=["close together", "announced"])
async def test_requests_that_are_sent_together_start_together(
    tiny, engines: EngineFactory, gate: Gate, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    """One that comes to an idle engine alone would make the others wait for its step, and write on after them."""
    # longer than a busy machine may take between two of them; announced ones start as soon as all have come
    monkeypatch.setattr(batch_window, "_MAX_WAIT_S" if announced else "_QUIET_S", 30.0 if announced else 2.0)
    engine = await engines(tiny("llama"), max_batch=4)
    gate.shut()
    before, answers = gate.done, []
    with ExitStack() as coming:
        for _ in range(4 if announced else 0):
            coming.enter_context(engine.announce_request())
        for number in range(4):
            answers.append(asyncio.create_task(ask(engine, prompt(number, 20), max_tokens=4)))
            await asyncio.sleep(0.05)
        await gate.reached()
    assert (engine.health().running, engine.health().waiting) == (4, 0)
    gate.open()
    await asyncio.gather(*answers)
    assert gate.done == before + 4, "a step for all prompts, and one for each further token of all"


async def test_no_request_waits_long_for_an_announced_one(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"), max_batch=4)
    with engine.announce_request(), engine.announce_request():
        reply = await asyncio.wait_for(ask(engine, prompt(1, 20), max_tokens=2), 30)
        assert reply.done.usage.ttft_s > batch_window._MAX_WAIT_S
    async with asyncio.timeout(30):
        while (await ask(engine, prompt(1, 20), max_tokens=2)).done.usage.ttft_s > batch_window._MAX_WAIT_S:
            pass  # a busy machine is slow now and then; always would be a count that stayed

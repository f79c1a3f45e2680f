"""What goes wrong stays where it went wrong, and the engine comes back with the right answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from server.engine import local
from server.engine.cache import kv, prefix
from server.engine.cache.memory import ArenaMemory
from server.engine.cache.pages import KVPages, PagedMemory
from server.engine.cache.prefix import BLOCK_SIZE
from server.engine.forward.attention import AttentionStep
from server.engine.forward.paths import DecoderForward, SingleForward
from server.engine.sampling.constraint import GrammarMask
from server.engine.sampling.detokenize import TextStream
from server.engine.sampling.sampler import Sampler
from server.engine.scheduling import model_thread
from server.errors import AnswerFailed, EngineDown, EngineError, OutputFormatError
from server.types import Constraint, GenerationRequest, SamplingParams
from tests.engine.conftest import EngineFactory, Gate, Reply, as_on_a_device, ask, settle, until, whole
from tests.engine.oracle import prompt

NAN = float("nan")
COUNT = 6


def stream(engine: Any, tokens: list[int], adapter: str | None = None, most: int = 150):
    free = dict.fromkeys(engine.tokenizer.stop_ids, -100.0)
    return engine.generate(
        GenerationRequest(tuple(tokens), SamplingParams(temperature=0, max_tokens=most, logit_bias=free), adapter)
    )


# ── numbers that are none ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def poisoned(monkeypatch) -> None:
    """Before each step, all memory that belongs to no row becomes NaN: slots without a row and those of rows that
    were just admitted, as far as earlier ones have written there, and free blocks; or pages that nobody holds."""
    in_arena, in_pages = ArenaMemory.prepare, PagedMemory.prepare

    def poison_arena(self: ArenaMemory) -> None:
        running, arena, pool = self.budget.live(), self.arena, self._pool
        left = {slot: touched for slot, touched in enumerate(self.budget._touched) if slot not in running}
        stale = {reservation.kv_slot: reservation.stale_tokens for reservation, _ in self._admitted}
        for slot, tokens in {**left, **stale}.items():
            if slot < arena.slots:
                for tensor in (*arena.keys, *arena.values):
                    tensor[slot, :, :tokens] = NAN
        for tensor in (*pool.keys, *pool.values):
            tensor[self.prefix._free] = NAN
        in_arena(self)

    def poison_pages(self: PagedMemory) -> None:
        sources = {source for source, _, _ in self._copies}
        self._pages._both[:, [page for page in self._free if page not in sources]] = NAN
        in_pages(self)

    monkeypatch.setattr(ArenaMemory, "prepare", poison_arena)
    monkeypatch.setattr(PagedMemory, "prepare", poison_pages)


async def test_what_earlier_rows_left_never_reaches_an_answer(
    tiny, adapters, engines, poisoned, exact, memory: str
) -> None:
    engine = await engines(
        tiny("llama"), adapters, prefix_bytes=60 * BLOCK_SIZE * 576, max_batch=4, kv_bytes=4096 * 576
    )
    for turn in range(3):
        await asyncio.gather(
            *(
                exact(engine, prompt(seed, 30 + 23 * (seed % 6)), [None, "a", "b"][seed % 3])
                for seed in range(turn, turn + 8)
            )
        )
        await settle(engine)
        await engine.unload_adapter("ab"[turn % 2])
    assert engine.stats().cached_tokens > 0


async def test_nor_where_memory_is_short(tiny, engines: EngineFactory, poisoned, exact, memory: str) -> None:
    engine = await engines(tiny("llama"), prefix_bytes=8 * BLOCK_SIZE * 576, kv_bytes=320 * 576)
    await asyncio.gather(*(exact(engine, prompt(seed, 64), count=70) for seed in range(3)))
    await asyncio.gather(*(exact(engine, prompt(seed, 10 + 40 * seed)) for seed in range(6)))
    assert engine.stats().preempted > 0
    assert engine.stats().failed == 0


@pytest.fixture
def ill(monkeypatch):
    """ill.add(tokens) makes that prompt's numbers NaN, in its logits and in what is kept of it."""
    texts: set[tuple[int, ...]] = set()
    run = DecoderForward.run

    def sometimes(self, chunks):
        logits = run(self, chunks)
        needed = [chunk for chunk in chunks if chunk.needs_logits]
        for chunk in chunks:
            if tuple(chunk.tokens) in texts:
                if isinstance(self.kv, KVPages):
                    self.kv._both[:, chunk.pages] = NAN
                for tensor in () if isinstance(self.kv, KVPages) else (*self.kv.keys, *self.kv.values):
                    tensor[chunk.kv_slot, :, : chunk.computed + len(chunk.tokens)] = NAN
                logits[needed.index(chunk)] = NAN
        return logits

    monkeypatch.setattr(DecoderForward, "run", sometimes)
    return texts


@pytest.mark.parametrize("greedy", [True, False])
async def test_a_row_without_usable_numbers_fails_alone(tiny, engines, ill, exact, greedy: bool, memory: str) -> None:
    engine = await engines(tiny("llama"))
    bad = prompt(1, 2 * BLOCK_SIZE + 5)
    ill.add(tuple(bad))
    others = [
        ask(engine, prompt(seed, 40), max_tokens=COUNT) if greedy else exact(engine, prompt(seed, 40))
        for seed in range(2, 5)
    ]
    failed, *rest = await asyncio.gather(
        ask(engine, bad, max_tokens=COUNT, temperature=0.0 if greedy else 0.7), *others, return_exceptions=True
    )
    assert type(failed) is EngineError
    assert "no usable numbers" in str(failed)
    assert all(isinstance(reply, Reply) for reply in rest), rest
    health, stats = engine.health(), engine.stats()
    assert health.ok
    assert (stats.failed, stats.finished, stats.restarts) == (1, 3, 0)


async def test_what_a_failed_row_has_computed_serves_nobody(
    tiny, engines: EngineFactory, ill, exact, memory: str
) -> None:
    engine = await engines(tiny("llama"))
    bad = prompt(1, 2 * BLOCK_SIZE + 5)
    ill.add(tuple(bad))
    with pytest.raises(EngineError, match="no usable numbers"):
        await ask(engine, bad, max_tokens=COUNT)
    ill.clear()
    assert (await exact(engine, bad)).usage.cached_tokens == 0


async def test_a_failed_row_leaves_no_cache_of_its_own_behind(tiny, engines: EngineFactory, monkeypatch) -> None:
    run = SingleForward.run
    paths: list[SingleForward] = []

    def sometimes(self: SingleForward, chunks: Any) -> torch.Tensor:
        paths.append(self)
        return run(self, chunks) * NAN

    engine = await engines(tiny("bloom"))
    monkeypatch.setattr(SingleForward, "run", sometimes)
    with pytest.raises(EngineError, match="no usable numbers"):
        await ask(engine, prompt(1, 20), max_tokens=COUNT)
    await until(lambda: not paths[0]._rows)


async def test_an_adapter_that_overflows_harms_its_own_rows_alone(tiny, adapters, engines, exact, memory: str) -> None:
    weights = adapters / "c" / "1" / "adapter_model.safetensors"
    good = weights.read_bytes()
    save_file({name: tensor * 1e25 for name, tensor in load_file(weights).items()}, weights)
    engine = await engines(tiny("llama"), adapters)
    tokens = prompt(1, 50)
    results = await asyncio.gather(
        *(exact(engine, tokens, adapter) for adapter in (None, "a", "b")),
        ask(engine, tokens, adapter="c"),
        *(exact(engine, prompt(2, 9), adapter) for adapter in (None, "a", "b")),
        ask(engine, prompt(2, 9), adapter="c"),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [*[Reply] * 3, EngineError] * 2, results
    weights.write_bytes(good)
    assert (await ask(engine, tokens, adapter="c")).done
    assert (await exact(engine, tokens)).usage.cached_tokens == whole(memory, 49)
    assert engine.health().ok


# ── rows that fail alone ─────────────────────────────────────────────────────────────────────────

DEAD_END = {  # behind the comma only another name may come, and there is none: "id" is taken
    "type": "object",
    "properties": {"id": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["id"],
    "additionalProperties": False,
    "patternProperties": {"^id$": {"type": "integer"}},
}
SECRET = "the word nobody else may read"


def sabotage(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, mine: Any) -> None:
    """That method raises for the object that `mine(self)` is true of, from its third call on."""
    real, calls = getattr(owner, name), []

    def sometimes(self: Any, *args: Any) -> Any:
        if mine(self):
            calls.append(name)
            if len(calls) > 2:
                raise KeyError(SECRET)
        return real(self, *args)

    monkeypatch.setattr(owner, name, sometimes)


def is_marked(sampler: Sampler) -> bool:
    return sampler._params.frequency_penalty == 0.125  # the marked row's own; so small that it changes nothing else


PLACES: dict[str, Any] = {
    "bias, penalties": lambda patch: sabotage(patch, Sampler, "process_logits", is_marked),
    "draw": lambda patch: sabotage(patch, Sampler, "draw", is_marked),
    "logprobs": lambda patch: sabotage(patch, Sampler, "with_logprobs", is_marked),
    "accept": lambda patch: sabotage(patch, Sampler, "accept", is_marked),
    "text": lambda patch: sabotage(patch, TextStream, "push", lambda stream: "marked" in stream._stop),
    "shaping": lambda patch: sabotage(patch, model_thread.ModelThread, "_logprob", lambda thread: True),
    "mask": lambda patch: sabotage(patch, GrammarMask, "apply", lambda mask: True),
    "mask accepts": lambda patch: sabotage(patch, GrammarMask, "accept", lambda mask: True),
    "emit": None,
}


@pytest.mark.parametrize("place", PLACES)
async def test_what_fails_over_one_row_ends_that_row_alone(
    tiny, engines: EngineFactory, exact, monkeypatch, caplog, place: str
) -> None:
    engine = await engines(tiny("llama"))
    kept, shared = prompt(9, 2 * BLOCK_SIZE + 9), prompt(3, 50)
    await exact(engine, kept)
    undisturbed = [await ask(engine, shared, max_tokens=30, temperature=heat, seed=7) for heat in (0.0, 0.9)]
    if PLACES[place] is not None:
        PLACES[place](monkeypatch)
    else:
        _break_emit(monkeypatch)
    marked: dict[str, Any] = {"temperature": 0.8, "seed": 7, "frequency_penalty": 0.125, "stop": ("marked",)}
    if place in ("logprobs", "shaping"):
        marked["logprobs"] = 2
    format_ = Constraint("json_schema", '{"type": "array", "items": {"type": "string"}}') if "mask" in place else None
    failed, *others = await asyncio.gather(
        ask(engine, shared, user="marked", max_tokens=60, constraint=format_, **marked),
        *(ask(engine, shared, max_tokens=30, temperature=heat, seed=7) for heat in (0.0, 0.9)),
        return_exceptions=True,
    )
    assert type(failed) is AnswerFailed, failed
    assert "KeyError" in str(failed)
    assert [reply.text for reply in others] == [reply.text for reply in undisturbed]
    stats, health = engine.stats(), engine.health()
    assert health.ok
    assert (stats.failed, stats.restarts) == (1, 0)
    for text in (str(failed), health.reason, caplog.text):
        assert SECRET not in text
    assert "an answer failed (KeyError)" in caplog.text, "the log says where"
    monkeypatch.undo()
    assert (await exact(engine, kept)).usage.cached_tokens == 2 * BLOCK_SIZE, "the prefix store is kept"


def _break_emit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row's third event cannot be handed over."""
    make = local.LocalEngine._row

    def broken(self: Any, request: GenerationRequest, *args: Any) -> Any:
        row = make(self, request, *args)
        if request.user_id == "marked":
            emit, events = row.emit, []

            def sometimes(event: Any) -> None:
                events.append(event)
                if len(events) == 3:
                    raise KeyError(SECRET)
                emit(event)

            row.emit = sometimes
        return row

    monkeypatch.setattr(local.LocalEngine, "_row", broken)


async def test_a_schema_that_leads_nowhere_ends_its_own_row(tiny, engines: EngineFactory, exact, caplog) -> None:
    engine = await engines(tiny("llama"))
    comma, space = engine.tokenizer.encode(","), engine.tokenizer.encode("}")
    towards = {comma[0]: 60.0, space[0]: -60.0}  # the row goes where the grammar lets nothing follow
    constraint = Constraint("json_schema", json.dumps(DEAD_END))
    failed, *others = await asyncio.gather(
        ask(engine, prompt(1, 40), constraint=constraint, max_tokens=60, logit_bias=towards),
        *(exact(engine, prompt(seed, 40), count=20) for seed in range(2, 5)),
        return_exceptions=True,
    )
    assert type(failed) is OutputFormatError, failed
    assert '"id"' not in str(failed), "no text of the answer or the schema"
    assert all(isinstance(reply, Reply) for reply in others), others
    assert engine.health().ok
    assert (engine.stats().failed, engine.stats().restarts) == (1, 0)
    assert '"id"' not in caplog.text
    assert (await exact(engine, prompt(2, 40))).usage.cached_tokens > 0


async def test_a_token_that_the_grammar_does_not_take_ends_its_own_row(tiny, engines: EngineFactory, exact) -> None:
    """As where the grammar costs more than a step may, which it finds out behind the mask."""
    engine = await engines(tiny("llama"))
    constraint = Constraint("lark", 'start: "ab" | "cd"')
    real = GrammarMask.apply
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GrammarMask, "apply", lambda self, logits: None)
        failed, other = await asyncio.gather(
            ask(engine, prompt(1, 40), constraint=constraint),
            exact(engine, prompt(2, 40)),
            return_exceptions=True,
        )
    assert GrammarMask.apply is real
    assert type(failed) is OutputFormatError, failed
    assert isinstance(other, Reply)
    assert engine.health().ok


# ── steps that fail ──────────────────────────────────────────────────────────────────────────────

FAULTS = {
    "the model": (DecoderForward, "run"),
    "a layer": (AttentionStep, "attend"),
    "choosing": (model_thread, "choose_tokens"),
    "memory": (kv, "zeros"),
    "keeping": (prefix.BlockPool, "save"),
    "reusing": (prefix.BlockPool, "load"),
    "sharing": (PagedMemory, "publish"),
    "copying": (KVPages, "copy"),
}


@pytest.fixture
def fault(monkeypatch):
    """fault(where) makes that raise, after a few calls, until `fault.mend()`."""

    class Fault:
        broken = False

        def __call__(self, where: str, after: int = 0) -> None:
            owner, name = FAULTS[where]
            real, calls = getattr(owner, name), []
            self.broken = True

            def sometimes(*args: Any, **kwargs: Any) -> Any:
                calls.append(name)
                if self.broken and len(calls) > after:
                    raise RuntimeError("out of memory, perhaps")
                return real(*args, **kwargs)

            monkeypatch.setattr(owner, name, sometimes)

        def mend(self) -> None:
            self.broken = False

    return Fault()


@pytest.mark.parametrize("where", list(FAULTS)[:6])
async def test_a_step_that_fails_takes_its_rows_and_the_engine_comes_back(
    tiny, adapters, engines: EngineFactory, fault, exact, caplog, where: str
) -> None:
    engine = await engines(tiny("llama"), adapters)
    tokens = prompt(1, 2 * BLOCK_SIZE + 9)
    if where == "reusing":
        await exact(engine, tokens)
        await exact(engine, tokens, "a")
    before = engine.stats()
    fault(where, after={"a layer": 2, "memory": 3}.get(where, 0))
    kinds = (None, "a", "b") if where != "reusing" else (None,)  # the others would find nothing to reuse any more
    results = await asyncio.gather(*(ask(engine, tokens, adapter=kind) for kind in kinds), return_exceptions=True)
    assert all(isinstance(result, EngineDown) and "RuntimeError" in str(result) for result in results), results
    health, stats = engine.health(), engine.stats()
    assert (health.running, health.waiting) == (0, 0)
    assert stats.failed == before.failed + len(kinds)
    assert "the model's step failed" in caplog.text
    assert not any("out of memory" in text for text in (health.reason, *map(str, results))), (
        "the log alone has its words"
    )
    if where in ("the model", "a layer"):  # else a step without rows works, and soon tells that all is well
        assert not health.ok
        assert "RuntimeError" in health.reason
        assert stats.restarts == 0
    fault.mend()
    replies = await asyncio.gather(exact(engine, tokens), exact(engine, tokens, "a"), exact(engine, prompt(2, 20)))
    assert [reply.usage.cached_tokens for reply in replies] == [0, 0, 0], "nothing is kept of what a fault may have hit"
    await until(lambda: engine.health().ok, "health")
    assert engine.stats().restarts >= 1
    assert (await exact(engine, tokens)).usage.cached_tokens == 2 * BLOCK_SIZE


@pytest.mark.parametrize("where", ["the model", "choosing", "sharing", "copying"])
async def test_a_step_that_fails_on_a_device_takes_its_rows_and_the_engine_comes_back(
    tiny, adapters, engines: EngineFactory, fault, exact, monkeypatch, where: str
) -> None:
    as_on_a_device(monkeypatch)
    engine = await engines(tiny("llama"), adapters)
    tokens = prompt(1, 3 * BLOCK_SIZE + 9)
    if where == "copying":
        await exact(engine, tokens)
    fault(where)
    results = await asyncio.gather(*(ask(engine, tokens) for _ in range(2)), return_exceptions=True)
    assert all(isinstance(result, EngineDown) for result in results), results
    fault.mend()
    replies = await asyncio.gather(exact(engine, tokens), exact(engine, tokens, "a"), exact(engine, prompt(2, 20)))
    assert [reply.usage.cached_tokens for reply in replies] == [0, 0, 0]
    await until(lambda: engine.health().ok, "health")
    assert (await exact(engine, tokens)).usage.cached_tokens == whole("pages", len(tokens) - 1)


# ── a device's memory ends ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def scarce(monkeypatch):
    """scarce(too_much) makes steps fail for which `too_much(chunks)` holds, for lack of memory."""
    as_on_a_device(monkeypatch)
    run = DecoderForward.run

    def limit(too_much) -> None:
        def limited(self, chunks):
            if too_much(chunks):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")
            return run(self, chunks)

        monkeypatch.setattr(DecoderForward, "run", limited)

    return limit


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "no memory left" in record.getMessage()]


async def test_prompts_come_in_smaller_chunks_where_memory_ends(
    tiny, adapters, engines: EngineFactory, exact, scarce, caplog
) -> None:
    engine = await engines(tiny("llama"), adapters)
    scarce(lambda chunks: sum(len(chunk.tokens) for chunk in chunks) > 50)
    await asyncio.gather(*(exact(engine, prompt(seed, 60 + seed), [None, "a", "b"][seed]) for seed in range(3)))
    await exact(engine, prompt(5, 200))
    assert 1 <= len(said(caplog)) <= 3, "half as much, until it fits"
    assert "chunks of prompts have" in said(caplog)[-1]
    assert (engine.stats().failed, engine.stats().restarts, engine.stats().preempted) == (0, 0, 0)


async def test_rows_wait_where_memory_ends_and_lose_nothing(
    tiny, adapters, engines: EngineFactory, exact, scarce, caplog
) -> None:
    engine = await engines(tiny("llama"), adapters)
    scarce(lambda chunks: len(chunks) > 2 and all(len(chunk.tokens) == 1 for chunk in chunks))
    await asyncio.gather(*(exact(engine, prompt(seed, 20), [None, "a", "b"][seed % 3]) for seed in range(5)))
    assert engine.stats().preempted >= 1
    assert (engine.stats().failed, engine.stats().restarts) == (0, 0)
    assert "2 answers run together at most from now on" in said(caplog)[-1]
    before = len(said(caplog))
    await asyncio.gather(*(exact(engine, prompt(seed, 20)) for seed in range(5)))
    assert len(said(caplog)) == before, "it is learned"


async def test_a_prompt_that_cannot_be_cut_ends_where_memory_does(tiny, engines: EngineFactory, monkeypatch) -> None:
    """Its model takes prompts whole: smaller chunks are no way out, and must not be tried for ever."""
    run = SingleForward.run

    def limited(self: SingleForward, chunks: Any) -> torch.Tensor:
        if sum(len(chunk.tokens) for chunk in chunks) > 100:
            raise torch.OutOfMemoryError("out of memory")
        return run(self, chunks)

    engine = await engines(tiny("openai-gpt"))
    monkeypatch.setattr(SingleForward, "run", limited)
    with pytest.raises(EngineDown, match="OutOfMemoryError"):
        await asyncio.wait_for(ask(engine, prompt(1, 120), max_tokens=3), 60)
    assert (await ask(engine, prompt(1, 20), max_tokens=3)).done


async def test_a_row_that_no_memory_is_enough_for_ends_alone(
    tiny, engines: EngineFactory, exact, scarce, monkeypatch
) -> None:
    engine = await engines(tiny("llama"))
    scarce(lambda chunks: any((*chunk.tokens, chunk.computed) == (77, 0) for chunk in chunks))
    with pytest.raises(EngineDown):
        await ask(engine, [77])
    await exact(engine, prompt(2, 30))
    await until(lambda: engine.health().ok, "health")


async def test_rows_that_wait_outlive_a_fault(tiny, engines: EngineFactory, gate: Gate, fault, exact) -> None:
    engine = await engines(tiny("llama"), max_batch=1)
    gate.shut()
    running = asyncio.ensure_future(ask(engine, prompt(1, 40)))
    await gate.reached()
    waiting = [asyncio.ensure_future(exact(engine, prompt(seed, 40))) for seed in (1, 2)]
    await until(lambda: engine.health().waiting == 2, "the others")
    fault("choosing")
    await gate.let(1)
    fault.mend()
    gate.open()
    with pytest.raises(EngineDown):
        await running
    await asyncio.gather(*waiting)
    assert engine.stats().failed == 1


@pytest.mark.parametrize("where", ["the model", "memory"])
async def test_the_engine_comes_back_even_when_nobody_asks(
    tiny, engines: EngineFactory, fault, monkeypatch, where: str
) -> None:
    """Its steps are captured, as on a GPU; or growing the arena is what failed."""
    monkeypatch.setattr(model_thread, "_RETRY_S", 0.01)
    if where == "the model":
        as_on_a_device(monkeypatch)
    engine = await engines(tiny("llama"))
    assert ("CUDA graphs" in engine.model.path) == (where == "the model")
    fault(where)
    with pytest.raises(EngineDown, match="RuntimeError"):
        await ask(engine, [5, 6])
    assert not engine.health().ok
    fault.mend()
    await until(lambda: engine.health().ok, "health")
    assert engine.stats().restarts == 1


async def test_a_step_that_hangs_is_reported(tiny, engines: EngineFactory, gate: Gate, monkeypatch) -> None:
    engine = await engines(tiny("llama"))
    gate.shut()
    monkeypatch.setattr(model_thread, "_STUCK_S", 0.02)
    task = asyncio.create_task(ask(engine, [5, 6], max_tokens=1))
    await until(lambda: "current step has taken" in engine.health().reason, "the report")
    monkeypatch.setattr(model_thread, "_STUCK_S", 60.0)
    gate.open()
    await task
    await until(lambda: engine.health().ok, "health")


# ── after the reader has gone ────────────────────────────────────────────────────────────────────


@pytest.fixture
def sent(monkeypatch) -> list[tuple[int, Any]]:
    """(which generator, event) of all that is sent, in order."""
    events: list[tuple[int, Any]] = []
    emitter = local.Outbox.emitter

    def watched(self, queue):
        emit, number = emitter(self, queue), len(numbers)
        numbers.append(queue)
        return lambda event: (events.append((number, event)), emit(event))

    numbers: list[Any] = []
    monkeypatch.setattr(local.Outbox, "emitter", watched)
    return events


@pytest.mark.parametrize("end", ["a step", "a fault"])
async def test_no_event_follows_once_a_generator_is_closed(
    tiny, engines: EngineFactory, gate: Gate, fault, sent, end: str
) -> None:
    engine = await engines(tiny("llama"), max_batch=2, prefill_tokens=16)
    gate.shut()
    writing, prefilling, waiting = (stream(engine, prompt(seed, length)) for seed, length in enumerate((5, 200, 9)))
    tasks = []
    for generator in (writing, prefilling, waiting):
        tasks.append(asyncio.ensure_future(anext(generator)))
        await until(lambda: engine.health().running + engine.health().waiting == len(tasks), "a row")
        if len(tasks) == 1:
            await gate.reached()
    while not tasks[0].done():
        await gate.let(1)
    assert await tasks[2] is not None, "it gets its position"
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    for generator in (writing, waiting):
        await generator.aclose()
    if end == "a fault":
        fault("choosing")
    before = list(sent)
    gate.open()
    await settle(engine)
    await until(lambda: engine.health().ok or end == "a fault", "health")
    fault.mend()
    assert (await ask(engine, [5, 6], max_tokens=2)).done
    assert [event for number, event in sent[len(before) :] if number < 3] == []

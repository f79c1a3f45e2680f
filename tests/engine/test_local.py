"""The engine from outside: streams, bounds, cancelling, failing and coming back."""

from __future__ import annotations

import asyncio
import re
import shutil
import time

import pytest

from server.config import EngineSettings, ModelSettings
from server.engine import AdapterCatalogue, LocalEngine
from server.engine.forward.paths import DecoderForward
from server.errors import EngineBusy, EngineDown, InvalidInput, ModelError
from server.types import (
    FinishReason,
    GenerationDone,
    GenerationRequest,
    Message,
    Queued,
    SamplingParams,
    TokenDelta,
    UserId,
)
from tests.engine.conftest import EngineFactory, ask, greedy, reference, settle, until

FREE = {"logit_bias": {0: -100.0, 1: -100.0, 2: -100.0}}  # never ends by itself


def request(tokens=(5, 6, 7), *, user: str | None = None, **sampling) -> GenerationRequest:
    params = SamplingParams(**{"temperature": 0.0, "max_tokens": 200, **FREE, **sampling})
    return GenerationRequest(tuple(tokens), params, user_id=UserId(user) if user else None)


async def drain(stream) -> None:
    async for _ in stream:
        pass


@pytest.fixture
def slow(monkeypatch) -> None:
    """Steps that take a few milliseconds, as a real model's do."""
    run = DecoderForward.run

    def slowly(self, chunks):
        time.sleep(0.004)
        return run(self, chunks)

    monkeypatch.setattr(DecoderForward, "run", slowly)


async def test_a_row_streams_then_is_done(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"))
    reply = await ask(engine, [5, 6, 7], max_tokens=9, **FREE)
    assert [type(event) for event in reply.events[:-1]] == [TokenDelta] * (len(reply.events) - 1)
    assert reply.done.reason is FinishReason.LENGTH
    usage = reply.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (3, 9, 0)
    assert 0 <= usage.queue_s <= usage.ttft_s <= usage.total_s
    assert sum(delta.tokens for delta in reply.deltas) <= 9


async def test_an_end_of_turn_stops_and_is_not_shown(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"))
    reply = await ask(engine, [5, 6, 7], logit_bias={2: 100.0})
    assert reply.done.reason is FinishReason.STOP
    assert reply.text == ""
    assert reply.usage.completion_tokens == 1


async def test_a_stop_string_ends_the_row_and_is_not_shown(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"))
    whole = await ask(engine, [5, 6, 7], max_tokens=40, **FREE)
    stop = next(piece for piece in re.findall(r"[^\ufffd]{2}", whole.text[5:]))
    cut = await ask(engine, [5, 6, 7], max_tokens=40, stop=(stop,), **FREE)
    assert cut.done.reason is FinishReason.STOP
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.usage.completion_tokens < 40


async def test_the_context_bounds_the_answer_and_refuses_a_prompt_over_it(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"), model_settings=ModelSettings(device="cpu", context_length=32))
    assert engine.model.context_length == 32
    reply = await ask(engine, [5] * 30, max_tokens=500, **FREE)
    assert (reply.usage.completion_tokens, reply.done.reason) == (2, FinishReason.LENGTH)
    with pytest.raises(InvalidInput, match="32 tokens and the context 32"):
        await ask(engine, [5] * 32)


@pytest.mark.parametrize(
    ("prompt", "sampling", "words"),
    [
        ([], {}, "empty"),
        ([400], {}, "0 to 399"),
        ([-1], {}, "0 to 399"),
        ([5], {"temperature": -1}, "temperature"),
        ([5], {"logit_bias": {4000: 1.0}}, "4000"),
    ],
)
async def test_bad_requests_are_refused(tiny, engines: EngineFactory, prompt, sampling, words: str) -> None:
    engine = await engines(tiny("llama"))
    with pytest.raises(InvalidInput, match=words):
        await ask(engine, prompt, **sampling)


async def test_closing_the_generator_frees_the_row_at_once(tiny, engines: EngineFactory, slow) -> None:
    engine = await engines(tiny("llama"))
    stream = engine.generate(request())
    assert isinstance(await anext(stream), TokenDelta)
    assert engine.health().running == 1
    await stream.aclose()
    await until(lambda: engine.health().running == 0, "its end")
    assert engine.stats().finished == 0


async def test_cancelling_the_reader_frees_the_row_before_its_first_token(tiny, engines: EngineFactory, gate) -> None:
    engine = await engines(tiny("llama"), prefill_tokens=16)
    gate.shut()

    async def read() -> None:
        async for _ in engine.generate(request([5] * 200)):
            pytest.fail("the prompt cannot be done yet")

    task = asyncio.create_task(read())
    await gate.reached()
    assert engine.health().running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open()
    await until(lambda: engine.health().running == 0, "its end")
    assert engine.stats().steps == 1, "no step came after"


async def test_a_waiting_row_gets_its_position_and_can_leave(tiny, engines: EngineFactory, slow) -> None:
    engine = await engines(tiny("llama"), max_batch=1)
    first = engine.generate(request())
    await anext(first)
    second, third = engine.generate(request()), engine.generate(request())
    assert await anext(second) == Queued(1)
    assert await anext(third) == Queued(2)
    await second.aclose()
    assert await anext(third) == Queued(1)
    await first.aclose()
    assert isinstance(await anext(third), TokenDelta)
    await third.aclose()


async def test_the_bounds_on_users_and_waiting(tiny, engines: EngineFactory, slow) -> None:
    engine = await engines(tiny("llama"), max_batch=1, max_waiting=1, max_per_user=1)
    first = engine.generate(request(user="a"))
    await anext(first)
    with pytest.raises(EngineBusy, match="max_per_user"):
        await ask(engine, [5], user="a")
    second = engine.generate(request(user="b"))
    await anext(second)
    with pytest.raises(EngineBusy, match="max_waiting"):
        await ask(engine, [5], user="c")
    await first.aclose()
    await second.aclose()
    await settle(engine)
    assert (await ask(engine, [5], user="a")).done


async def test_a_long_prompt_does_not_stall_a_stream(tiny, engines: EngineFactory, monkeypatch) -> None:
    """Where a step costs as much as 20 tokens of a prompt, a chunk of it may have a few times as many, not 240."""
    run, prompt_tokens = DecoderForward.run, []

    def costly(self, chunks):
        tokens = sum(len(chunk.tokens) for chunk in chunks)
        prompt_tokens.append(tokens - len(chunks))
        time.sleep(0.01 + 0.0005 * tokens)
        return run(self, chunks)

    monkeypatch.setattr(DecoderForward, "run", costly)
    engine = await engines(tiny("llama"))
    stream = engine.generate(request())
    for _ in range(3):
        await anext(stream)
    prompt_tokens.clear()
    long = asyncio.create_task(ask(engine, [5] * 240, max_tokens=1))
    seen = 0
    while not long.done():
        await anext(stream)
        seen += 1
    assert max(prompt_tokens) <= 100
    assert seen >= 3
    await stream.aclose()


async def test_logprobs_come_with_the_tokens(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"))
    reply = await ask(engine, [5, 6, 7], max_tokens=8, logprobs=2, **FREE)
    entries = [entry for delta in reply.deltas for entry in delta.logprobs]
    assert len(entries) == sum(delta.tokens for delta in reply.deltas)
    assert all(len(entry.top) == 2 and entry.top[0][1] >= entry.top[1][1] for entry in entries)
    assert all(entry.logprob <= 0 for entry in entries)


async def test_penalties_reach_the_model(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"))
    plain = await ask(engine, [5, 6, 7], max_tokens=30, **FREE)
    varied = await ask(engine, [5, 6, 7], max_tokens=30, repetition_penalty=5.0, **FREE)
    assert plain.text != varied.text


async def test_closing_fails_what_runs_and_refuses_what_comes(tiny, engines: EngineFactory, slow) -> None:
    engine = await engines(tiny("llama"), max_batch=1)
    running, waiting = engine.generate(request()), engine.generate(request())
    await anext(running)
    await anext(waiting)
    await engine.close()
    for stream in (running, waiting):
        with pytest.raises(EngineDown, match="stopped"):
            await drain(stream)
    with pytest.raises(EngineDown):
        await ask(engine, [5])
    assert not engine.health().ok


async def test_before_the_start_nothing_works_and_it_says_why(tiny, tmp_path) -> None:
    engine = LocalEngine(str(tiny("llama")), EngineSettings(), ModelSettings(), AdapterCatalogue(tmp_path))
    assert not engine.health().ok
    with pytest.raises(EngineDown, match="not loaded yet"):
        await drain(engine.generate(request()))
    with pytest.raises(EngineDown):
        engine.adapters()
    await engine.close()


@pytest.mark.parametrize("break_it", ["gone", "weights", "config"])
async def test_a_model_that_cannot_be_loaded_is_a_model_error(tiny, tmp_path, break_it: str) -> None:
    folder = tmp_path / "model"
    if break_it != "gone":
        shutil.copytree(tiny("llama"), folder)
        name = "model.safetensors" if break_it == "weights" else "config.json"
        (folder / name).write_text("broken")
    engine = LocalEngine(str(folder), EngineSettings(), ModelSettings(device="cpu"), AdapterCatalogue(tmp_path))
    with pytest.raises(ModelError):
        await engine.start()
    await engine.close()


async def test_a_budget_too_small_for_any_chat_is_refused(tiny, tmp_path) -> None:
    settings = EngineSettings.model_construct(**{**EngineSettings().model_dump(), "kv_bytes": 20_000})
    engine = LocalEngine(str(tiny("llama")), settings, ModelSettings(), AdapterCatalogue(tmp_path))
    with pytest.raises(ModelError, match="kv_bytes holds 0 tokens"):
        await engine.start()


async def test_memory_bounds_how_many_run(tiny, engines: EngineFactory, slow) -> None:
    engine = await engines(tiny("llama"), kv_bytes=1024**2)  # 1,820 tokens of this model
    streams = [engine.generate(request([5 + row] * 150)) for row in range(10)]
    tasks = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await until(lambda: engine.health().running == 7, "as many as fit")
    assert engine.health().waiting == 3
    stats = engine.stats()
    assert 1792 * 576 == stats.kv_bytes <= stats.max_kv_bytes <= 1024**2
    await asyncio.gather(*tasks)
    for stream in streams:
        await stream.aclose()


async def test_rows_come_and_go_in_any_order_with_the_same_text(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("qwen3"), max_batch=4, prefill_tokens=16)
    oracle = reference(tiny("qwen3"))
    lengths = [3, 60, 17, 33, 5, 90, 21, 48]
    expected = {n: engine.tokenizer.decode(greedy(oracle, [7 + n] * n, 12, engine.tokenizer.stop_ids)) for n in lengths}

    async def one(n: int, pause: float) -> None:
        await asyncio.sleep(pause)
        reply = await ask(engine, [7 + n] * n, max_tokens=12)
        assert reply.text.rstrip("\ufffd") == expected[n].rstrip("\ufffd")

    await asyncio.gather(*(one(n, 0.003 * number) for number, n in enumerate(lengths * 3)))


async def test_the_loop_stays_free_while_the_model_works(tiny, engines: EngineFactory, slow) -> None:
    engine = await engines(tiny("llama"))
    task = asyncio.gather(*(ask(engine, [5 + n] * 50, max_tokens=60, **FREE) for n in range(8)))
    waits = []
    while not task.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        waits.append(time.perf_counter() - began)
    await task
    assert sorted(waits)[len(waits) // 2] < 0.05


async def test_two_engines_in_one_process_do_not_meet(tiny, engines: EngineFactory) -> None:
    one, two = await engines(tiny("llama")), await engines(tiny("mistral"))
    alone = [await ask(engine, [5, 6, 7, 8], max_tokens=15) for engine in (one, two)]
    together = await asyncio.gather(*(ask(engine, [5, 6, 7, 8], max_tokens=15) for engine in (one, two)))
    assert [reply.text for reply in together] == [reply.text for reply in alone]


@pytest.mark.model
async def test_the_default_model_answers(chat_model_dir, engines: EngineFactory) -> None:
    engine = await engines(chat_model_dir)
    card = engine.model
    assert (card.id, card.device, card.dtype, card.context_length) == ("smollm2-135m-instruct", "cpu", "float32", 8192)
    assert card.parameters == 134_515_008
    assert "packed" in card.path
    prompt = engine.tokenizer.render([Message("user", "What is the capital of France?")])
    reply = await ask(engine, prompt, max_tokens=20)
    assert "Paris" in reply.text
    assert reply.done.reason is FinishReason.STOP
    assert isinstance(reply.events[-1], GenerationDone)

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from server.engine import local
from server.engine.model.tokenizer import ModelTokenizer
from server.engine.sampling.constraint import ConstraintCompiler
from server.engine.sampling.sampler import Sampler
from server.errors import EngineBusy, InvalidInput, OutputFormatError
from server.types import Constraint, FinishReason, Message, SamplingParams
from tests.engine.conftest import VOCABULARY, EngineFactory, ask, choose

SCHEMA = {
    "type": "object",
    "properties": {
        "이름": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "label": {"enum": ["긍정", "negative"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["이름", "age", "label", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def compiler(tiny) -> ConstraintCompiler:
    return ConstraintCompiler(ModelTokenizer(str(tiny("llama"))), VOCABULARY)


def write(compiler: ConstraintCompiler, constraint: Constraint, seed: int, most: int = 400) -> tuple[list[int], bool]:
    """Tokens drawn from pure noise under the constraint, and whether it came to its end."""
    mask = compiler.mask(constraint)
    sampler = Sampler(SamplingParams(temperature=1, seed=seed), [], mask)
    noise = np.random.default_rng(seed)
    ids: list[int] = []
    while len(ids) < most:
        token = choose(sampler, noise.normal(0, 3, VOCABULARY).astype(np.float32)).token
        if token in (0, 2):
            return ids, True
        ids.append(token)
        if mask.complete:
            return ids, True
    return ids, False


def follows(value: dict) -> bool:
    return (
        set(value) == set(SCHEMA["required"])
        and len(value["이름"]) <= 12
        and 18 <= value["age"] <= 99
        and value["label"] in ("긍정", "negative")
        and len(value["tags"]) <= 3
    )


def test_noise_becomes_valid_json_every_time(compiler: ConstraintCompiler) -> None:
    constraint = Constraint("json_schema", json.dumps(SCHEMA, ensure_ascii=False))
    for seed in range(24):
        ids, ended = write(compiler, constraint, seed, most=2000)
        assert ended, "bounded values and bounded white space come to an end"
        assert follows(json.loads(compiler._tokenizer.decode(ids)))


def test_a_grammar_in_lark(compiler: ConstraintCompiler) -> None:
    constraint = Constraint("lark", 'start: ("예" | "아니오") " [" /[1-9]/ "]"')
    answers = {compiler._tokenizer.decode(write(compiler, constraint, seed)[0]) for seed in range(20)}
    assert len(answers) > 3
    assert all(answer[-4:-1:2] == " " + answer[-2] and answer.split(" ")[0] in ("예", "아니오") for answer in answers)


def test_rows_with_one_constraint_do_not_share_their_state(compiler: ConstraintCompiler) -> None:
    constraint = Constraint("lark", 'start: "ab"')
    one, two = compiler.mask(constraint), compiler.mask(constraint)
    one.accept(compiler._tokenizer.encode("a")[0])
    fresh = np.zeros(VOCABULARY, np.float32)
    two.apply(fresh)
    assert np.isfinite(fresh[compiler._tokenizer.encode("a")[0]])


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (Constraint("json_schema", "{"), "not valid JSON"),
        (Constraint("json_schema", "[]"), "must be a JSON object"),
        (Constraint("json_schema", '{"type": "nothing"}'), "cannot be used"),
        (Constraint("json_schema", '{"$ref": "#/$defs/missing"}'), "cannot be used"),
        (Constraint("lark", "start: missing_rule"), "grammar cannot be used"),
        (Constraint("lark", ""), "grammar cannot be used"),
    ],
)
def test_a_broken_constraint_is_refused_with_its_reason(compiler: ConstraintCompiler, constraint, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        compiler.mask(constraint)


# ── compiling ────────────────────────────────────────────────────────────────────────────────────


def numbered(number: int, filler: str = "") -> Constraint:
    return Constraint("json_schema", json.dumps({"const": number, "description": filler}))


def test_a_constraint_is_compiled_once_for_all_who_ask(compiler: ConstraintCompiler) -> None:
    first = compiler.compile(numbered(1))
    assert compiler.compile(numbered(1)) is first
    first.result()
    assert compiler.compile(numbered(1)) is first


def test_failures_are_not_kept(compiler: ConstraintCompiler) -> None:
    bad = Constraint("json_schema", '{"type": "nothing"}')
    first = compiler.compile(bad)
    assert first.exception() is not None
    eventually(lambda: bad not in compiler._kept)


def test_what_is_kept_is_bounded_in_number_and_in_bytes(compiler: ConstraintCompiler) -> None:
    for number in range(90):
        compiler.mask(numbered(number))
    eventually(lambda: len(compiler._kept) <= 64)
    fillers = [letter * 4_000 for letter in "abcdefghij"]
    large = {"properties": {f"p{n}": {"description": text} for n, text in enumerate(fillers)}}
    for number in range(40):
        compiler.mask(Constraint("json_schema", json.dumps(large | {"title": str(number)})))
    eventually(lambda: sum(len(known.source) for known in compiler._kept) <= 1 << 20)
    assert len(compiler._kept) > 10
    assert compiler._pending == 0


def eventually(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_one_that_takes_long_does_not_hold_up_the_others(tiny, monkeypatch) -> None:
    compiler = ConstraintCompiler(ModelTokenizer(str(tiny("llama"))), VOCABULARY)
    known = compiler.compile(numbered(0))
    known.result()
    go_on = threading.Event()
    real = ConstraintCompiler._grammar

    def slow(self: ConstraintCompiler, constraint: Constraint) -> str:
        assert "slow" not in constraint.source or go_on.wait(60)
        return real(self, constraint)

    monkeypatch.setattr(ConstraintCompiler, "_grammar", slow)
    held = compiler.compile(numbered(1, "slow"))
    compiler.mask(numbered(2))
    assert compiler.compile(numbered(0)) is known
    waiting = [compiler.compile(numbered(number, "slow")) for number in range(3, 34)]
    with pytest.raises(EngineBusy, match="output formats"):
        compiler.compile(numbered(99))
    assert compiler.compile(numbered(0)) is known, "what is compiled costs no place"
    go_on.set()
    for future in (held, *waiting):
        future.result(60)
    compiler.close()


async def test_the_event_loop_goes_on_while_the_costliest_schemas_compile(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"))
    enum = {"enum": [f"v{n}" for n in range(3_900)], "type": "string", "pattern": "^v.*[13579]$", "minLength": 2}
    gaps, stop = [], asyncio.Event()

    async def tick() -> None:
        while not stop.is_set():
            began = time.monotonic()
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - began)

    ticking = asyncio.create_task(tick())
    with pytest.raises(OutputFormatError):  # behind the first token it is more than a step may cost
        await ask(engine, "hello", constraint=Constraint("json_schema", json.dumps(enum)), max_tokens=3)
    nested: dict[str, object] = {"type": "integer"}
    for _ in range(4):
        nested = {"type": "array", "items": nested, "minItems": 64}
    await ask(engine, "hello", constraint=Constraint("json_schema", json.dumps(nested)), max_tokens=3)
    stop.set()
    await ticking
    assert len(gaps) > 10
    assert max(gaps) < 1.0


async def test_a_schema_that_is_not_compiled_in_time_is_busy(tiny, engines: EngineFactory, monkeypatch) -> None:
    engine = await engines(tiny("llama"))
    go_on = threading.Event()
    monkeypatch.setattr(local, "_COMPILE_WAIT_S", 0.05)
    monkeypatch.setattr(ConstraintCompiler, "_grammar", lambda self, constraint: str(go_on.wait(60)))
    with pytest.raises(EngineBusy, match="was not ready"):
        await ask(engine, "hello", constraint=numbered(1))
    assert (await ask(engine, "hello")).usage.completion_tokens > 0
    go_on.set()


async def test_an_engine_row_is_held_to_it_beside_free_rows(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"))
    constraint = Constraint("json_schema", json.dumps(SCHEMA))
    reply = await ask(engine, "hello", constraint=constraint, temperature=1.0, seed=4, max_tokens=200)
    assert reply.done.reason is FinishReason.STOP
    assert follows(json.loads(reply.text))
    assert (await ask(engine, "hello")).text != reply.text


@pytest.mark.parametrize("most", [1, 5, 30])
async def test_json_at_the_token_limit_ends_as_it_was_written(tiny, engines: EngineFactory, most: int) -> None:
    engine = await engines(tiny("llama"))
    constraint = Constraint("json_schema", json.dumps(SCHEMA))
    whole = await ask(engine, "hello", constraint=constraint, temperature=1.0, seed=4, max_tokens=200)
    cut = await ask(engine, "hello", constraint=constraint, temperature=1.0, seed=4, max_tokens=most)
    assert (cut.done.reason, cut.usage.completion_tokens) == (FinishReason.LENGTH, most)
    assert whole.text.startswith(cut.text), "nothing is invented to close it"
    assert len(cut.text) < len(whole.text)
    assert engine.health().ok


async def test_a_broken_constraint_leaves_the_engine_alone(tiny, engines: EngineFactory) -> None:
    engine = await engines(tiny("llama"))
    with pytest.raises(InvalidInput):
        await ask(engine, "hello", constraint=Constraint("json_schema", "{"))
    assert (await ask(engine, "hello")).usage.completion_tokens > 0


@pytest.mark.model
async def test_the_default_model_writes_json_that_parses(chat_model_dir, engines: EngineFactory) -> None:
    engine = await engines(chat_model_dir)
    schema = {
        "type": "object",
        "required": ["city", "rating"],
        "additionalProperties": False,
        "properties": {
            "city": {"type": "string", "maxLength": 30},
            "rating": {"type": "integer", "minimum": 1, "maximum": 5},
        },
    }
    for question in ("Rate Paris as JSON.", "서울을 JSON으로 평가해 줘."):
        prompt = engine.tokenizer.render([Message("user", question)])
        reply = await ask(
            engine,
            prompt,
            constraint=Constraint("json_schema", json.dumps(schema)),
            max_tokens=120,
            temperature=0.8,
            seed=1,
        )
        assert reply.done.reason is FinishReason.STOP
        assert 1 <= json.loads(reply.text)["rating"] <= 5

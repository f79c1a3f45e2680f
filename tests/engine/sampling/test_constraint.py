from __future__ import annotations

import json

import numpy as np
import pytest

from server.engine.model.tokenizer import ModelTokenizer
from server.engine.sampling.constraint import ConstraintCompiler
from server.engine.sampling.sampler import Sampler
from server.errors import InvalidInput
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

"""The grammars run in llguidance itself: over bytes here, over the default model's tokens where marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llguidance import LLMatcher, LLTokenizer

from server.prompting.constraint import constraint_of, rules_of, schema_fault, with_fixed_layout
from server.prompting.domain import Domain
from server.types import Constraint

SCHEMA = {
    "type": "object",
    "properties": {"risk": {"enum": ["low", "high", '한글 "quoted" </think>']}, "count": {"type": "integer"}},
    "required": ["risk", "count"],
    "additionalProperties": False,
}
JSON = '{"risk": "low", "count": 3}'


def domain(*, reasoning: bool = False, output: dict[str, object] | None = None) -> Domain:
    text = json.dumps(output, ensure_ascii=False) if output else None
    return Domain("d", "D", "", "Body.", reasoning=reasoning, output=text)


def grammar(constraint: Constraint | None) -> str:
    assert constraint is not None
    if constraint.kind == "json_schema":
        return LLMatcher.grammar_from_json_schema(constraint.source)
    return LLMatcher.grammar_from_lark(constraint.source)


def accepts(constraint: Constraint | None, text: str, tokenizer: LLTokenizer | None = None) -> bool:
    """Whether the decoder may write the whole text and stop there."""
    tokenizer = tokenizer or LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, grammar(constraint))
    assert not matcher.is_error(), matcher.get_error()
    ids = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def test_a_plain_domain_is_not_constrained():
    assert constraint_of(domain(), 100) is None
    assert rules_of(domain()) == ()


def test_output_holds_the_answer_to_the_schema_in_one_layout():
    constraint = constraint_of(domain(output=SCHEMA), 100)
    assert constraint is not None
    assert constraint.kind == "json_schema"
    assert accepts(constraint, JSON)
    assert accepts(constraint, json.dumps({"risk": '한글 "quoted" </think>', "count": -1}, ensure_ascii=False))
    for bad in ("yes", '{"risk": "mid", "count": 3}', '{"risk": "low"}', JSON + " x", '{"risk":   "low", "count": 3}'):
        assert not accepts(constraint, bad), bad


def test_a_domains_schema_means_what_it_says():
    constraint = constraint_of(domain(output={"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}), 100)
    assert accepts(constraint, "0.25")
    assert not accepts(constraint, "0")


def test_a_schemas_own_layout_wins():
    free = {**SCHEMA, "x-guidance": {"whitespace_flexible": True}}
    assert accepts(constraint_of(domain(output=free), 100), '{ "risk":  "low",\n "count": 3 }')


def test_reasoning_comes_first_is_closed_and_is_followed_by_an_answer():
    constraint = constraint_of(domain(reasoning=True), 40)
    assert accepts(constraint, "<think>1 < 2, so </thin> it is.</think>\nYes.\n\nIt is 한글.")
    for bad in ("Yes.", "<think>a</think>\n", "<think>a</think>Yes.", "<think>a", "<think>a\nYes."):
        assert not accepts(constraint, bad), bad


def test_thinking_ends_at_its_limit():
    constraint = constraint_of(domain(reasoning=True), 40)
    assert accepts(constraint, f"<think>{'한' * 40}</think>\nYes.")
    assert not accepts(constraint, f"<think>{'한' * 41}</think>\nYes.")


def test_reasoning_and_output_together():
    constraint = constraint_of(domain(reasoning=True, output=SCHEMA), 40)
    assert accepts(constraint, f"<think>because</think>\n{JSON}")
    for bad in (JSON, "<think>because</think>\nlow", f"<think>because</think>\n{JSON} and more"):
        assert not accepts(constraint, bad), bad


def test_the_rules_show_the_schema_without_the_decoders_hints():
    reasoning, output = rules_of(domain(reasoning=True, output=SCHEMA))
    assert "<think>" in reasoning
    assert json.loads(output.partition(": ")[2]) == SCHEMA


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "objct"},
        {"type": "string", "format": "no-such"},
        {"$ref": "#/none"},
        {"type": "integer", "multipleOf": 10_007},
    ],
)
def test_a_schema_that_cannot_be_followed_is_reported(bad: dict[str, object]):
    assert schema_fault(bad)


@pytest.mark.parametrize(
    "good",
    [SCHEMA, {"type": "array", "items": {"type": "number"}}, {"enum": ["a", 1, None]}, {"type": "object"}],
)
def test_a_schema_that_can_be_followed_passes_and_makes_a_lark_grammar_too(good: dict[str, object]):
    assert schema_fault(good) == ""
    source = constraint_of(domain(reasoning=True, output=good), 100)
    assert LLMatcher.validate_grammar(grammar(source)) == ""


def test_the_fixed_layout_leaves_the_schema_alone():
    schema = {"type": "object"}
    with_fixed_layout(schema)
    assert schema == {"type": "object"}


@pytest.mark.model
def test_the_grammars_run_over_the_default_models_tokens(chat_model_dir: Path):
    from llguidance.hf import from_tokenizer
    from transformers import AutoTokenizer

    tokenizer = from_tokenizer(AutoTokenizer.from_pretrained(str(chat_model_dir)))
    both = constraint_of(domain(reasoning=True, output=SCHEMA), 4000)
    assert accepts(both, f"<think>step < by step, 그래서</think>\n{JSON}", tokenizer)
    assert not accepts(both, "<think>step</think>\nlow", tokenizer)
    assert accepts(constraint_of(domain(output=SCHEMA), 10), JSON, tokenizer)
    thinking = constraint_of(domain(reasoning=True), 12)
    assert accepts(thinking, "<think>short</think>\nYes", tokenizer)
    assert not accepts(thinking, "<think>longer than it may be</think>\nYes", tokenizer)

"""Bounds, rewording, and what the grammars mean: each is held against the `jsonschema` library."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from server.errors import InvalidInput
from server.json_schema import GRAMMAR_LIMITS, usable_schema
from tests.tiers import cases

BYTES = LLTokenizer("byte")


def nested(levels: int, **array: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema, **array}
    return schema


TEXT = {"type": "string"}
OVER = {
    "larger than 65536 bytes": {"description": "x" * 70_000},
    "too many values at #/enum": {"enum": list(range(5_000))},
    "too many levels at #/items/items": nested(80),
    "too many names of properties at #/required": {"required": [f"p{n}" for n in range(1_001)]},
    "too many names of properties at #/properties": {"properties": {f"p{n}": True for n in range(1_001)}},
    "257 options at #/properties/a/anyOf": {"properties": {"a": {"anyOf": [{"const": n} for n in range(257)]}}},
    "a text of 5,000 characters at #/const": {"const": "x" * 5_000},
    "a text of 5,001 characters": {"properties": {"x" * 5_001: TEXT}},
    "a pattern of 1,001 characters at #/items": {"items": {"pattern": "a" * 1_001}},
    "9 patterns beside allOf": {"allOf": [TEXT | {"pattern": f".*{letter}.*"} for letter in "abcdefghi"]},
    "too many patterns of names": {"patternProperties": {f"^{n}$": TEXT for n in range(33)}},
    "product is too large at #/multipleOf": {"type": "integer", "multipleOf": 10_007},
    "product is too large at #/anyOf/1": {"anyOf": [{"multipleOf": 9_973}, {"multipleOf": 9_967}]},
    "product is too large at #/default": {"$ref": "#/default", "default": {"multipleOf": 99_999_989}},
    "multipleOf that is not above 0": {"multipleOf": 0},
    "beyond ±9007199254740992 at #/minimum": {"minimum": 2**60},
    "decimal places at #/maximum": {"maximum": 1e-300},
}


@pytest.mark.parametrize("says", OVER)
def test_a_schema_over_a_bound_is_refused_with_its_part(says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        usable_schema(json.dumps(OVER[says]))
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"minimum": NaN}', "[" * 50_000])
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        usable_schema(text)


CHEAP = [
    nested(4, minItems=64),
    nested(2, minItems=1_000_000),
    {"type": "object", "required": ["a"] * 900, "properties": {"a": {"type": "integer"}}},
    {"type": "string", "maxLength": 10**9},
    {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
    {"type": "string", "pattern": "^a{1,100000}$"},
    {"$ref": "#/$defs/a0", "$defs": {"a0": {"type": "array", "items": {"$ref": "#/$defs/a0"}}}},
    {  # doubles with each level where it is written out
        "$ref": "#/$defs/a20",
        "$defs": {"a0": {"type": "null"}}
        | {f"a{n}": {"type": "array", "prefixItems": 2 * [{"$ref": f"#/$defs/a{n - 1}"}]} for n in range(1, 21)},
    },
    {"properties": {f"p{n}": {"type": "number", "multipleOf": 5} for n in range(50)}, "type": "object"},
]


@pytest.mark.parametrize("schema", CHEAP)
def test_what_only_looks_costly_is_allowed(schema: dict[str, Any]) -> None:
    assert not matcher(schema).is_error()


def test_what_llguidance_finds_too_large_is_an_error_soon() -> None:
    options = [
        {"anyOf": [{"properties": {f"p{n}{k}": {"const": j}}} for j in range(3)]} for n in range(8) for k in "ab"
    ]
    assert matcher({"type": "object", "allOf": options}).is_error()


# ── what it means ────────────────────────────────────────────────────────────────────────────────


def matcher(schema: Any) -> LLMatcher:
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(usable_schema(json.dumps(schema))))
    return LLMatcher(BYTES, grammar, log_level=0, limits=LLParserLimits(**GRAMMAR_LIMITS))


def admits(of: LLMatcher, text: str) -> bool:
    fresh, tokens = of.deep_copy(), list(text.encode())
    return fresh.try_consume_tokens(tokens) == len(tokens) and fresh.is_accepting()


NUMBERS = [-11, -10, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 15, 100, 101, -0.5, 0.5, 1.5, 2.5, 0.25, 9.75, 1000]
TEXTS = [
    "",
    "a",
    "ab",
    "abc",
    "abcd",
    "b",
    "aa",
    "bab",
    "a b",
    "한글",
    "12",
    'q"x',
    "a\nb",
    "x-1",
    "2020-01-01",
    "a@b.co",
]
LISTS = [[], [1], [1, 2], [1, 1], [1, 2, 3], ["a"], ["a", 1], ["a", 1, 2], [1, "a"], [None], [[1]], [[[]]]]
OBJECTS = [{}, {"a": 1}, {"b": 1}, {"a": 1, "b": 2}, {"a": "x"}, {"a": 1, "c": 3}, {"x1": 1}, {"x1": "s"}, {"a": None}]
VALUES = [None, True, False, *NUMBERS, *TEXTS, *LISTS, *OBJECTS, {"a": 1, "b": 2, "c": 3}, {"a": [1]}, {"a": {"b": 1}}]

NUMERIC = [
    {},
    {"minimum": 0},
    {"maximum": 9},
    {"minimum": 0, "maximum": 9},
    {"exclusiveMinimum": 0},
    {"exclusiveMaximum": 10},
    {"exclusiveMinimum": 0, "maximum": 10},
    {"exclusiveMinimum": 0, "maximum": 0.5},
    {"exclusiveMinimum": 1, "maximum": 1.5},
    {"minimum": -1.5, "exclusiveMaximum": -1},
    {"exclusiveMinimum": 0, "exclusiveMaximum": 10},
    {"minimum": -10, "maximum": -2},
    {"exclusiveMinimum": -11, "exclusiveMaximum": -1},
    {"minimum": 0.5, "maximum": 9.5},
    {"minimum": 1, "exclusiveMinimum": 1},
    {"minimum": 0, "exclusiveMinimum": 2},
    {"maximum": 10, "exclusiveMaximum": 5},
    {"maximum": 5, "exclusiveMaximum": 10},
    {"exclusiveMaximum": 0},
    {"exclusiveMinimum": -1},
    {"minimum": 0, "maximum": 0},
    {"multipleOf": 3},
    {"multipleOf": 0.5},
    {"multipleOf": 2, "minimum": 1, "maximum": 11},
]
STRINGS = [
    {},
    {"minLength": 2},
    {"maxLength": 2},
    {"minLength": 1, "maxLength": 3},
    {"pattern": "^a"},
    {"pattern": "b$"},
    {"pattern": "a|b"},
    {"pattern": "^[a-c]{2,3}$"},
    {"pattern": "^\\d+$"},
    {"pattern": "^a\\sb$"},
    {"pattern": "^[^a]*$"},
    {"pattern": "^a", "maxLength": 2},
    {"pattern": "^$"},
    {"enum": ["a", "abc"], "maxLength": 2},
]
ARRAYS = [
    {},
    {"items": {"type": "integer"}},
    {"minItems": 1},
    {"maxItems": 1},
    {"minItems": 1, "maxItems": 2},
    {"prefixItems": [{"type": "string"}]},
    {"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
    {"prefixItems": [{"type": "string"}], "items": {"type": "integer"}},
    {"prefixItems": [{"type": "integer"}], "minItems": 2},
    {"items": False},
]
OBJECT = [
    {},
    {"properties": {"a": {"type": "integer"}}},
    {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"properties": {"a": {"type": "integer"}}, "additionalProperties": False},
    {"required": ["a", "b"]},
    {"additionalProperties": {"type": "integer"}},
    {"patternProperties": {"^x": {"type": "integer"}}},
    {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
    {"properties": {"a": {"minimum": 2}}, "patternProperties": {"^a": {"type": "integer"}}},
    {"properties": {"a": False}},
    {"minProperties": 1},
    {"maxProperties": 1},
]
OTHERS: list[Any] = [
    True,
    {},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["integer", "null"], "exclusiveMinimum": 1},
    {"type": ["string", "integer"], "minLength": 2, "minimum": 3},
    {"minimum": 3},
    {"minLength": 2},
    {"enum": [1, "a", None, True, [1, 2], {"a": 1}]},
    {"const": {"a": 1}},
    {"const": 1.5},
    {"type": "integer", "enum": [1, "a", 2.5]},
    {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"allOf": [{"type": "integer"}, {"minimum": 3}]},
    {"allOf": [{"type": "number", "exclusiveMinimum": 0}, {"maximum": 0.5}]},
    {"type": "integer", "allOf": [{"exclusiveMinimum": 0}, {"minimum": -3}]},
    {"allOf": [{"multipleOf": 2, "type": "integer"}, {"multipleOf": 3}]},
    {"type": "integer", "anyOf": [{"minimum": 3}, {"maximum": -3}]},
    {"$defs": {"n": {"type": "integer", "minimum": 1}}, "$ref": "#/$defs/n", "maximum": 5},
    {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"},
    {"type": "object", "properties": {"exclusiveMinimum": {"type": "integer"}, "a": {"exclusiveMinimum": 1}}},
    {"enum": [{"exclusiveMinimum": 0}, 1]},
]
SCHEMAS = [
    *({"type": kind, **rest} for kind in ("integer", "number") for rest in NUMERIC),
    *({"type": "string", **rest} for rest in STRINGS),
    *({"type": "array", **rest} for rest in ARRAYS),
    *({"type": "object", **rest} for rest in OBJECT),
    *OTHERS,
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_the_grammar_admits_the_valid_and_refuses_the_invalid(schema: Any) -> None:
    validator, grammar = jsonschema.Draft202012Validator(schema), matcher(schema)
    assert not grammar.is_error() or not any(map(validator.is_valid, VALUES)), grammar.get_error()
    texts = {json.dumps(value, ensure_ascii=False, separators=(",", ":")): value for value in VALUES}
    wrong = [
        text
        for text, value in texts.items()
        if not grammar.is_error() and admits(grammar, text) != validator.is_valid(value)
    ]
    assert wrong == []


UNSUPPORTED = {
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "contains": {"type": "array", "contains": {"const": 1}},
    "propertyNames": {"type": "object", "propertyNames": {"maxLength": 1}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "not": {"type": "integer", "not": {"const": 3}},
    "if": {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
    "oneOf": {"oneOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 5}]},
    "look-around": {"type": "string", "pattern": "^(?!a)"},
    "format": {"type": "string", "format": "no-such"},
    "minProperties": {"type": "object", "properties": {"a": True}, "minProperties": 1},
}


@pytest.mark.parametrize("keyword", UNSUPPORTED)
def test_what_a_grammar_cannot_hold_to_is_refused_by_name(keyword: str) -> None:
    grammar = matcher(UNSUPPORTED[keyword])
    assert grammar.is_error()
    assert keyword.casefold() in grammar.get_error().partition("\n<")[0].casefold().replace("min/max", "min")


bounds = st.one_of(
    st.integers(-120, 120),
    st.decimals(-13, 13, places=2).map(float),
    st.sampled_from([0, 1, -1, 0.5, -0.5, 10, -10, 100, 0.1]),
)
numeric = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number"])},
    optional=dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), bounds),
)


@settings(max_examples=cases(300, 5_000), deadline=None, derandomize=True)
@given(numeric)
def test_numbers_near_their_bounds(schema: dict[str, Any]) -> None:
    validator, grammar = jsonschema.Draft202012Validator(schema), matcher(schema)
    edges = {Decimal(0), *(Decimal(repr(value)) for value in schema.values() if not isinstance(value, str))}
    steps = [Decimal(step) for step in ("0", "1", "-1", "0.01", "-0.01", "0.5", "-0.5", "10", "-10")]
    for number in (edge + step for edge in edges for step in steps):
        whole = number == number.to_integral_value()
        spellings = {f"{number:f}", f"{number.normalize():f}"} | ({f"{number:f}0"} if "." in f"{number:f}" else set())
        if whole:
            spellings = {str(int(number))}
        valid = validator.is_valid(int(number) if whole else float(number))
        admitted = {spelling for spelling in spellings if not grammar.is_error() and admits(grammar, spelling)}
        assert bool(admitted) == valid, (schema, number, admitted)


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_rewording_twice_changes_nothing_more(schema: Any) -> None:
    once = usable_schema(json.dumps(schema))
    assert usable_schema(json.dumps(once)) == once


def test_bounds_of_draft_4_mean_the_same() -> None:
    grammar = matcher({"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 0.5})
    assert [admits(grammar, text) for text in ("0", "0.0", "0.1", "0.5", "0.6")] == [False, False, True, True, False]

"""JSON Schemas that come from outside: bounded before a grammar is made of them, and reworded where the grammar would
mean something else than the schema says.

The bounds are measured: within them llguidance compiles in a fraction of a second, and what it does without a bound of
its own (joined patterns, multiples, pairs of name patterns) stays small. Knows nothing of tokens, domains or requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, TypeGuard

from server.errors import InvalidInput

GRAMMAR_LIMITS: Final[Mapping[str, Any]] = MappingProxyType(
    {  # of llguidance's LLParserLimits
        "max_items_in_row": 400,
        "initial_lexer_fuel": 300_000,
        "step_lexer_fuel": 50_000,  # about 4 ms of a step
        "step_max_items": 20_000,  # about 1 ms of a step
        "max_lexer_states": 20_000,  # 1 to 2 kB each
        "max_grammar_size": 20_000,
        "verbose_errors": False,
    }
)

_MAX_BYTES = 64 * 1024
_MAX_DEPTH = 64  # of nested objects and lists
_MAX_VALUES = 4_000
_MAX_TEXT = 4_096  # characters of one string or name
_MAX_NAMES = 1_000  # properties and required names
_MAX_OPTIONS = 256  # of one anyOf or oneOf
_MAX_PATTERN = 1_000  # characters
_MAX_JOINED_PATTERNS = 8  # all must match one string: the work doubles with each
_MAX_NAME_PATTERNS = 32  # patternProperties: each pair is compared
_MAX_MULTIPLES = 10_000  # product of the digits of all multipleOf: states of a machine that counts them
_LARGEST_NUMBER = 2**53  # whole numbers up to it are exact
_MAX_DIGITS = 17  # of a bound
_OPEN_STEP_DIGITS = 12  # a value above 0 is at least 1e-12, one above 10 at least 10 + 1e-11

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_DATA = ("const", "enum", "default", "examples")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SAYS_NOTHING = ("$ref", "$defs", "definitions", "title", "description", "default", "examples", "$schema", "$id")


@dataclass
class _Counts:
    values: int = 0
    names: int = 0
    patterns: int = 0
    name_patterns: int = 0
    joins: bool = False  # somewhere several schemas hold for one value
    multiples: int = 1


def usable_schema(source: str) -> dict[str, Any] | bool:
    """The schema in this JSON text, reworded for the grammar. Raises InvalidInput naming what is over its bound."""
    if len(source.encode("utf-8", "surrogatepass")) > _MAX_BYTES:
        raise InvalidInput(f"the output JSON Schema is larger than {_MAX_BYTES} bytes: shorten it")
    try:
        schema = json.loads(source, parse_constant=_not_a_number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the output JSON Schema is not valid JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise InvalidInput("the output JSON Schema must be a JSON object")
    counts = _Counts()
    _measure(schema, "#", 0, counts)
    if counts.joins and counts.patterns > _MAX_JOINED_PATTERNS:
        raise _over("#", f"{counts.patterns} patterns beside allOf or $ref with other keywords", _MAX_JOINED_PATTERNS)
    reworded: dict[str, Any] | bool = _reworded(schema)
    return reworded


def _not_a_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _over(where: str, what: str, most: int) -> InvalidInput:
    return InvalidInput(
        f"the output JSON Schema has {what} at {where[:200]}, and the most is {most:,}: make it simpler"
    )


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────


def _measure(value: Any, where: str, depth: int, counts: _Counts) -> None:
    """Every value counts, wherever it stands: a `$ref` may point anywhere."""
    counts.values += 1
    if counts.values > _MAX_VALUES:
        raise _over(where, "too many values", _MAX_VALUES)
    if depth > _MAX_DEPTH:
        raise _over(where, "too many levels", _MAX_DEPTH)
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, dict):
        _measure_object(value, where, counts)
        for key, item in value.items():
            _check_text(key, where)
            _measure(item, f"{where}/{key}", depth + 1, counts)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _measure(item, f"{where}/{number}", depth + 1, counts)


def _check_text(text: str, where: str) -> None:
    if len(text) > _MAX_TEXT:
        raise _over(where, f"a text of {len(text):,} characters", _MAX_TEXT)


def _measure_object(schema: dict[str, Any], where: str, counts: _Counts) -> None:
    for key in ("properties", "required"):
        names = schema.get(key)
        counts.names += len(names) if isinstance(names, dict | list) else 0
        if counts.names > _MAX_NAMES:
            raise _over(f"{where}/{key}", "too many names of properties", _MAX_NAMES)
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        if isinstance(options, list) and len(options) > _MAX_OPTIONS:
            raise _over(f"{where}/{key}", f"{len(options):,} options", _MAX_OPTIONS)
    counts.joins |= "allOf" in schema or ("$ref" in schema and any(key not in _SAYS_NOTHING for key in schema))
    _measure_patterns(schema, where, counts)
    for key in _BOUNDS:
        _check_bound(schema.get(key), f"{where}/{key}")
    _measure_multiple(schema.get("multipleOf"), f"{where}/multipleOf", counts)


def _measure_patterns(schema: dict[str, Any], where: str, counts: _Counts) -> None:
    named = schema.get("patternProperties")
    patterns = list(named) if isinstance(named, dict) else []
    counts.name_patterns += len(patterns)
    if counts.name_patterns > _MAX_NAME_PATTERNS:
        raise _over(f"{where}/patternProperties", "too many patterns of names", _MAX_NAME_PATTERNS)
    counts.patterns += isinstance(schema.get("pattern"), str) + isinstance(schema.get("format"), str)
    for pattern in (*patterns, schema.get("pattern")):
        if isinstance(pattern, str) and len(pattern) > _MAX_PATTERN:
            raise _over(where, f"a pattern of {len(pattern):,} characters", _MAX_PATTERN)


def _check_bound(value: Any, where: str) -> None:
    if not _is_number(value):
        return
    if abs(value) > _LARGEST_NUMBER:
        raise InvalidInput(f"the output JSON Schema has a number beyond ±{_LARGEST_NUMBER} at {where[:200]}")
    if value and -Decimal(repr(value)).normalize().as_tuple().exponent > _MAX_DIGITS:  # type: ignore[operator]
        raise InvalidInput(f"the output JSON Schema has more than {_MAX_DIGITS} decimal places at {where[:200]}")


def _measure_multiple(value: Any, where: str, counts: _Counts) -> None:
    if not _is_number(value):
        return
    if not 0 < value <= _LARGEST_NUMBER:
        raise InvalidInput(f"the output JSON Schema has a multipleOf that is not above 0 at {where[:200]}")
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)  # narrows a type: the number is finite
    counts.multiples *= int("".join(map(str, digits))) * 10 ** max(0, exponent)
    if counts.multiples > _MAX_MULTIPLES:
        raise _over(where, "multipleOf whose product is too large", _MAX_MULTIPLES)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ── rewording ────────────────────────────────────────────────────────────────────────────────────


def _reworded(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_reworded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return _closed_bounds({key: _reworded_below(key, value) for key, value in schema.items()})


def _reworded_below(key: str, value: Any) -> Any:
    if key in _DATA:
        return value
    if key in _NAMED and isinstance(value, dict):
        return {name: _reworded(item) for name, item in value.items()}
    return _reworded(value)


def _closed_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """llguidance admits a whole number as an open bound where the other bound lies within 1 of it: 0 for above 0 and
    at most 0.5. So open bounds that are whole numbers become closed ones a little further from zero."""
    for closed, opened, sign in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)):
        bound = schema.get(opened)
        if bound is True:  # as in draft 4
            bound = schema.get(closed)
        if schema.get("type") == "integer" or not _is_number(bound) or bound * sign < 0 or bound != int(bound):
            continue
        near = bound + sign * 10.0 ** (len(str(int(abs(bound)))) - 1 - _OPEN_STEP_DIGITS)
        other = schema.get(closed)
        pick = max if sign > 0 else min
        schema[closed] = pick(near, other) if _is_number(other) else near
        del schema[opened]
    return schema

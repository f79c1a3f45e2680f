"""What a domain's answers may look like: the grammar that holds them, and the rule that tells the model.

The grammar makes the form certain; the rule in the system text makes it likely, so that the grammar
seldom has to force a token. The grammars are llguidance's (JSON Schema, or its dialect of Lark).
Knows nothing of tokenizers or decoding.
"""

from __future__ import annotations

import json
from typing import Any

from llguidance import LLMatcher, LLParserLimits

from server.errors import InvalidInput
from server.json_schema import GRAMMAR_LIMITS, usable_schema
from server.prompting.domain import Domain
from server.types import Constraint

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

REASONING_RULE = (
    f"First think step by step between {THINK_OPEN} and {THINK_CLOSE}. After that, give only the final answer."
)
OUTPUT_RULE = "Answer with JSON alone, following this JSON Schema: "

# Free whitespace lets a small model write blanks until its tokens run out; these are the separators of
# json.dumps, so that examples written by it are exactly what the grammar allows.
_JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

_TEXT = "/(?s:.+)/"


def constraint_of(domain: Domain, thinking_chars: int) -> Constraint | None:
    """None where the domain neither reasons nor has an output schema.

    After `thinking_chars` characters of thinking the grammar closes it, so that an answer follows. (A
    limit in tokens would not do: llguidance then ends the rule without its closing mark.)
    """
    schema = _grammar_schema(domain.output) if domain.output else None
    if not domain.reasoning:
        return Constraint("json_schema", schema) if schema else None
    lines = [
        rf'start: "{THINK_OPEN}" thought "\n" answer',
        rf"thought[lazy]: /(?s:.{{0,{thinking_chars}}})<\/think>/",
        f"answer: {f'%json {schema}' if schema else _TEXT}",
    ]
    return Constraint("lark", "\n".join(lines) + "\n")


def rules_of(domain: Domain) -> tuple[str, ...]:
    """The sentences that the system text ends with."""
    rules = []
    if domain.reasoning:
        rules.append(REASONING_RULE)
    if domain.output:
        rules.append(OUTPUT_RULE + json.dumps(json.loads(domain.output), ensure_ascii=False))
    return tuple(rules)


def _grammar_schema(source: str) -> str:
    schema = usable_schema(source)
    return json.dumps(with_fixed_layout(schema) if isinstance(schema, dict) else schema, ensure_ascii=False)


def with_fixed_layout(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with a fixed JSON layout, unless it brings an `x-guidance` of its own."""
    return {"x-guidance": _JSON_LAYOUT, **schema}


def schema_fault(schema: dict[str, Any]) -> str:
    """Why no decoder could follow this schema; '' when it can be followed."""
    try:
        grammar = LLMatcher.grammar_from_json_schema(_grammar_schema(json.dumps(schema)))
    except InvalidInput as error:
        return str(error)
    return str(LLMatcher.validate_grammar(grammar, limits=LLParserLimits(**GRAMMAR_LIMITS)))

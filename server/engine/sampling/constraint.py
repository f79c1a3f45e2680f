"""Constrains a row to a JSON Schema or grammar: which tokens may come next (llguidance).

Compiling takes milliseconds to a second: it belongs in a worker thread. Knows nothing of sampling.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import llguidance
import llguidance.hf
import llguidance.numpy
import numpy as np
from numpy.typing import NDArray

from server.engine.model.tokenizer import ModelTokenizer
from server.engine.sampling.sampler import Logits
from server.errors import EngineError, InvalidInput
from server.types import Constraint

_CACHE_SIZE = 64
_WHITESPACE_CHARS = " \t\n\rĠĊĉč▁"  # as byte-level and sentence-piece vocabularies write them, too
_MAX_DEPTH = 8  # of nested schemas that are looked into
# A little whitespace for JSON; a small model left free writes blank lines until it is cut off.
_WHITESPACE = r"[ \n]{0,12}"


@dataclass(frozen=True)
class ClosingTokens:
    """Tokens that bring JSON to its end, and how many tokens that may take from anywhere in this schema."""

    letters: tuple[int, ...]  # plain letters: allowed together only inside a free string
    quote: int
    brackets: NDArray[np.int64]
    comma: int
    whitespace: NDArray[np.int64]
    reserve: int

    def narrow(self, logits: Logits) -> None:
        """Of what the grammar allows (finite logits), leaves what closes soonest."""
        allowed = np.isfinite(logits)
        if all(allowed[letter] for letter in self.letters):
            wanted = np.array([self.quote])
        else:
            wanted = next((ids for ids in (self.brackets, np.array([self.comma])) if allowed[ids].any()), self.brackets)
        wanted = wanted[allowed[wanted]]
        if len(wanted):
            kept = logits[wanted].copy()
            logits[:] = -np.inf
            logits[wanted] = kept
        elif allowed.sum() > allowed[self.whitespace].sum():
            logits[self.whitespace] = -np.inf


class GrammarMask:
    """One row's state in its grammar. Used by one thread.

    With `closing` and `budget` (tokens the row may write), JSON is closed before it would be cut off.
    """

    def __init__(self, matcher: Any, vocabulary: int, closing: ClosingTokens | None = None) -> None:
        self._matcher = matcher
        self._bits = np.zeros((1, (vocabulary + 31) // 32), dtype=np.int32)
        self._closing_tokens = closing
        self.budget: int | None = None

    def apply(self, logits: Logits) -> None:
        """Raises EngineError when the grammar has failed, which valid ones do not."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits)
        if self._matcher.is_error():
            raise EngineError(f"the output format cannot be followed further: {self._matcher.get_error()}")
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: len(logits)]
        logits[allowed == 0] = -np.inf
        if self._closing_tokens is not None and self.budget is not None and self.budget <= self._closing_tokens.reserve:
            self._closing_tokens.narrow(logits)

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        if self.budget is not None:
            self.budget -= 1

    @property
    def complete(self) -> bool:
        """Nothing more may follow."""
        return bool(self._matcher.is_stopped())


class ConstraintCompiler:
    """Compiles constraints for one tokenizer and keeps the latest. Safe from any thread; blocks."""

    def __init__(self, tokenizer: ModelTokenizer, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._native: Any = None
        self._ids: dict[str, int] | None = None
        self._compiled: OrderedDict[Constraint, Any] = OrderedDict()

    def mask(self, constraint: Constraint) -> GrammarMask:
        """A fresh mask at the beginning of the text. Raises InvalidInput naming what is wrong."""
        with self._lock:
            matcher = self._compiled.get(constraint)
            if matcher is None:
                matcher = self._compile(constraint)
                self._compiled[constraint] = matcher
            self._compiled.move_to_end(constraint)
            while len(self._compiled) > _CACHE_SIZE:
                self._compiled.popitem(last=False)
            return GrammarMask(matcher.deep_copy(), self._vocabulary, self._closing_tokens(constraint))

    def _closing_tokens(self, constraint: Constraint) -> ClosingTokens | None:
        """None for grammars that are not JSON alone, and for tokenizers without single-character tokens."""
        if constraint.kind != "json_schema":
            return None
        if self._ids is None:
            tokens = self._tokenizer.hf.get_vocab()
            self._ids = {name: id_ for name, id_ in tokens.items() if id_ < self._vocabulary}
        ids = self._ids
        if any(char not in ids for char in '"},qZ'):
            return None
        brackets = np.array([id_ for name, id_ in ids.items() if name and set(name) <= set("}]")])
        whitespace = np.array([id_ for name, id_ in ids.items() if not name.strip(_WHITESPACE_CHARS)])
        smallest = json.dumps(smallest_instance(json.loads(constraint.source)), ensure_ascii=False)
        # a token is at least a byte, so this many always suffice
        return ClosingTokens((ids["q"], ids["Z"]), ids['"'], brackets, ids[","], whitespace, len(smallest.encode()) + 8)

    def _compile(self, constraint: Constraint) -> Any:
        matcher = llguidance.LLMatcher(self._native_tokenizer(), self._grammar(constraint), log_level=0)
        if matcher.is_error():
            kind = "JSON Schema" if constraint.kind == "json_schema" else "grammar"
            raise InvalidInput(f"the output {kind} cannot be used: {matcher.get_error().splitlines()[0]}")
        return matcher

    def _grammar(self, constraint: Constraint) -> str:
        if constraint.kind == "lark":
            return str(llguidance.LLMatcher.grammar_from_lark(constraint.source))
        try:
            schema = json.loads(constraint.source)
        except ValueError as error:
            raise InvalidInput(f"the output JSON Schema is not valid JSON: {error}") from error
        if not isinstance(schema, dict | bool):
            raise InvalidInput("the output JSON Schema must be a JSON object")
        overrides = {"whitespace_flexible": True, "whitespace_pattern": _WHITESPACE}
        try:
            return str(llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=overrides))
        except ValueError as error:
            raise InvalidInput(f"the output JSON Schema cannot be used: {error}") from error

    def _native_tokenizer(self) -> Any:
        if self._native is None:
            try:
                self._native = llguidance.hf.from_tokenizer(
                    self._tokenizer.hf, n_vocab=self._vocabulary, eos_token=sorted(self._tokenizer.stop_ids) or None
                )
            except ValueError as error:
                raise InvalidInput(f"this model's tokenizer cannot hold its output to a format: {error}") from error
        return self._native


def smallest_instance(schema: Any, depth: int = 0) -> Any:
    """About the shortest value that the schema still allows; where it is unsure, a longer one."""
    options: list[Any] = []
    if isinstance(schema, dict) and depth <= _MAX_DEPTH:
        below = [option for key in ("anyOf", "oneOf", "allOf") for option in schema.get(key, ())]
        options = [*schema.get("enum", ()), *(smallest_instance(option, depth + 1) for option in below)]
        if "const" in schema:
            options = [schema["const"]]
        elif not options:
            options = [_smallest_of_type(schema, depth)]
    return max(options, key=lambda value: len(json.dumps(value)), default="…" * 8)


def _smallest_of_type(schema: dict[str, Any], depth: int) -> Any:
    if "properties" in schema or schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: smallest_instance(properties.get(name), depth + 1) for name in schema.get("required", [])}
    if schema.get("type") == "array":
        return [smallest_instance(schema.get("items"), depth + 1)] * min(int(schema.get("minItems", 0)), 64)
    if schema.get("type") == "string":
        return "x" * min(int(schema.get("minLength", 0)), 256)
    return {"integer": 0, "number": 0, "boolean": False, "null": None}.get(str(schema.get("type")), "…" * 8)

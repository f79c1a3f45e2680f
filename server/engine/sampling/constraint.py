"""Constrains a row to a JSON Schema or grammar: which tokens may come next (llguidance).

Compiling has its own few threads, so that it holds up neither answers nor other work. llguidance gives back the
interpreter's lock while it compiles and while it computes a mask. Knows nothing of sampling.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import llguidance
import llguidance.hf
import llguidance.numpy
import numpy as np

from server.engine.model.tokenizer import ModelTokenizer
from server.engine.sampling.sampler import Logits
from server.errors import EngineBusy, InvalidInput, OutputFormatError
from server.json_schema import GRAMMAR_LIMITS, usable_schema
from server.types import Constraint

_KEPT = 64  # compiled grammars …
_KEPT_BYTES = 1 << 20  # … and their sources together
_MAX_SOURCE_BYTES = 256 * 1024
_WORKERS = 2
_MAX_PENDING = 32
# A little whitespace for JSON; a small model left free writes blank lines until it is cut off.
_WHITESPACE = r"[ \n]{0,12}"


class GrammarMask:
    """One row's state in its grammar. Used by one thread. Its errors never hold what the row has written."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher = matcher
        self._bits = np.zeros((1, (vocabulary + 31) // 32), dtype=np.int32)

    def apply(self, logits: Logits) -> None:
        """Raises OutputFormatError where the grammar leads nowhere or costs too much."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits)
        if self._matcher.is_error():
            raise self._dead_end()
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: len(logits)]
        logits[allowed == 0] = -np.inf

    def accept(self, token: int) -> None:
        """Raises OutputFormatError, as `apply`."""
        if not self._matcher.consume_token(token):
            raise self._dead_end()

    @property
    def complete(self) -> bool:
        """Nothing more may follow. Raises OutputFormatError where something more would have to."""
        if not self._matcher.is_stopped():
            return False
        if not self._matcher.is_accepting():
            raise self._dead_end()
        return True

    def _dead_end(self) -> OutputFormatError:
        """llguidance's own words quote tokens and schema; of them only the name of its reason is used."""
        return OutputFormatError(
            f"the output format leads nowhere from here ({self._matcher.stop_reason()}): no text can go on as its "
            "schema or grammar demands, or it is too complex; simplify it"
        )


class ConstraintCompiler:
    """Compiles constraints for one tokenizer and keeps the latest. Safe from any thread."""

    def __init__(self, tokenizer: ModelTokenizer, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="tailor-grammar")
        self._lock = threading.Lock()  # of what follows; nothing is compiled under it
        self._kept: OrderedDict[Constraint, Future[Any]] = OrderedDict()
        self._pending = 0
        self._native_lock = threading.Lock()
        self._native: Any = None

    def compile(self, constraint: Constraint) -> Future[Any]:
        """llguidance's matcher at the beginning of the text, shared by all who ask for this constraint: never cancel
        it, and give each row a copy. Returns at once. Raises EngineBusy; the future InvalidInput, naming what is wrong.
        """
        with self._lock:
            future = self._kept.get(constraint)
            if future is None:
                if self._pending >= _MAX_PENDING:
                    raise EngineBusy(f"{_MAX_PENDING} output formats are being compiled: try again in a moment")
                future = self._kept[constraint] = self._pool.submit(self._compile, constraint)
                self._pending += 1
                added = True
            else:
                added = False
            self._kept.move_to_end(constraint)
        if added:
            future.add_done_callback(lambda done: self._settle(constraint, done))
        return future

    def mask(self, constraint: Constraint) -> GrammarMask:
        """A fresh mask at the beginning of the text. Blocks. Raises as `compile` and its future."""
        return self.fresh(self.compile(constraint).result())

    def fresh(self, matcher: Any) -> GrammarMask:
        """A row's own mask of what `compile` gave."""
        return GrammarMask(matcher.deep_copy(), self._vocabulary)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _settle(self, constraint: Constraint, done: Future[Any]) -> None:
        """Failures are not kept, nor more than the bounds allow; what is still being compiled is."""
        with self._lock:
            self._pending -= 1
            if done.cancelled() or done.exception() is not None:
                self._kept.pop(constraint, None)
            finished = [known for known, future in self._kept.items() if future.done()]
            size = sum(len(known.source) for known in finished)
            while len(finished) > _KEPT or size > _KEPT_BYTES:
                oldest = finished.pop(0)
                size -= len(oldest.source)
                del self._kept[oldest]

    def _compile(self, constraint: Constraint) -> Any:
        native, grammar = self._native_tokenizer(), self._grammar(constraint)
        limits = llguidance.LLParserLimits(**GRAMMAR_LIMITS)
        matcher = llguidance.LLMatcher(native, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            kind = "JSON Schema" if constraint.kind == "json_schema" else "grammar"
            raise InvalidInput(f"the output {kind} cannot be used: {_first_line(matcher.get_error())}")
        return matcher

    def _grammar(self, constraint: Constraint) -> str:
        if constraint.kind == "lark":
            if len(constraint.source) > _MAX_SOURCE_BYTES:
                raise InvalidInput(f"the output grammar is larger than {_MAX_SOURCE_BYTES} characters")
            return str(llguidance.LLMatcher.grammar_from_lark(constraint.source))
        schema = usable_schema(constraint.source)
        overrides = {"whitespace_flexible": True, "whitespace_pattern": _WHITESPACE}
        try:
            return str(llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=overrides))
        except ValueError as error:
            raise InvalidInput(f"the output JSON Schema cannot be used: {error}") from error

    def _native_tokenizer(self) -> Any:
        with self._native_lock:
            if self._native is None:
                stops = sorted(self._tokenizer.stop_ids) or None
                try:
                    self._native = llguidance.hf.from_tokenizer(
                        self._tokenizer.hf, n_vocab=self._vocabulary, eos_token=stops
                    )
                except ValueError as error:
                    raise InvalidInput(f"this model's tokenizer cannot hold its output to a format: {error}") from error
            return self._native


def _first_line(error: str) -> str:
    """The reason as the library says it, cut short; nothing of a panic, which is about the library's own code."""
    line = error.partition("\n")[0][:300]
    return "it is too large or too complex" if line.startswith("panic") else line

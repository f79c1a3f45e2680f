"""What a language costs the model's tokenizer, measured at start, and the notice for one that it hardly knows.

A vocabulary that was made with a language has its words; another spells them out, at worst byte by byte. So tokens a
byte of UTF-8 tell a model that has hardly read a language. They do not tell how well it speaks one that it has read.
Knows nothing of weights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Final

from server.chat.turn.own_words import hardly_speaks
from server.embedding import identify_language, parallel_texts
from server.engine import Engine

log = logging.getLogger("tailor.chat")

SPELLED_OUT: Final = 0.5  # tokens a byte: pieces of less than two bytes on the average, …
TIMES_BEST: Final = 2.0  # … and so many times as many as of the language that it knows best
REMEDY: Final = "Qwen/Qwen3-1.7B"  # one of the models that know all these languages


class LanguageCost:
    """Of the engine's model, once that is loaded."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @cached_property
    def costs(self) -> Mapping[str, float]:
        """Tokens a byte, by language. Measured when it is first asked for: some 50 ms."""
        count = self._engine.tokenizer.count
        return {
            language: sum(map(count, texts)) / sum(len(text.encode()) for text in texts)
            for language, texts in parallel_texts().items()
        }

    def measure(self) -> None:
        """Now, and says in the log what was found."""
        if self.hardly_spoken:
            costs = ", ".join(f"{language} {self.costs[language]:.2f}" for language in self.hardly_spoken)
            log.info("the model hardly speaks what its tokenizer spells out (tokens a byte): %s", costs)

    @property
    def hardly_spoken(self) -> tuple[str, ...]:
        limit = max(SPELLED_OUT, TIMES_BEST * min(self.costs.values()))
        return tuple(sorted(language for language, cost in self.costs.items() if cost > limit))

    def notice(self, question: str, said_before: Iterable[str]) -> str:
        """What to say of the question's language, in it; '' where the model knows it, or where it has been said."""
        language = identify_language(question)
        if language not in self.hardly_spoken:
            return ""
        ratio = self.costs[language] / min(self.costs.values())
        text = hardly_speaks(language, self._engine.model.id, ratio, REMEDY)
        return "" if any(text in notice for notice in said_before) else text

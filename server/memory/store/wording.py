"""How deleted memories are worded in texts: which sentences say one, and which texts still mention one. Pure.

A sentence of the user says a memory if it has the words the memory was taken from, or if the rules would take the same
memory from it again. A sentence of somebody else (an answer, a title) says it if it has all its words. A text mentions
it with a good part of its words. Knows nothing of storage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from server import words
from server.memory.facts.findings import normalised
from server.memory.facts.rules import extract
from server.memory.reading.own_words import clean
from server.memory.recall.relevance import QueryWord, memory_terms, memory_words
from server.memory.store.statement import one_line
from server.types import Memory

SAYS: Final = 0.99  # share of a memory's words that a sentence has which says it
MENTIONS: Final = 0.4  # … that a text has which mentions it
MIN_CHARS: Final = 4  # of a text that is looked for as it is
HEAD_CHARS: Final = 3  # of a term: endings and accents come later, mostly
MAX_HEADS: Final = 200

Span = tuple[int, int]


class Wording:
    """Of some memories, with every text that they had: `older_texts` by id."""

    def __init__(self, memories: Sequence[Memory], older_texts: Sequence[str] = ()) -> None:
        said = [(memory.text, memory.quote) for memory in memories] + [(text, "") for text in older_texts]
        self._normals = {normalised(text) for text, _ in said}
        self._literal = [
            [flat for one in pair if len(flat := _flat(one)) >= MIN_CHARS] for pair in said
        ]  # texts as they may stand
        self._words = [memory_words(text) for text, _ in said]
        self._totals = [sum(word.weight for word in found) for found in self._words]
        self._with_term: defaultdict[str, set[int]] = defaultdict(set)
        for number, (text, quote) in enumerate(said):
            for term in memory_terms(f"{text} {quote}"):
                self._with_term[term].add(number)
        self._wordless = {number for number, found in enumerate(self._words) if not found}
        heads = {term[:HEAD_CHARS] for term in self._with_term}
        by_heads = not self._wordless and len(heads) <= MAX_HEADS and not any(map(str.isdigit, "".join(heads)))
        self._heads = heads if by_heads else None  # numbers are written in many ways

    def sentences(self, text: str, *, own: bool, at: float | None = None) -> tuple[Span, ...]:
        """Spans of the sentences of `text` that say one of the memories. `own`: the user wrote it, `at` that time."""
        if not self._may_bear(text) or not self._candidates(memory_terms(text)):
            return ()
        again = set(self._said_again(text, at)) if own else set()
        return tuple(
            (start, end)
            for start, end in words.sentences(text)
            if any(start <= position < end for position in again) or self._says(text[start:end], own=own)
        )

    def mentioned_in(self, text: str) -> bool:
        if not self._may_bear(text):
            return False
        terms = memory_terms(text)
        return any(self._share(number, terms) >= MENTIONS for number in self._candidates(terms))

    def _may_bear(self, text: str) -> bool:
        """False for most texts that have none of the terms, at a fraction of the cost of their terms."""
        if self._heads is None:
            return True
        folded = words.fold(text)
        return any(head in folded for head in self._heads)

    def _candidates(self, terms: frozenset[str]) -> set[int]:
        return self._wordless.union(*(self._with_term[term] for term in terms if term in self._with_term))

    def _says(self, sentence: str, *, own: bool) -> bool:
        terms, flat = memory_terms(sentence), _flat(sentence)
        for number in self._candidates(terms):
            if any(literal in flat or _is_part(flat, literal) for literal in self._literal[number]):
                return True
            if not own and self._share(number, terms) >= SAYS:
                return True
        return False

    def _said_again(self, text: str, at: float | None) -> Iterator[int]:
        """Where the rules would find one of the memories in it."""
        if clean(text) == text:  # else positions would not be its own
            for found in extract(text, at):
                if normalised(one_line(found.text)) in self._normals:
                    yield found.start

    def _share(self, number: int, terms: frozenset[str]) -> float:
        total = self._totals[number]
        return _weight(self._words[number], terms) / total if total else 0.0


def _is_part(sentence: str, quote: str) -> bool:
    """A quote may be of two sentences."""
    return len(sentence) >= max(MIN_CHARS, len(quote) / 3) and sentence in quote


def _weight(found: Sequence[QueryWord], terms: frozenset[str]) -> float:
    return sum(word.weight for word in found if word.is_in(terms))


def _flat(text: str) -> str:
    """As texts are compared: one form, one case, single spaces, without the marks around it."""
    return " ".join(words.fold(text).split()).strip(" .,;:!?。！？\"'“”‘’")

"""A sentence of an answer and the passages, made ready to be compared. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from server.grounding.clauses import Clause, clauses_of
from server.grounding.quantities import Quantity, Read, read
from server.types import Passage
from server.words import ContentWord, content_words, stem, terms

NEAR: Final = 0.75         # of a word that shares its beginning with one of the passage (deliver, delivery)
LEAST_SHARE: Final = 0.5   # of a Korean word's pairs that a passage must hold to hold the word at all
NAME_WEIGHT: Final = 1.5
WEAK_WEIGHT: Final = 0.4   # of verbs and measures that go with any subject
MOST_NAMES: Final = 0.4    # share of capitalised words; beyond it they are no names (German, titles)

_WEAK_ENGLISH = """
after amount approximately arrive available back before between considered cost counts currently during each every
exactly get give include make maximum minimum need offer per period possible provide roughly take then total use
"""
_WEAK_KOREAN = """
가능 각 경우 기간 까지 동안 모두 부터 약 에서 이내 이상 이용 이전 이하 이후 정도 총 최대 최소 필요
"""
WEAK: Final = frozenset(map(stem, _WEAK_ENGLISH.split())) | frozenset(_WEAK_KOREAN.split())

_NAME = re.compile(r"(?<![\w.])[A-Z][\w'’&-]*")
_WORD = re.compile(r"[^\W\d_]+")
_PARTICLES: Final = "은는이가을를에의로와과도만"
_SCRIPTS: Final = (
    ("hangul", re.compile("[가-힣]")),
    ("kana", re.compile("[\u3040-\u30ff]")),
    ("han", re.compile("[\u3400-\u9fff]")),
    ("latin", re.compile("[A-Za-z\u00c0-\u024f]")),
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage, prepared. `words` are index terms of text, heading and file name, `heading` those of the latter two;
    `script` as in `script_of`."""

    n: int
    passage: Passage
    heading: frozenset[str]
    words: frozenset[str]
    beginnings: frozenset[str]
    quantities: tuple[Quantity, ...]
    codes: frozenset[str]
    clauses: tuple[Clause, ...]
    text: str  # folded, for addresses
    script: str

    @property
    def sentences(self) -> list[str]:
        """Its sentences and rows, each once."""
        spans = dict.fromkeys((clause.start, clause.end) for clause in self.clauses)
        return [self.passage.text[start:end] for start, end in spans]


@dataclass(frozen=True)
class Claim:
    """A sentence, prepared."""

    text: str
    units: tuple[ContentWord, ...]
    read: Read
    names: frozenset[str]

    @property
    def firm(self) -> list[Quantity]:
        return [quantity for quantity in self.read.quantities if not quantity.loose]

    @cached_property
    def script(self) -> str:
        return script_of(self.text)

    @cached_property
    def says_something(self) -> bool:
        return len(self.units) >= 2 or bool(self.firm) or bool(self.read.codes)


def claim_of(text: str) -> Claim:
    told = read(text)
    found = content_words(told.rest) or tuple(ContentWord(word, (word,)) for word in terms(told.rest))
    content = tuple(unit for unit in found if len(unit.word) > 1)  # a lone syllable stands in no pair
    return Claim(text, content, told, frozenset(_names(text)))


def evidence_of(n: int, passage: Passage) -> Evidence:
    heading = " ".join((*passage.heading, re.sub(r"[\W_]+", " ", passage.file.rsplit(".", 1)[0])))
    whole = f"{heading}\n{passage.text}"
    told = read(whole)
    words = frozenset(terms(whole))
    return Evidence(
        n=n,
        passage=passage,
        heading=frozenset(terms(heading)),
        words=words,
        beginnings=_beginnings(words),
        quantities=told.quantities,
        codes=told.codes,
        clauses=tuple(clauses_of(passage.text)),
        text=whole.casefold(),
        script=script_of(passage.text),
    )


def held(unit: ContentWord, words: Collection[str], beginnings: Collection[str]) -> float:
    """How much of a content word stands among index terms, 0 to 1. `beginnings` are those of longer terms."""
    if len(unit.terms) > 1 or not unit.word.isascii():
        return _held_pairs(unit, words)
    word = unit.terms[0]
    if word in words:
        return 1.0
    if len(word) < 4:
        return 0.0
    size = max(4, math.ceil(len(word) * 0.75))
    shorter = any(word[:end] in words for end in range(4, len(word)))
    return NEAR if shorter or word[:size] in beginnings else 0.0


def held_by(unit: ContentWord, words: frozenset[str]) -> float:
    """As `held`, for the few words of a clause."""
    return held(unit, words, _beginnings(words))


@lru_cache(maxsize=4096)
def _beginnings(words: frozenset[str]) -> frozenset[str]:
    return frozenset(word[:size] for word in words if word.isascii() for size in range(4, len(word) + 1))


def _held_pairs(unit: ContentWord, words: Collection[str]) -> float:
    """Of a word in pairs of characters. 책은 is held by 책 and by 책을."""
    share = sum(term in words for term in unit.terms) / len(unit.terms)
    if share >= LEAST_SHARE:
        return share
    if len(unit.word) == 2 and unit.word[1] in _PARTICLES:
        return NEAR if any(word.startswith(unit.word[0]) and len(word) <= 2 for word in words) else 0.0
    return 0.0


def importance(unit: ContentWord, claim: Claim) -> float:
    if unit.word in WEAK:
        return unit.weight * WEAK_WEIGHT
    return unit.weight * (NAME_WEIGHT if unit.word in claim.names else 1.0)


def _names(text: str) -> Iterator[str]:
    """Stems of capitalised words inside a sentence, where not most words are capitalised."""
    words = _WORD.findall(text)
    found = [match for match in _NAME.finditer(text) if not _begins(text[: match.start()])]
    latin = [word for word in words if word.isascii()]
    if len(found) > 2 and len(found) > MOST_NAMES * len(latin):
        return
    for match in found:
        for part in _WORD.findall(match[0]):
            shouted = len(part) > 4 and part.isupper()
            if len(part) > 1 and not shouted and terms(part):
                yield stem(part.casefold())


def _begins(before: str) -> bool:
    """What follows stands at the beginning of a sentence, a quotation or a list."""
    return not re.search(r"\w", before) or bool(re.search(r"[.!?:\"“‘(>*_]\s*$", before))


def script_of(text: str) -> str:
    """The script of most letters, a syllable of Korean counting as much as two Latin letters; '' without letters."""
    counts = {name: len(pattern.findall(text)) * (1 if name == "latin" else 2) for name, pattern in _SCRIPTS}
    if counts["kana"]:
        counts["kana"] += counts.pop("han")
    best = max(counts, key=lambda name: counts[name])
    other = sum(char.isalpha() for char in text) if not counts[best] else 0
    return best if counts[best] else ("other" if other else "")

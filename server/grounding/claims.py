"""A sentence of an answer (a claim) and the passages (evidence), parsed so that they can be compared. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import Final

from server.grounding.clauses import READ_CHARS, Clause, split_clauses
from server.grounding.quantities import ParsedText, Quantity, parse_text
from server.types import Passage
from server.words import ContentWord, content_words, detect_script, stem, terms

CLAIM_CHARS: Final = 2_000
CLAIM_WORDS: Final = 60  # content words of a sentence that are compared
MAX_CLAUSES: Final = 100  # of a passage
PREFIX_MATCH_SCORE: Final = 0.75  # of a word that shares its prefix with one of the passage (deliver, delivery)
MIN_BIGRAM_SHARE: Final = 0.5  # of a Korean word's bigrams that a passage must contain to contain the word at all
NAME_WEIGHT: Final = 1.5
WEAK_WEIGHT: Final = 0.4  # of verbs and measures that go with any subject
MAX_NAME_SHARE: Final = 0.4  # share of capitalised words; beyond it they are no names (German, titles)

_WEAK_ENGLISH = """
after amount approximately arrive available back before between considered cost counts currently during each every
exactly get give include make maximum minimum need offer per period possible provide roughly take then total use
"""
_WEAK_KOREAN = """
가능 각 경우 기간 까지 동안 모두 부터 약 에서 이내 이상 이용 이전 이하 이후 정도 총 최대 최소 필요
"""
WEAK_WORDS: Final = frozenset(map(stem, _WEAK_ENGLISH.split())) | frozenset(_WEAK_KOREAN.split())

_NAME = re.compile(r"(?<![\w.])[A-Z][\w'’&-]*")
_WORD = re.compile(r"[^\W\d_]+")
_FIRST_WORD = re.compile(r"\w")
_OPENS_SENTENCE = tuple('.!?:"“‘(>*_')
_PARTICLES: Final = "은는이가을를에의로와과도만"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage, parsed. `words` are index terms of text, heading and file name, `heading` those of the latter two;
    `script` as in `detect_script`."""

    n: int
    passage: Passage
    heading: frozenset[str]
    words: frozenset[str]
    prefixes: frozenset[str]
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
    """A sentence of the answer, parsed. A name or number in it must also stand in the passages."""

    text: str
    units: tuple[ContentWord, ...]
    parsed: ParsedText
    names: frozenset[str]

    @property
    def required_quantities(self) -> list[Quantity]:
        return [quantity for quantity in self.parsed.quantities if not quantity.optional]

    @cached_property
    def script(self) -> str:
        return detect_script(self.text)

    @cached_property
    def has_content(self) -> bool:
        return len(self.units) >= 2 or bool(self.required_quantities) or bool(self.parsed.codes)


def parse_claim(text: str) -> Claim:
    """Of a sentence; of one that goes on and on, its beginning."""
    text = text[:CLAIM_CHARS]
    parsed = parse_text(text)
    found = content_words(parsed.rest) or tuple(ContentWord(word, (word,)) for word in terms(parsed.rest))
    content = tuple(unit for unit in found if len(unit.word) > 1)[:CLAIM_WORDS]  # a lone syllable has no bigram
    return Claim(text, content, parsed, frozenset(_names(text)))


def parse_evidence(n: int, passage: Passage) -> Evidence:
    """Of a passage; of one that is no prose, its beginning."""
    text = passage.text[:READ_CHARS]
    heading = " ".join((*passage.heading, re.sub(r"[\W_]+", " ", passage.file.rsplit(".", 1)[0])))
    whole = f"{heading}\n{text}"
    parsed = parse_text(whole)
    words = frozenset(terms(whole))
    return Evidence(
        n=n,
        passage=passage,
        heading=frozenset(terms(heading)),
        words=words,
        prefixes=_prefixes(words),
        quantities=parsed.quantities,
        codes=parsed.codes,
        clauses=tuple(islice(split_clauses(text), MAX_CLAUSES)),
        text=whole.casefold(),
        script=detect_script(text),
    )


def term_match(unit: ContentWord, words: Collection[str], prefixes: Collection[str]) -> float:
    """How well a content word matches index terms, 0 to 1. `prefixes` are those of longer terms."""
    if len(unit.terms) > 1 or not unit.word.isascii():
        return _bigram_match(unit, words)
    word = unit.terms[0]
    if word in words:
        return 1.0
    if len(word) < 4:
        return 0.0
    size = max(4, math.ceil(len(word) * 0.75))
    shorter = any(word[:end] in words for end in range(4, len(word)))
    return PREFIX_MATCH_SCORE if shorter or word[:size] in prefixes else 0.0


def clause_match(unit: ContentWord, words: frozenset[str]) -> float:
    """As `term_match`, for the few words of a clause."""
    return term_match(unit, words, _prefixes(words))


@lru_cache(maxsize=4096)
def _prefixes(words: frozenset[str]) -> frozenset[str]:
    return frozenset(word[:size] for word in words if word.isascii() for size in range(4, len(word) + 1))


def _bigram_match(unit: ContentWord, words: Collection[str]) -> float:
    """Of a word in character bigrams. 책은 matches 책 and 책을."""
    share = sum(term in words for term in unit.terms) / len(unit.terms)
    if share >= MIN_BIGRAM_SHARE:
        return share
    if len(unit.word) == 2 and unit.word[1] in _PARTICLES:
        return PREFIX_MATCH_SCORE if any(word.startswith(unit.word[0]) and len(word) <= 2 for word in words) else 0.0
    return 0.0


def importance(unit: ContentWord, claim: Claim) -> float:
    if unit.word in WEAK_WORDS:
        return unit.weight * WEAK_WEIGHT
    return unit.weight * (NAME_WEIGHT if unit.word in claim.names else 1.0)


def _names(text: str) -> Iterator[str]:
    """Stems of capitalised words inside a sentence, where not most words are capitalised."""
    words = _WORD.findall(text)
    first_word = _FIRST_WORD.search(text)
    begin = first_word.start() if first_word else 0
    found = [match for match in _NAME.finditer(text, begin + 1) if not _starts_sentence(text, match.start())]
    latin = [word for word in words if word.isascii()]
    if len(found) > 2 and len(found) > MAX_NAME_SHARE * len(latin):
        return
    for match in found:
        for part in _WORD.findall(match[0]):
            shouted = len(part) > 4 and part.isupper()
            if len(part) > 1 and not shouted and terms(part):
                yield stem(part.casefold())


def _starts_sentence(text: str, at: int) -> bool:
    """What stands there is the beginning of a sentence, a quotation or a list."""
    while at > 0 and text[at - 1].isspace():
        at -= 1
    return text[at - 1 : at] in _OPENS_SENTENCE

"""The relevance gate: by shared words, and by vectors where the embedder knows the language.

A question of the user's own things ("my flight") needs less than one about the world. Pure functions; words are
those of `server.words`. Knows nothing of users or storage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from server import words
from server.memory.recall.general_words import ENGLISH, KOREAN
from server.memory.recall.question import QuestionIntent, parse_intent

QUESTION_CHARS = 2_000  # of a long message: its beginning and end
MAX_QUERY_WORDS = 100  # content words of a question that are looked up
GENERAL_WEIGHT = 0.3  # of a word that many texts have
COMMON_SHARE = 0.2  # a word in more of a user's memories than this counts as general
COMMON_MIN_MEMORIES = 10  # with fewer, that says nothing

# What admits a memory: (share of the way from `min_likelihood` to certainty, below 0 to impossible; share of the
# question's words), both reached.
PERSONAL_THRESHOLDS = ((0.0, 0.0), (-0.4, 0.3), (-0.8, 0.5))
GENERAL_THRESHOLDS = ((0.9, 0.0), (0.6, 0.25), (-0.8, 0.5))
MIN_OVERLAP = 0.2  # where the embedder does not know one of the two, and one shared word says something
MAX_SCORE_GAP = 0.3  # below the best score; what scores less is left out
OVERLAP_WEIGHT = 0.3  # beside the cosine, in the score

_BOILERPLATE = re.compile(r"^(?:the user's|said:|사용자(?:의|는)?)\s*|\"", re.IGNORECASE)
_ONE_SYLLABLE = re.compile(r"(?<![가-힣])([가-힣])(?:은|는|이|가|을|를|에|의|로|와|과|도|만|야)?(?![가-힣])")
_GENERAL_STEMS = KOREAN | {words.stem(word) for word in ENGLISH}
# One syllable that is a particle, a pronoun or a counter more often than a noun.
_FUNCTION_SYLLABLES = frozenset(
    "은는이가을를에의로와과도만야나저내제그것거수때더잘안못왜뭐좀중등및월일년시분초번개명원회층또다해할한하"
)


@dataclass(frozen=True, slots=True)
class QueryWord:
    """A content word of a question: the index terms that must all match, or one that does as well, and its weight."""

    terms: tuple[str, ...]
    weight: float
    alternative: str = ""  # 몽 of 몽이, which may be a name or a noun with its particle

    def is_in(self, memory: frozenset[str]) -> bool:
        return memory.issuperset(self.terms) or self.alternative in memory


@dataclass(frozen=True, slots=True)
class RecallQuery:
    """A parsed question: the text that is embedded, its content words, and its intent."""

    text: str
    words: tuple[QueryWord, ...]
    intent: QuestionIntent


def excerpt(question: str) -> str:
    """What of a message is compared: a long one's beginning and end, where the question is."""
    if len(question) <= QUESTION_CHARS:
        return question
    half = QUESTION_CHARS // 2
    return f"{question[:half]} {question[-half:]}"


def parse_query(question: str) -> RecallQuery:
    text = excerpt(question)
    found = [_query_word(word) for word in words.content_words(text)]
    syllables = dict.fromkeys(one for one in _ONE_SYLLABLE.findall(text) if one not in _FUNCTION_SYLLABLES)
    found = [
        replace(word, weight=1.0, alternative=word.terms[0][0]) if _is_one_syllable(word, syllables) else word
        for word in found
    ]
    known = {word.alternative for word in found}
    found += [QueryWord((one,), 1.0, one) for one in syllables if one not in known]
    return RecallQuery(text, tuple(found[:MAX_QUERY_WORDS]), parse_intent(text))


def without_boilerplate(memory: str) -> str:
    """A memory without the words that every memory has, which would make it like whatever speaks of users."""
    return _BOILERPLATE.sub(" ", memory).strip() or memory


def memory_terms(memory: str) -> frozenset[str]:
    """The index terms of a memory, without the words that every memory has."""
    text = _BOILERPLATE.sub(" ", memory)
    return frozenset(words.terms(text)) | {one for one in _ONE_SYLLABLE.findall(text) if one not in _FUNCTION_SYLLABLES}


def memory_words(memory: str) -> tuple[QueryWord, ...]:
    """The content words of a memory, without those that every memory has."""
    return parse_query(_BOILERPLATE.sub(" ", memory)).words


def common_weight(weight: float, found: int, memories: int) -> float:
    """A word's weight where so many of the memories have it."""
    common = memories >= COMMON_MIN_MEMORIES and found > COMMON_SHARE * memories
    return min(weight, GENERAL_WEIGHT) if common else weight


def relevance_gate(
    likelihoods: NDArray[np.float32],
    overlap: NDArray[np.float32],
    distinctive: NDArray[np.bool_],
    has_vector: NDArray[np.bool_],
    eligible: NDArray[np.bool_],
    *,
    personal: bool,
    min_likelihood: float,
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """(mask, scores): which memories bear on the question, and how much; each of length [memories].

    `likelihoods`: that they are about what is asked, by meaning. `overlap`: share of the question's words.
    `distinctive`: they share a word that says something by itself. `has_vector`: the embedder knows the language of
    both. `eligible`: they may be shown at all. `personal`: the question is about the user's things.
    """
    passed = ~has_vector & distinctive & (overlap >= MIN_OVERLAP)
    for more, share in PERSONAL_THRESHOLDS if personal else GENERAL_THRESHOLDS:
        least = min_likelihood + more * (1 - min_likelihood if more > 0 else min_likelihood)
        passed |= has_vector & (likelihoods >= least) & (overlap >= share) & (distinctive | (share == 0))
    scores = np.where(has_vector, likelihoods + OVERLAP_WEIGHT * overlap, overlap).astype(np.float32)
    passed &= eligible
    best = float(np.max(scores, where=passed, initial=0.0))
    return passed & (scores >= best - MAX_SCORE_GAP), scores


def _is_one_syllable(word: QueryWord, syllables: Iterable[str]) -> bool:
    return len(word.terms) == 1 and len(word.terms[0]) <= 2 and word.terms[0][0] in syllables


def _query_word(word: words.ContentWord) -> QueryWord:
    general = word.word in _GENERAL_STEMS or word.word.isdigit()
    return QueryWord(word.terms, GENERAL_WEIGHT if general else word.weight)

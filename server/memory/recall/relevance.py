"""Whether a memory bears on a question: by the words they share, and by vectors where the embedder knows the language.

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
from server.memory.recall.question import Asked, asked

QUESTION_CHARS = 2_000  # of a long message: its beginning and end
MOST_UNITS = 100  # content words of a question that are looked up
GENERAL_WEIGHT = 0.3  # of a word that many texts have
COMMON_SHARE = 0.2  # a word in more of a user's memories than this is such a word there
COMMON_FROM = 10  # memories, before which that says nothing

# What lets a memory in: (cosine above `least`, share of the question's words), both reached.
OWN = ((0.0, 0.0), (-0.1, 0.3), (None, 0.5))
WORLD = ((0.15, 0.0), (0.08, 0.25), (None, 0.5))
LEAST_COSINE = 0.1  # where the words decide
LEAST_WORDS = 0.2  # where the embedder does not know one of the two, and one shared word says something
NARROW = 0.3  # what scores so much less than the best is left out
WORDS_WEIGHT = 0.3  # of the share of words beside the cosine, in the order

_BOILERPLATE = re.compile(r"^(?:the user's|said:|사용자(?:의|는)?)\s*|\"", re.IGNORECASE)
_SHORT = re.compile(r"(?<![가-힣])([가-힣])(?:은|는|이|가|을|를|에|의|로|와|과|도|만|야)?(?![가-힣])")
_GENERAL = KOREAN | {words.stem(word) for word in ENGLISH}
# One syllable that is a particle, a pronoun or a counter more often than a noun.
_EMPTY = frozenset(
    "은는이가을를에의로와과도만야나저내제그것거수때더잘안못왜뭐좀중등및월일년시분초번개명원회층또다해할한하"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A content word: the terms that show it, all of them, or the one that shows it as well, and how much it says."""

    terms: tuple[str, ...]
    weight: float
    also: str = ""  # 몽 of 몽이, which may be a name or a noun with its particle

    def is_in(self, memory: frozenset[str]) -> bool:
        return memory.issuperset(self.terms) or self.also in memory


@dataclass(frozen=True, slots=True)
class Question:
    """A question made ready: its content words, and what it asks for."""

    text: str
    units: tuple[Unit, ...]
    asked: Asked


def excerpt(question: str) -> str:
    """What of a message is compared: a long one's beginning and end, where the question stands."""
    if len(question) <= QUESTION_CHARS:
        return question
    half = QUESTION_CHARS // 2
    return f"{question[:half]} {question[-half:]}"


def read(question: str) -> Question:
    text = excerpt(question)
    units = [_unit(unit) for unit in words.units(text)]
    short = dict.fromkeys(one for one in _SHORT.findall(text) if one not in _EMPTY)
    units = [replace(unit, weight=1.0, also=unit.terms[0][0]) if _is_short(unit, short) else unit for unit in units]
    known = {unit.also for unit in units}
    units += [Unit((one,), 1.0, one) for one in short if one not in known]
    return Question(text, tuple(units[:MOST_UNITS]), asked(text))


def terms(memory: str) -> frozenset[str]:
    """By which a memory is found; without the words that every memory has."""
    said = _BOILERPLATE.sub(" ", memory)
    return frozenset(words.terms(said)) | {one for one in _SHORT.findall(said) if one not in _EMPTY}


def common_weight(weight: float, found: int, memories: int) -> float:
    """A word's weight where so many of the memories have it."""
    common = memories >= COMMON_FROM and found > COMMON_SHARE * memories
    return min(weight, GENERAL_WEIGHT) if common else weight


def admitted(
    cosines: NDArray[np.float32],
    shares: NDArray[np.float32],
    strong: NDArray[np.bool_],
    known: NDArray[np.bool_],
    open_to: NDArray[np.bool_],
    *,
    own: bool,
    least: float,
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Which memories bear on the question, and how much; each of length [memories].

    `strong`: they share a word that says something by itself. `known`: the embedder knows the language of both.
    `open_to`: they may be shown at all. `own`: the question is about the user's things.
    """
    passed = ~known & strong & (shares >= LEAST_WORDS)
    for more, share in OWN if own else WORLD:
        cosine = LEAST_COSINE if more is None else least + more
        passed |= known & (cosines >= cosine) & (shares >= share) & (strong | (share == 0))
    scores = np.where(known, cosines + WORDS_WEIGHT * shares, shares).astype(np.float32)
    passed &= open_to
    best = float(np.max(scores, where=passed, initial=0.0))
    return passed & (scores >= best - NARROW), scores


def _is_short(unit: Unit, short: Iterable[str]) -> bool:
    return len(unit.terms) == 1 and len(unit.terms[0]) <= 2 and unit.terms[0][0] in short


def _unit(unit: words.Unit) -> Unit:
    general = unit.word in _GENERAL or unit.word.isdigit()
    return Unit(unit.terms, GENERAL_WEIGHT if general else unit.weight)

"""Whether a memory bears on a question: by shared words, and by vectors where the embedder knows the language.

Words are lower-cased and stemmed lightly; Korean words lose their particles and become character bigrams,
as do Chinese and Japanese runs. Knows nothing of users or storage.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

from server.memory.vocabulary import KOREAN_STOP_WORDS, STOP_WORDS

QUESTION_CHARS = 2_000  # of a long message: its beginning and end
MIN_OVERLAP = 0.2  # shared terms, as a share of the smaller side

_WORD = re.compile(r"[a-z0-9][a-z0-9'+#.-]*|[가-힣]+|[\u3040-\u30ff\u3400-\u9fff]+|[^\W_]+")
_PARTICLE = re.compile(
    r"(?:에서는|에게는|으로는|이라는|이라고|에서|에게|한테|께서|부터|까지|처럼|보다|으로|라는|라고|이나|이랑|하고|에는|과는|와는|은|는|이|가|을|를|의|에|로|와"
    r"|과|도|만|나|랑|야)$"
)
_STOP = frozenset(STOP_WORDS)
_KOREAN_STOP = frozenset(KOREAN_STOP_WORDS)


def excerpt(question: str) -> str:
    """What of a message is compared: a long one's beginning and end, where the question stands."""
    if len(question) <= QUESTION_CHARS:
        return question
    half = QUESTION_CHARS // 2
    return f"{question[:half]} {question[-half:]}"


def terms(text: str) -> frozenset[str]:
    """Stems of the content words; bigrams for scripts whose words do not stand apart or carry particles."""
    found: set[str] = set()
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if "가" <= word[0] <= "힣":
            found |= _korean(word)
        elif word[0] >= "\u3040" and not word.isascii():
            found |= _bigrams(word)
        else:
            plain = word.rstrip("'.-").removesuffix("'s")
            counted = plain.isdigit() and len(plain) < 3  # '3' is in every other question
            if plain and not counted and plain not in _STOP and word not in _STOP:
                found.add(_stem(plain))
    return frozenset(found)


def overlap(question: frozenset[str], memory: frozenset[str]) -> float:
    """Shared terms over the smaller side's, 0 to 1."""
    smaller = min(len(question), len(memory))
    return len(question & memory) / smaller if smaller else 0.0


def similarities(question: NDArray[np.float32], memories: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] cosines of [dimension] against [n, dimension]; a zero row (a text the embedder does not know) gets 0."""
    return np.asarray(memories @ question, dtype=np.float32)


def _stem(word: str) -> str:
    for ending, least in (("ies", 5), ("ing", 6), ("ed", 5), ("es", 5), ("s", 4)):
        if word.endswith(ending) and len(word) >= least and not word.endswith("ss"):
            stem = word[: -len(ending)]
            if ending == "ies":
                return f"{stem}y"
            if ending in ("ing", "ed") and stem[-1:] == stem[-2:-1]:
                return stem[:-1]
            return stem.removesuffix("e")
    return word.removesuffix("e") if len(word) > 4 else word


def _korean(word: str) -> set[str]:
    """Bigrams of the word and of what is left without its particles: '몽이' may be a name or '몽' and a mark."""
    found: set[str] = set()
    for stem in (word, _PARTICLE.sub("", word), _PARTICLE.sub("", _PARTICLE.sub("", word))):
        if stem in _KOREAN_STOP and (len(stem) > 1 or stem == word):
            return set()
        if stem and (len(stem) < 3 or stem != word):
            found |= _bigrams(stem)
    return (found or _bigrams(word)) - _KOREAN_STOP


def _bigrams(run: str) -> set[str]:
    return {run[at : at + 2] for at in range(len(run) - 1)} or {run}

"""Which of sixteen languages a text is in: those of which the calibration has texts.

By its script, and where that is Latin by the letters' order: a naive Bayes over character n-grams (which Cavnar &
Trenkle, 1994, showed to tell languages apart), counted in the calibration's own texts. Knows nothing of models.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from server.embedding.calibration import read_languages, read_pairs
from server.words import detect_script, has_hangul

_BY_SCRIPT: Final = {
    "kana": "ja", "han": "zh", "cyrillic": "ru", "greek": "el", "hebrew": "he", "arabic": "ar",
    "devanagari": "hi", "thai": "th",
}  # fmt: skip
_LATIN: Final = ("en", "fr", "de", "es", "pl", "tr", "vi")
READ_CHARS: Final = 1000  # of a text
ORDERS: Final = (1, 2, 3)  # lengths of the n-grams
CERTAIN: Final = 2.0  # by which log odds another language must pass English, which people mix into theirs


def identify_language(text: str) -> str:
    """Its ISO 639-1 code; "en" where nothing says otherwise."""
    text = text[:READ_CHARS]
    if has_hangul(text):
        return "ko"  # with English words in it, or of single letters (ㅋㅋ)
    script = detect_script(text)
    if script != "latin":
        return _BY_SCRIPT.get(script, "en")
    tables = _tables()
    scores = dict.fromkeys(tables, 0.0)
    for gram in _grams(text):
        for language, (logarithms, unseen) in tables.items():
            scores[language] += logarithms.get(gram, unseen)
    best = max(scores, key=lambda language: scores[language])
    return best if scores[best] - scores["en"] >= CERTAIN else "en"


@cache
def parallel_texts() -> Mapping[str, tuple[str, ...]]:
    """Questions and passages by language, as many of each."""
    texts: dict[str, list[str]] = defaultdict(list)
    for record in read_languages():
        texts[record["language"]] += [record["passage"], record["question"]]
    for record in read_pairs()[: len(texts["de"]) // 2]:
        for language in ("en", "ko"):
            texts[language] += [record[f"passage_{language}"], record[f"question_{language}"]]
    return {language: tuple(found) for language, found in texts.items()}


@cache
def _tables() -> Mapping[str, tuple[Mapping[str, float], float]]:
    """Of each language in Latin letters: log probabilities of its n-grams, and of one that was not seen."""
    counts = {
        language: Counter(gram for text in parallel_texts()[language] for gram in _grams(text)) for language in _LATIN
    }
    kinds = len(set().union(*counts.values()))
    tables = {}
    for language, counter in counts.items():
        total = sum(counter.values()) + kinds / 2
        tables[language] = (
            {gram: math.log((count + 0.5) / total) for gram, count in counter.items()},
            math.log(0.5 / total),
        )
    return tables


def _grams(text: str) -> Iterator[str]:
    for word in text.casefold().split():
        letters = "".join(filter(str.isalpha, word))
        padded = f" {letters} "
        for order in ORDERS if letters else ():
            for start in range(len(padded) - order + 1):
                yield padded[start : start + order]

"""Whether an answer is right, by rules alone: no model judges another.

A row with a check is right when the answer holds every required string as whole words, cites exactly the
required passages, and abstains exactly when it must. A row without one is right when the answer equals
the row's, both normalised; where the rows' answers are few and short (classes), a label is found in longer answers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from server.datasets import Example
from server.grounding import CITATION_MARK, find_citation_marks
from server.words import fold, numbers, sentences

MAX_CLASSES = 12
MAX_LABEL_WORDS = 3

_NUMBER_WORDS = {"zero": "0"} | {word: str(number) for word, number in numbers.ENGLISH_NUMBERS.items()}
_NEGATION = re.compile(
    r"\b(?:(?:do(?:es)?|did|is|are|was|were|has|have|can|could|would|am)(?:\s*not|n't|n’t)|cannot|no|nothing|never|"
    r"unable|neither|without)\b",
    re.IGNORECASE,
)
_KNOWING_WORD = re.compile(
    r"\b(?:say|says|said|state[sd]?|mention\w*|specif\w+|provid\w+|contain\w*|hold|holds|includ\w+|information|"
    r"answer\w*|find|found|know\w*|tell|told|give[ns]?|list\w*|detail\w*|indicat\w+|available|data|sure|record\w*|"
    r"document\w*|sources?|context|determin\w+)\b",
    re.IGNORECASE,
)


def is_right(example: Example, answer: str, classes: Collection[str] = ()) -> bool:
    """`classes` are the normalised labels of a classification set, or nothing."""
    check = example.check
    if check is None:
        wanted = normalised(example.answer)
        return wanted == (label_in(answer, classes) if classes else normalised(answer))
    if check.abstains:
        return abstains(answer)
    if check.cites is not None and cited(answer) != set(check.cites):
        return False
    return all(contains(answer, part) for part in check.contains)


def normalised(text: str) -> str:
    """Folded for case, marks around words, thousands separators, currency signs and small number words."""
    text = fold(text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"[$€£*_`\"“”]", "", text)
    words = (_NUMBER_WORDS.get(word, word) for word in re.split(r"(\W+)", text))
    return " ".join("".join(words).split()).strip(" .!?;:,")


def contains(answer: str, part: str) -> bool:
    """Whether `part` stands in the answer as whole words; '45' does not stand in '145'."""
    wanted = normalised(part)
    return (
        re.search(rf"(?<![\w.]){re.escape(wanted)}(?!\w|[.,]\d)", normalised(CITATION_MARK.sub(" ", answer)))
        is not None
    )


def cited(answer: str) -> set[int]:
    return {number for mark in find_citation_marks(answer) for number in mark.numbers}


def abstains(answer: str) -> bool:
    """Whether the answer says that it does not know: a sentence with a negation and a word about knowing,
    and no citation anywhere. Generous on purpose: a base model has its own ways to say it."""
    if cited(answer):
        return False
    return any(_NEGATION.search(answer, *span) and _KNOWING_WORD.search(answer, *span) for span in sentences(answer))


def classes_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """The labels, if this is a classification set: no checks, at most 12 different answers of at most 3 words,
    and fewer of them than a third of the rows; else ()."""
    if any(example.check is not None for example in examples):
        return ()
    labels = sorted({normalised(example.answer) for example in examples})
    short = all(len(label.split()) <= MAX_LABEL_WORDS for label in labels)
    return tuple(labels) if short and 1 < len(labels) <= MAX_CLASSES and len(labels) * 3 <= len(examples) else ()


def label_in(answer: str, classes: Collection[str]) -> str:
    """The one label that the answer names, also inside a sentence; '' when it names none or several."""
    text = normalised(answer)
    if text in classes:
        return text
    named = {label for label in classes if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text)}
    return named.pop() if len(named) == 1 else ""

"""Whether one of two texts that say nearly the same says "not" where the other does not. English and Korean. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from server.words import stem, terms

MAX_DISTANCE = 12  # words between a "not" and what it negates

_TOKEN = re.compile(r"[^\W\d_]+(?:['’]t\b)?|[.,;:!?()]")
_NOT = re.compile(r"not|no|never|neither|nor|cannot|without|\w+n['’]t", re.IGNORECASE)
_KOREAN_NOT = re.compile("않|없|못[하합해할한된되됩될]|불가")
_FILLER_WORDS = ("수", "수가", "수는", "수도", "것이", "것은")
_RESTRICTIVE = re.compile(r"\b(?:only|except|unless|until)\b|제외|외에|[가-힣]만 ", re.IGNORECASE)


def negation_differs(text: str, other: str) -> bool:
    """One negates a word that stands in the other without a "not". "Only" and "except" turn a sentence in ways that
    words do not show, so nothing is said of them."""
    if _RESTRICTIVE.search(text) or _RESTRICTIVE.search(other):
        return False
    mine, theirs = _negated(text), _negated(other)
    if mine[1] & theirs[1]:
        return False
    return bool((theirs[0] & _keys(text)) - mine[1] or (mine[0] & _keys(other)) - theirs[1])


def _negated(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Words that a "not" stands at: those next to it, and those with the ones after them."""
    tokens = _TOKEN.findall(text)
    next_to: set[str] = set()
    near: set[str] = set()
    for at, token in enumerate(tokens):
        if _NOT.fullmatch(token):
            following = [_key(word) for word in islice(filter(terms, _until_stop(tokens, at + 1)), 2)]
        elif _KOREAN_NOT.match(token):
            before = [word for word in tokens[max(0, at - 2) : at] if word[0].isalpha() and word not in _FILLER_WORDS]
            following = [_key(word) for word in before[-1:]]
        else:
            continue
        next_to.update(following[:1])
        near.update(following)
    return frozenset(next_to), frozenset(near)


def _until_stop(tokens: Sequence[str], start: int) -> Iterator[str]:
    for at in range(start, min(start + MAX_DISTANCE, len(tokens))):
        if not tokens[at][0].isalpha():
            return
        yield tokens[at]


def _keys(text: str) -> frozenset[str]:
    return frozenset(_key(word) for word in _TOKEN.findall(text))


def _key(word: str) -> str:
    """What the forms of a word have in common: the stem, or the first two syllables."""
    folded = word.casefold()
    return folded[:2] if re.match("[가-힣]", folded) else stem(folded)

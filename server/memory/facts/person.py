"""The user's first person turned into the third, for a prompt that speaks about the user.

'I prefer short answers' becomes 'Prefers short answers.', 'my dog is Rex' 'The user's dog is Rex.'. Inside
a sentence the user is 'they', whose verbs look like those of 'I'. What cannot be rewritten safely is quoted.
"""

from __future__ import annotations

import re

from server.memory.facts.vocabulary import PAST_FORMS

_ADVERBS = (
    "really|absolutely|also|personally|still|just|actually|generally|usually|always|never|often|sometimes|only|mostly"
    "|definitely|truly|mainly|strongly|especially|normally|typically|rarely|currently|now|much|already|both"
)
_LEAD = re.compile(
    rf"i(?P<short>'?m|'ve|'ll|'d)?\s+(?P<adverbs>(?:(?:{_ADVERBS})\s+)*)"
    r"(?P<verb>[a-z]+(?:'t)?|\d{1,3}(?= years?\b))\b(?P<rest>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_SHORT = {"'m": "is", "m": "is", "'ve": "has", "'ll": "will", "'d": "would"}
_THIRD = {
    "am": "is", "have": "has", "do": "does", "don't": "doesn't", "go": "goes", "was": "was", "haven't": "hasn't",
    "can": "can", "can't": "can't", "cannot": "cannot", "will": "will", "won't": "won't", "would": "would",
    "could": "could", "should": "should", "must": "must", "may": "may", "might": "might", "wasn't": "wasn't",
    "didn't": "didn't", "couldn't": "couldn't", "wouldn't": "wouldn't", "shouldn't": "shouldn't",
}  # fmt: skip
_PAST = frozenset(PAST_FORMS)
_NOT_PAST = frozenset(["need", "feed", "speed", "bleed", "breed", "exceed", "proceed", "succeed"])
_INSIDE = (
    (r"\bi'?m\b|\bi am\b", "they are"), (r"\bi was\b", "they were"), (r"\bi've\b", "they have"),
    (r"\bi'd\b", "they would"), (r"\bi'll\b", "they will"), (r"\bi\b", "they"), (r"\bmyself\b", "themselves"),
    (r"\bmine\b", "theirs"), (r"\bmy\b", "their"), (r"\bme\b", "them"),
)  # fmt: skip
_REWRITES = tuple((re.compile(pattern, re.IGNORECASE), word) for pattern, word in _INSIDE)
_FIRST = re.compile(r"\b(?:i|i'?m|i've|i'll|i'd|me|my|mine|myself|we|we're|we've|us|our|ours)\b", re.IGNORECASE)
_GROUP = re.compile(r"\b(?:we|we're|we've|we'll|us|our|ours|ourselves)\b", re.IGNORECASE)
_KOREAN_SELF = (
    (re.compile(r"^(?:저는|나는|난|전|제가|내가)\s+"), "사용자는 "),
    (re.compile(r"^(?:제|내|저의|나의)\s+"), "사용자의 "),
)
_KOREAN_INSIDE = re.compile(r"(?:^|\s)(?:저|나|제|내|우리)(?:는|가|를|의|도|한테|에게|희)?\s|(?:^|\s)(?:난|날|전|절)\s")


def to_third_person(statement: str) -> str:
    """`statement` as a sentence about the user; in the user's own words, quoted, where it cannot be rewritten."""
    text = " ".join(statement.replace("’", "'").split()).rstrip(".!。 ")
    turned = _korean(text) if re.search(r"[가-힣]", text) else _english(text)
    return as_sentence(turned) if turned is not None else f'Said: "{text}"'


def as_sentence(text: str) -> str:
    """A capital at the start, a full stop at the end."""
    text = text.strip()
    closed = text if text.endswith((".", "!", "?", "。")) else f"{text}."
    return closed[:1].upper() + closed[1:]


def with_they(text: str) -> str:
    """A phrase with the first person replaced by 'they'."""
    for pattern, word in _REWRITES:
        text = pattern.sub(word, text)
    return text


def third_person_verb(verb: str) -> str:
    """'prefer' → 'prefers'; past and modal forms stay."""
    low = verb.lower()
    if low in _THIRD:
        return _THIRD[low]
    if low in _PAST or (low.endswith("ed") and low not in _NOT_PAST):
        return low
    if re.search(r"(?:[sxz]|ch|sh|o)$", low):
        return f"{low}es"
    if re.search(r"[^aeiou]y$", low):
        return f"{low[:-1]}ies"
    return f"{low}s"


def _english(text: str) -> str | None:
    if _GROUP.search(text):
        return None
    lead = _LEAD.match(text)
    if lead:
        rest = with_they(lead["rest"])
        if lead["short"]:
            return f"{_SHORT[lead['short'].lower()]} {lead['adverbs']}{lead['verb']}{rest}"
        return f"{lead['adverbs']}{third_person_verb(lead['verb'])}{rest}"
    own = re.match(r"my\s+", text, re.IGNORECASE)
    if own:
        return f"the user's {with_they(text[own.end() :])}"
    return None if _FIRST.search(text) else text


def _korean(text: str) -> str | None:
    for pattern, word in _KOREAN_SELF:
        turned, count = pattern.subn(word, text)
        if count:
            rest = turned[len(word) :]
            return None if _KOREAN_INSIDE.search(rest) else turned
    return None if _KOREAN_INSIDE.search(text) else text

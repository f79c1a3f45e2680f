"""What the rules find, and which fact about the user a text states.

A *slot* is a question with one answer at a time: the name, the form of address, the answers' language, the
Korean speech level, the home, the taste for one thing. A newer answer replaces the older one. The slot is
read from the stored text alone, so a memory that was typed or edited by hand obeys the same rule.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from server.types import MemoryKind

NAME, ADDRESS, HOME, AGE = "name", "address", "home", "age"
IDENTITY_SLOTS = (NAME, HOME, AGE)  # the others are preferences


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement worth keeping: `text` for the prompt, and where its words stand in the message.

    Times are seconds since 1970, UTC: it holds from `valid_from` until `valid_to`, and None is not known or open.
    A `valid_to` in the past is what was so before. `reason` says why a finding is held back ("secret", "order").
    """

    kind: MemoryKind
    text: str
    start: int
    end: int
    subject: str = ""  # who it is about, as named; '' is the user
    valid_from: float | None = None
    valid_to: float | None = None
    confidence: float = 1.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    name: str
    value: str


_SLOTS = (
    (NAME, re.compile(r"(?:name is|my name is)\s+(?P<value>[^,;:.!?]{1,60}?)", re.IGNORECASE)),
    (NAME, re.compile(r"(?:(?:제|내)\s+)?이름은\s+(?P<value>[^,;:.!?]{1,40}?)")),
    (ADDRESS, re.compile(r"(?:wants to be called|goes by|call me)\s+(?P<value>[^,;:.!?]{1,60}?)", re.IGNORECASE)),
    (ADDRESS, re.compile(r"호칭은\s+(?P<value>[^,;:.!?]{1,40}?)")),
    ("language", re.compile(r"wants answers in\s+(?P<value>\w+)", re.IGNORECASE)),
    ("speech level", re.compile(r"prefers (?:polite|casual) korean \((?P<value>존댓말|반말)\)", re.IGNORECASE)),
    (HOME, re.compile(r"lives (?:in|near|at)\s+(?P<value>.{1,80}?)", re.IGNORECASE)),
    (HOME, re.compile(r"(?P<value>.{1,60}?)에(?:서)? 살아요")),
    (AGE, re.compile(r"is (?P<value>\d{1,3}) years old", re.IGNORECASE)),
)
_TASTE = re.compile(
    r"(?:(?:really|absolutely|also|still|just)\s+)*(?:loves|likes|enjoys|hates|dislikes|prefers|doesn't (?:like|enjoy)"
    r"|can't stand)\s+(?P<object>.{1,120}?)",
    re.IGNORECASE,
)
_KOREAN_TASTE = re.compile(
    r"(?P<object>.{1,60}?)[을를이가은는]?\s+(?:좋아해요|싫어해요|선호해요|사랑해요|좋아하지 않아요|좋아요|싫어요)"
)
_FILLER = re.compile(r"\b(?:a|an|the|really|very|just|please|also|absolutely)\b")
_KOREAN_END = re.compile(
    r"(?:입니다|이에요|예요|에요|이야|습니다|합니다|해요|어요|아요|하세요|해\s*주세요|해\s*줘요|해\s*줘|주세요|줘요)$"
)


def slot_of(text: str) -> Slot | None:
    """The slot that the whole of `text` fills, if it fills one."""
    bare = text.strip().rstrip(".!。")
    for name, pattern in _SLOTS:
        found = pattern.fullmatch(bare)
        if found:
            return Slot(name, found["value"].strip())
    taste = _TASTE.fullmatch(bare) or _KOREAN_TASTE.fullmatch(bare)
    if taste:
        return Slot(f"taste {normal(taste['object'])}", normal(bare))
    return None


def normal(text: str) -> str:
    """Equal for texts that say the same in the same words: case, punctuation, articles, polite endings
    and (in Korean) spaces do not count; numbers and negations do."""
    low = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    words = " ".join(re.sub(r"[^\w'+#%/.-]|(?<!\d)[.-]|[.-](?!\d)", " ", low).split())
    if re.search(r"[가-힣]", words):
        return _KOREAN_END.sub("", words).replace(" ", "")
    return " ".join(_FILLER.sub(" ", words).split()) or words

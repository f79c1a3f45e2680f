"""What the rules extract, and which slot a text fills.

A *slot* is a question with one answer at a time: the name, the form of address, the answers' language, the
Korean speech level, the home, the place of work, the taste for one thing. A newer answer replaces the older one. The
slot is read from the stored text alone, so the same rule holds for a memory that was typed or edited by hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.types import MemoryKind
from server.words import normalize

NAME, ADDRESS, HOME, AGE, WORK = "name", "address", "home", "age", "work"
_PERSONAL_DATA = ("birthday", "home town", "native language", "time zone", "pronouns", "major", "job")
_ONE_OF_A_KIND = (
    "wife", "husband", "partner", "girlfriend", "boyfriend", "boss", "manager", "mother", "father", "mom", "dad",
)  # fmt: skip
# The others are preferences.
IDENTITY_SLOTS = (
    NAME, HOME, AGE, WORK, "diet", "marriage", *_PERSONAL_DATA, *(f"name of the {kin}" for kin in _ONE_OF_A_KIND),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement worth keeping: `text` for the prompt, and where its words are in the message.

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
    """`past`: the text tells what the answer was before ("Lived in Busan."), which replaces nothing."""

    name: str
    value: str
    past: bool = False


_NO_WORK = "".join(
    f"(?<!{place})"
    for place in ("학교", "대학", "학원", "대학원", "헬스장", "교회", "성당", "수영장", "병원", "도서관", "치과")
)
_VALUE = r"(?P<value>.{1,80}?)(?: now| currently)?"
_MARITAL_STATUS = r"is (?:\w+ly )?(?P<value>married|engaged|divorced|widowed|single)(?: to .{1,60})?"
_SLOTS = (
    (NAME, re.compile(r"(?:name is|my name is)\s+(?P<value>[^,;:.!?]{1,60}?)", re.IGNORECASE)),
    (NAME, re.compile(r"(?:(?:제|내)\s+)?이름은\s+(?P<value>[^,;:.!?]{1,40}?)")),
    (ADDRESS, re.compile(r"(?:wants to be called|goes by|call me)\s+(?P<value>[^,;:.!?]{1,60}?)", re.IGNORECASE)),
    (ADDRESS, re.compile(r"호칭은\s+(?P<value>[^,;:.!?]{1,40}?)")),
    ("language", re.compile(r"wants answers in\s+(?P<value>\w+)", re.IGNORECASE)),
    ("speech level", re.compile(r"prefers (?:polite|casual) korean \((?P<value>존댓말|반말)\)", re.IGNORECASE)),
    (HOME, re.compile(rf"(?:lives|(?P<past>lived)) (?:in|near|at)\s+{_VALUE}", re.IGNORECASE)),
    (HOME, re.compile(r"(?P<value>.{1,60}?)에(?:서)? (?:살아요|(?P<past>살았어요))")),
    (WORK, re.compile(rf"(?:works|(?P<past>worked)) (?:at|for)\s+{_VALUE}", re.IGNORECASE)),
    (WORK, re.compile(rf"(?P<value>.{{1,60}}?){_NO_WORK}(?:에서? (?:다녀요|(?P<past>다녔어요))|에서 일해요)")),
    ("diet", re.compile(r"is (?:an? )?(?P<value>vegan|vegetarian|pescatarian|omnivore)(?: now)?", re.IGNORECASE)),
    ("diet", re.compile(r"(?P<value>채식주의자|비건)(?:이에요|예요)")),
    ("marriage", re.compile(_MARITAL_STATUS, re.IGNORECASE)),
    ("marriage", re.compile(r"(?P<value>결혼|약혼|이혼|재혼)했어요")),
    (AGE, re.compile(r"is (?P<value>\d{1,3}) years old", re.IGNORECASE)),
)
_TASTE = re.compile(
    r"(?:(?:really|absolutely|also|still|just)\s+)*(?:loves|likes|enjoys|hates|dislikes|prefers|doesn't (?:like"
    r"|enjoy)"
    r"|can't stand)\s+(?P<object>.{1,120}?)",
    re.IGNORECASE,
)
_KOREAN_TASTE = re.compile(
    r"(?P<object>.{1,60}?)[을를이가은는]?\s+(?:좋아해요|싫어해요|선호해요|사랑해요|좋아하지 않아요|좋아요|싫어요)"
)
_THING = re.compile(
    r"the user's (?P<thing>birthday|birth date|date of birth|home ?town|native language|mother tongue|first language"
    rf"|time ?zone|pronouns|(?:{'|'.join(_ONE_OF_A_KIND)})'s name|fav(?:ou?rite) [\w -]{{2,40}}?)"
    r" (?:is|are) (?P<value>.{1,80})",
    re.IGNORECASE,
)
_KOREAN_THING = re.compile(r"(?:사용자의 )?(?P<thing>생일|고향|모국어|직업|전공)[은는이가] (?P<value>.{1,40})")
_THINGS = {
    "birth date": "birthday", "date of birth": "birthday", "hometown": "home town", "mother tongue": "native language",
    "first language": "native language", "timezone": "time zone", "생일": "birthday", "고향": "home town",
    "모국어": "native language", "직업": "job", "전공": "major",
}  # fmt: skip
_LATELY = re.compile(r"\s+(?:any ?more|now|these days|nowadays|lately)$", re.IGNORECASE)
_FILLER = re.compile(r"\b(?:a|an|the|really|very|just|please|also|absolutely)\b")
_KOREAN_END = re.compile(
    r"(?:입니다|이에요|예요|에요|이야|습니다|합니다|해요|어요|아요|하세요|해\s*주세요|해\s*줘요|해\s*줘|주세요|줘요)$"
)


def slot_of(text: str) -> Slot | None:
    """The slot that the whole of `text` fills, if it fills one."""
    bare = text.strip().rstrip(".!。")
    korean_kin = bare.startswith("사용자의 ")
    for name, pattern in _SLOTS:
        found = pattern.fullmatch(bare)
        if found and not korean_kin:
            return Slot(name, found["value"].strip(), "past" in found.re.groupindex and found["past"] is not None)
    thing = _THING.fullmatch(bare) or _KOREAN_THING.fullmatch(bare)
    if thing:
        return Slot(_slot_name(thing["thing"].lower()), normalised(thing["value"]))
    bare = _LATELY.sub("", bare)
    taste = _TASTE.fullmatch(bare) or _KOREAN_TASTE.fullmatch(bare)
    if taste:
        return Slot(f"taste {normalised(taste['object'])}", normalised(bare))
    return None


def _slot_name(thing: str) -> str:
    """The slot of something of one's own: 'birthday', 'name of the wife', 'taste favourite colour'."""
    if thing.endswith("'s name"):
        return f"name of the {thing.removesuffix(chr(39) + 's name')}"
    if thing.startswith("fav"):
        return f"taste {normalised(thing)}".replace("favorite", "favourite")
    return _THINGS.get(thing, thing)


def normalised(text: str) -> str:
    """Equal for texts that say the same in the same words: case, punctuation, articles, polite endings
    and (in Korean) spaces do not count; numbers and negations do."""
    low = normalize(text, "NFKC").casefold().replace("’", "'")
    words = " ".join(re.sub(r"[^\w'+#%/.-]|(?<!\d)[.-]|[.-](?!\d)", " ", low).split())
    if re.search(r"[가-힣]", words):
        return _KOREAN_END.sub("", words).replace(" ", "")
    return " ".join(_FILLER.sub(" ", words).split()) or words

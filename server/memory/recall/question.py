"""The intent of a question towards memory: a thing of the user's own, one of their few known facts, the past.

English and Korean, by its words. Knows nothing of stored memories.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.memory.facts.findings import ADDRESS, AGE, HOME, NAME, WORK

READ_CHARS = 4_000  # of a question; the gate hands over less


@dataclass(frozen=True, slots=True)
class QuestionIntent:
    """`slots`: the facts it asks for. `personal`: it speaks of the user's own things. `about_past`: it asks what was so
    before."""

    slots: frozenset[str] = frozenset()
    personal: bool = False
    about_past: bool = False


_REQUEST = re.compile(
    r"\b(?:how|what|where|when|which \w+|who) (?:do|can|could|should|would|might|must) i\b"
    r"|\b(?:can|could|should|may|might|must) i\b"
    r"|\b(?:tell|give|show|teach|help|send|remind|write|find|get|let|make|draw|for|to) me\b"
    r"|\bi (?:want|need|would like|'d like|am looking|'m looking|have to|wonder|think|guess)\b",
    re.IGNORECASE,
)
_OWN = re.compile(r"\b(?:my|mine|our|ours|i|me|we|us|i'm|i've|myself)\b", re.IGNORECASE)
_SELF_QUESTION = re.compile(
    r"\b(?:where|what|when|which \w+|who|how old|how \w+) (?:do|am|did|was|have) i\b", re.IGNORECASE
)
_KOREAN_OWN = re.compile(
    r"(?:^|[\s,.!?])(?:내|제|나의|저의|우리|나|저|난|전)(?:가|는|를|의|한테|에게|도|랑|만)?(?=[\s,.!?]|$)"
)
_SLOTS = (
    (NAME, r"\bmy (?:full |first |last |own |real )?name\b|\bwho am i\b|\bwhat am i called\b|\bwhat do you call me\b"),
    (ADDRESS, r"\b(?:call|address) me\b|\bmy nickname\b|\bwhat am i called\b"),
    (HOME, r"\bwhere (?:do|did|am|was|have) i (?:\w+ )?(?:liv|stay|resid|based|home)"
           r"|\bwhere i(?:'m| am)? (?:now )?(?:liv|based)"
           r"|\bmy (?:\w+ )?(?:home ?town|home|address|city|town|residence|neighbou?rhood)\b"
           r"|\b(?:city|town|country|place) (?:do|did) i (?:\w+ )?live|\bused to live\b|\bi used to live\b"),
    (AGE, r"\bhow old (?:am|was) i\b|\bmy age\b"),
    ("language", r"\b(?:what|which) language\b.*\b(?:i|me|my)\b|\bmy (?:preferred )?language\b"),
    (NAME, r"(?:내|제|나의|저의) ?(?:이름|성함|본명)|(?:내가|제가|나|저|나는|저는) ?누구"),
    (ADDRESS, r"(?:나를|저를|날|절) ?(?:뭐라고|어떻게) ?부|(?:내|제) ?(?:호칭|별명)"),
    (HOME, r"(?:어디|어느 ?(?:도시|동네|지역|나라))(?:에서?|서)? ?(?:살|사[는시나니냐세죠지]|산다|거주)"
           r"|(?:내|제) ?(?:집|주소|사는 ?곳|거주지|동네)(?:이|은|는|가|을|를)? ?(?:어디|뭐|어떻|어느)"
           r"|(?:사는|살던|살았던) ?(?:곳|데|도시|동네)"),
    (WORK, r"\b(?:where|which \w+|who) (?:do|did|have|was|am) i (?:\w+ )?(?:work|employ)"
           r"|\bmy (?:\w+ )?(?:employer|workplace|company|job)\b"),
    ("job", r"\bwhat do i do\b(?=\W*(?:$|for (?:a living|work)|\?))|\bmy (?:\w+ )?(?:job|profession|occupation)\b"),
    ("birthday", r"\bmy (?:birthday|date of birth|birth ?date)\b|\bwhen was i born\b|(?:내|제) ?(?:생일|생년월일)"),
    ("diet", r"\bmy diet\b|\bam i (?:an? )?(?:vegan|vegetarian|pescatarian)\b|(?:내가|제가|나|저) ?(?:채식|비건)"),
    ("marriage", r"\bam i (?:married|engaged|divorced)\b|\bmy marital status\b"
                 r"|(?:내가|제가|나|저) ?(?:결혼|이혼|약혼)했"),
    ("home town", r"\bmy home ?town\b|\bwhere (?:am|do) i (?:come )?from\b|(?:내|제) ?고향"),
    ("time zone", r"\bmy time ?zone\b"),
    ("native language", r"\bmy (?:native language|mother tongue)\b|(?:내|제) ?모국어"),
    (WORK, r"(?:어디|무슨 ?회사|어느 ?회사)(?:에서|에|를|서)? ?(?:다니|다녀|다녔|다닙|일하|일해|일했|근무)"
           r"|(?:내|제) ?(?:직장|회사)(?:이|은|는|가)? ?(?:어디|뭐|이름)"),
    ("job", r"(?:내|제) ?직업"),
    (AGE, r"(?:내|제) ?나이|(?:나|저|내가|제가|나는|저는) ?(?:올해 ?)?(?:몇 ?살|몇 ?세)"),
)  # fmt: skip
_SLOT_PATTERNS = tuple((slot, re.compile(pattern, re.IGNORECASE)) for slot, pattern in _SLOTS)
# Syllables that end in the past tense's ㅆ.
_PAST_SYLLABLES = "".join(
    chr(code) for code in range(0xAC00, 0xD7A4) if (code - 0xAC00) % 28 == 20 and chr(code) not in "있겠"
)
_EARLIER = r"(?:before|previously|earlier|formerly|originally|in the past|back then|until then)"
_PAST = re.compile(
    r"\bused to\b|\bdid i use to\b|\bmy (?:old|former|previous|earlier|original|ex)\b"
    rf"|\b(?:did|was|were|have|had) (?:i|my|we|our)\b(?=.*\b{_EARLIER}\b)"
    r"|\bbefore (?:i moved|that|this one|now|then|it changed)\b"
    rf"|(?:예전|이전|옛날|과거|그 ?전|종전|원래|전에)(?:에|에는|엔|의|까지)?\s.*[{_PAST_SYLLABLES}던]"
    r"|(?:살았던|살던|다녔던|다니던|쓰던|썼던)"
    r"|(?:예전|이전|옛) (?:이름|집|주소|직장|회사|나이|번호|차|도시|동네|직업|전화)",
    re.IGNORECASE,
)


def parse_intent(question: str) -> QuestionIntent:
    question = question[:READ_CHARS]
    slots = frozenset(slot for slot, pattern in _SLOT_PATTERNS if pattern.search(question))
    statement = _REQUEST.sub(" ", question)
    personal = bool(slots or _SELF_QUESTION.search(question) or _OWN.search(statement) or _KOREAN_OWN.search(question))
    return QuestionIntent(slots, personal, bool(_PAST.search(question)))

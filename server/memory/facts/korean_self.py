"""What Korean sentences say of their speaker: name, tastes, home, work, allergies.

A statement without a subject counts as the speaker's own unless something else in it carries a topic or
subject mark. Predicates are stored in one polite form, so that the same fact in another speech level is the
same memory.
"""

from __future__ import annotations

import re

from server.memory.facts.findings import Finding
from server.memory.facts.vocabulary import GIVEN_NAMES, KOREAN_NOT_NAMES, KOREAN_ROLES, NOT_LAST_SYLLABLES, TITLES
from server.memory.reading.own_words import MASK, Span
from server.types import MemoryKind

SUBJECT = re.compile(r"(?:[가-힣]+(?:랑|이랑|와|과|하고)\s+)?(?:저는|나는|난|전|제가|내가|저도|나도|저|나)\s+")
_PERSON = (
    rf"(?P<x>{MASK}+|[가-힣]{{1,5}}?(?:\s?(?:님|씨|쌤|선생님))?"
    r"|[A-Za-z][A-Za-z'-]{1,20}(?:\s[A-Z][A-Za-z'-]{1,20})?)"
)
_IS = (
    r"(?P<is>이에요|예요|에요|입니다|이야|야|이라고|라고|이고|고|이며|며|인데|임)"
    r"(?P<said>\s*(?:해요|합니다|해|하고|불러요))?요?"
)
_NAME = re.compile(rf"(?:제|내|저의|나의)\s*(?:이름|성함)(?:[은이]\s*|\s+){_PERSON}{_IS}$")
_I_AM = re.compile(rf"(?:저는|나는|난|전|저|나)\s+{_PERSON}{_IS}$")
_CALL = re.compile(
    r"(?:(?:앞으로(?:는)?|이제(?:부터|는)?|그냥|편하게|나를|날|저를|절|나는|저는|꼭|호칭은|다들|사람들은"
    r"|친구들은)\s+)*"
    rf"{_PERSON}(?P<is>이라고|라고)\s*"
    r"(?:불러\s*(?:줘요?|주세요|주시면|줄래요?|주라|달라|주십시오|줬으면)|부르면\s*(?:돼요?|됩니다)|불러요?)\S*$"
)

_NOT_LAST = frozenset(NOT_LAST_SYLLABLES)
_SURE_SURNAMES = frozenset("김박최윤권황송홍허곽엄류맹")
_SURNAMES = frozenset("이정강조장임한오서신안전유고문양손배백심노하성차주우구민나진지")

_HOW_MUCH = "정말로?|진짜로?|아주|너무|제일|가장|더|매우|특히|좀|꽤|완전|많이|되게|무척|엄청|원래|별로|그다지"
_ADVERB = rf"(?P<a>(?:(?:{_HOW_MUCH})\s+)*)"
_DO = r"(?:해요?|합니다|한다|하고|함|하는(?:데요?)?|하는\s*편(?:이에요|이야|입니다|인데))"
_BE = r"있(?:어요?|습니다|다|고|음|는(?:데요?)?)"
_EAT = r"먹(?:어요?|습니다|는다|고|음|는(?:데요?)?)"
_NOW = r"(?:\s*중(?:이에요|입니다|이야|인데)?)"
_LIVE = rf"(?:살(?:아요?|고|고\s*{_BE})|산다|삽니다|사는(?:데요?)?|거주\s*(?:{_DO}|하고\s*{_BE}|{_NOW}))"
_WORK = rf"(?:일|근무)\s*(?:{_DO}|하고\s*{_BE}|{_NOW})"
_TASTE, _SELF = MemoryKind.PREFERENCE, MemoryKind.IDENTITY
PREDICATES = tuple(
    (kind, re.compile(rf"(?P<x>\S.*?)\s*{pattern}$"), form)
    for kind, pattern, form in (
        (_TASTE, rf"(?P<p>[을를]?)\s+{_ADVERB}좋아{_DO}", "좋아해요"),
        (_TASTE, rf"(?P<p>[을를]?)\s+{_ADVERB}싫어{_DO}", "싫어해요"),
        (_TASTE, rf"(?P<p>[을를]?)\s+{_ADVERB}선호{_DO}", "선호해요"),
        (_TASTE, rf"(?P<p>[을를은는]?)\s+{_ADVERB}안\s*좋아{_DO}", "좋아하지 않아요"),
        (_TASTE, rf"(?P<p>[을를은는]?)\s+{_ADVERB}좋아하지\s*않(?:아요?|습니다|고|는데)", "좋아하지 않아요"),
        (_TASTE, rf"(?P<p>[을를은는]?)\s+{_ADVERB}못\s*{_EAT}", "못 먹어요"),
        (_TASTE, rf"(?P<p>[을를은는]?)\s+{_ADVERB}안\s*{_EAT}", "안 먹어요"),
        (_SELF, rf"(?P<p>에|에서)\s*(?P<a>){_LIVE}", "살아요"),
        (_SELF, rf"(?P<p>에서|으로|로)\s*(?P<a>){_WORK}", "일해요"),
        (_SELF, rf"(?P<p>에|)\s+(?P<a>)(?:다니(?:고|고\s*{_BE}|는데요?)|다녀요?|다닙니다)", "다녀요"),
        (_SELF, rf"(?P<p>)(?P<a>)알(?:레르기|러지|레르지)(?:가|도)?\s*(?:심하게\s*)?{_BE}", "알레르기가 있어요"),
    )
)
_FEELS = re.compile(rf"(?P<x>\S.*?)(?P<p>[이가])\s+{_ADVERB}(?P<how>좋|싫)(?:아요?|어요?|습니다|고|은데요?|다)$")
# '1번이 좋아요' chooses, '민아가 좋아' is about somebody.
_CHOICE = re.compile(
    rf"\d|[A-Za-z][이가]|(?:첫|두|세|네|마지막|앞|뒤|위|아래)\s?\S*|(?:\S+[씨님]|{'|'.join(GIVEN_NAMES)})[이가]\s"
)
_ROLE = re.compile(
    rf"(?P<x>(?:[가-힣A-Za-z]+\s){{0,2}}[가-힣]*(?:{'|'.join(KOREAN_ROLES)})"
    r"|(?:[가-힣]+\s){0,2}(?:초등학교|중학교|고등학교|대학교|대학|대학원|[가-힣]+과)\s?\d학년"
    r"|(?:[가-힣A-Za-z]+\s){0,2}[가-힣0-9]*(?:토박이|엄마|아빠|맞벌이|출신|전공|\d년\s?차|자취생|워킹맘|싱글맘"
    r"|외동|장남|장녀|유학생"
    r"|재수생|신혼부부|비흡연자))"
    r"(?:이에요|예요|에요|입니다|이야|야|이고|고|인데요?|임|이다)$"
)
_OWN_THING = re.compile(
    r"(?:(?:제|내|저의|나의)\s*)?(?P<x>생일|고향|모국어|취미|나이|직업|전공)[은는이가]\s+(?P<y>\S.{0,40}?)"
    r"(?:이에요|예요|에요|입니다|이야|야|이고|고|인데요?|임|이다)$"
)

# Adjectives end like the topic mark; without this list 'short answers' would be somebody.
_ADJECTIVE = (
    r"(?:짧은|많은|적은|작은|좋은|높은|낮은|밝은|넓은|맑은|얇은|굵은|깊은|젊은|같은|얕은|좁은|익은|삶은|볶은"
    r"|\S*[하되있없먹보듣읽가오타치노쓰나주]는)"
)
_OTHER = re.compile(rf"(?:^|\s)(?!{_ADJECTIVE}(?:\s|$))\S+(?:은|는|이|가|께서|께서는|도)(?=\s)")
_POINTING = re.compile(
    r"(?:이|그|저|요)\s|(?:이거|이것|그거|그것|저거|이게|그게|이런|그런|이렇게|그렇게|너|네|니|당신|그대|여기"
    r"|거기|그쪽|우리|뭐|무엇|어디"
    r"|누구|얼마나|왜|어느)(?:를|을|가|이|는|은|도|에|에서)?(?:\s|$)"
)


def has_subject(text: str) -> bool:
    return SUBJECT.match(text) is not None or re.match(r"(?:제|내)\s", text) is not None


def find_self(span: Span, own: bool) -> tuple[Finding, ...]:
    """One statement; `own`: the speaker is its subject although it is not named again."""
    for rule in (_name, _introduction, _address, _thing):
        found = rule(span)
        if found:
            return found
    return _predicate(span, own)


def single_finding(kind: MemoryKind, text: str, span: Span) -> tuple[Finding, ...]:
    return (Finding(kind, text, span.start, span.start + len(span.source)),)


def _name(span: Span) -> tuple[Finding, ...]:
    found = _NAME.match(span.masked)
    name = _as_name(span, found) if found else ""
    return single_finding(_SELF, f"이름은 {name}.", span) if name else ()


def _introduction(span: Span) -> tuple[Finding, ...]:
    """'저는 김민아입니다': a full name with a surname, a common given name, or one that is 'called' so."""
    found = _I_AM.match(span.masked)
    name = _as_name(span, found) if found else ""
    if not found or not name:
        return ()
    if found["is"].endswith("라고"):
        return single_finding(_SELF, f"이름은 {name}.", span) if found["said"] else ()
    return single_finding(_SELF, f"이름은 {name}.", span) if name in GIVEN_NAMES or _full_name(name) else ()


def _full_name(name: str) -> bool:
    if len(name) != 3 or name[1:] in TITLES:
        return False
    if name[0] in _SURE_SURNAMES or (name[0] in _SURNAMES and name[1:] in GIVEN_NAMES):
        return True
    return name[0] in _SURNAMES and name[-1] not in _NOT_LAST


def _address(span: Span) -> tuple[Finding, ...]:
    found = _CALL.match(span.masked)
    name = _as_name(span, found) if found else ""
    return single_finding(_TASTE, f"호칭은 {name}.", span) if name else ()


def _as_name(span: Span, found: re.Match[str]) -> str:
    """The name before the ending, which must be the form that its last syllable asks for; else ''."""
    text = span.source[found.start("x") : found.end("x")].strip("\"'“”‘’「」『』` ")
    ending = found["is"]
    if text and "가" <= text[-1] <= "힣" and ending not in ("입니다", "이에요", "인데"):
        closed = (ord(text[-1]) - ord("가")) % 28 != 0  # the syllable ends in a consonant
        if closed != (ending.startswith("이") or ending == "임"):
            return ""
    return "" if text in KOREAN_NOT_NAMES else text


def _thing(span: Span) -> tuple[Finding, ...]:
    found = _OWN_THING.match(span.masked)
    if not found or _POINTING.match(found["y"]):
        return ()
    mark = "은" if (ord(found["x"][-1]) - ord("가")) % 28 else "는"
    return single_finding(_SELF, f"{found['x']}{mark} {span.source[found.start('y') : found.end('y')]}.", span)


def _predicate(span: Span, own: bool) -> tuple[Finding, ...]:
    subject = SUBJECT.match(span.masked)
    body = span.cut(subject.end()) if subject else span
    mine = own or subject is not None
    for kind, pattern, form in PREDICATES:
        found = pattern.match(body.masked)
        if found and is_about_speaker(body.masked, found, mine):
            return single_finding(kind, polite_form(body, found, form), span)
    feels = _FEELS.match(body.masked) if mine else None
    if feels and not _CHOICE.match(body.masked) and is_about_speaker(body.masked, feels, mine):
        return single_finding(_TASTE, polite_form(body, feels, "좋아요" if feels["how"] == "좋" else "싫어요"), span)
    role = _ROLE.match(body.masked) if mine else None
    if role:
        closed = (ord(role["x"][-1]) - ord("가")) % 28 != 0
        return single_finding(_SELF, f"{role['x']}{'이에요' if closed else '예요'}.", span)
    return ()


def polite_form(body: Span, found: re.Match[str], form: str) -> str:
    words = body.source[found.start("x") : found.end("x")]
    return " ".join(f"{words}{found['p']} {found['a']}{form}.".split())


def is_about_speaker(text: str, found: re.Match[str], mine: bool) -> bool:
    """Not of a third person, nor of 'this' and 'you'. The word with the object mark is no subject."""
    if _POINTING.match(text):
        return False
    words = found["x"].split()
    before = " ".join(words[:-1] if found["p"] or mine else words)
    return _OTHER.search(f"{before} ") is None

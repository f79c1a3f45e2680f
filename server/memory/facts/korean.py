"""Korean statements worth keeping, by rules that would rather miss one than invent one.

Requests to remember, forms of speech, the answers' language and standing orders; what is said of oneself is
found by `korean_self`. Knows nothing of storage.
"""

from __future__ import annotations

import re
from itertools import islice

from server.memory.facts.findings import Finding
from server.memory.facts.korean_life import find_life
from server.memory.facts.korean_self import find_self, has_subject, single_finding
from server.memory.facts.person import to_third_person
from server.memory.facts.vocabulary import KOREAN_LANGUAGES
from server.memory.reading.own_words import MASK, Span
from server.types import MemoryKind

SENTENCE_CHARS = 400  # of what the patterns with free parts are tried on
MAX_CLAUSES = 8  # of one sentence

_OPENERS = re.compile(
    r"(?:(?:안녕(?:하세요|하십니까)?|반가워요?|반갑습니다|네|예|응|음|아|저기|저기요|그리고|참고로|그런데|근데|그럼|그래서|참|혹시"
    r"|일단|우선|또|또한|그냥|제발|꼭|부탁인데|있잖아|아니|아니요)(?:[\s,.!~]+|$))+"
)
_HYPOTHETICAL = re.compile(
    r"(?:만약|만일|가령|예를 들어|예컨대|예시|예문|가정)"
    r"|.*(?:(?<=[가-힣])라면(?![을은이도만과])|다면|였으면|라고 (?:치|가정|해 ?보))"  # 라면 alone is a dish
)
_ALWAYS = (
    r"(?:(?:우리|앞으로(?:는|도)?|이제(?:부터|는)?|지금부터|항상|언제나|늘|모든 답변은|모두|전부|제발|꼭"
    r"|나한테는?|저한테는?|나에게는?|저에게는?|대답은|답은|답변은)\s+)*"
)
_TELL = r"(?:답변?|대답|응답|말|대화|이야기|얘기|말씀)"
_PLEASE = (
    r"(?:줘요?|주세요|주십시오|주라|줄래요?|주시겠어요|주면 좋겠(?:어요?|습니다)|줬으면 (?:해요?|좋겠(?:어요?|습니다))"
    r"|줄 수 있(?:어요?|나요|을까요?))"
)
_DO = (
    rf"(?:을|를)?\s*(?:만\s*)?(?:(?:해|하)\s*(?:{_PLEASE}|라|세요|십시오|자|도 (?:돼요?|됩니다|괜찮아요?))?|{_PLEASE})$"
)
_TONGUE = "|".join(KOREAN_LANGUAGES)
_LANGUAGE = re.compile(
    rf"{_ALWAYS}(?P<x>{_TONGUE})로(?:만)?\s*{_TELL}{_DO}"
    rf"|(?:대답은|답은|답변은)\s+(?:항상\s+|모두\s+|꼭\s+)?(?P<y>{_TONGUE})로(?:만)?\s*{_DO}"
)
_LEVEL = r"(?:(?P<polite>존댓말|존대말|존대|높임말|경어|공손한 말투|정중한 말투)|(?P<casual>반말|편한 말투))"
_SPEECH = re.compile(
    rf"{_ALWAYS}{_LEVEL}(?:로|으로|을|를)?\s*(?:만\s*)?"
    rf"(?:(?:{_TELL}|사용|부탁)?{_DO}|써\s*(?:{_PLEASE}|라|도 돼요?)?$|쓰세요$|쓰자$|부탁\S*$)"
)
_RELAX = re.compile(
    rf"{_ALWAYS}(?:말\s*(?:좀\s*)?(?:편하게|편히)|편하게\s*말){_DO}|{_ALWAYS}말\s*(?:놔|놓아|놓으세요|놓자)\S*$"
)
_NOT_SPEECH = re.compile(
    rf"{_ALWAYS}{_LEVEL}(?:은|는|을|를|로)?\s*(?:{_TELL})?\s*"
    r"(?:(?:하지|쓰지|말하지)\s*(?:마|말)\S*|(?:안\s*(?:해도|써도))\s*(?:돼|됩|괜찮)\S*)(?:\s*줘\S*|\s*주세요)?$"
)
_STANDING = re.compile(r"(?:앞으로|이제부터|지금부터|다음부터|항상|언제나|늘|절대로?|매번)(?:는|도)?[\s,]+")
_FROM_NOW = re.compile(r"(?:앞으로|이제부터|지금부터|다음부터)(?:는|도)?[\s,]+")
_ORDER_END = re.compile(
    rf"(?:(?:해|어|아|여|려|줘|써|켜|춰|꿔|내|빼)\s*{_PLEASE}"
    r"|[가-힣]지\s*(?:마|마요|마세요|마라|말\s*것|말아\s*(?:줘요?|주세요))"
    r"|(?:답|대답|답변|말|설명|사용|작성|요약|표기|번역|추가|포함|제외|생략|표시|출력|정리)(?:해|해라|하세요|할\s*것|하라)"
    r"|(?:쓸|줄|적을|붙일|넣을)\s*것|써라?|쓰세요|부탁\S{0,4})$"
)
_NO_ORDER = re.compile(
    r"(?:앞으로(?:도)?|항상)\s*(?:잘|많이)\s*부탁|기억|잊지|불러|어떻게|어떡|걱정|포기|응원|행복|건강|사랑|힘내|곁에|변하지|떠나"
)

_KEEP = (
    r"(?:기억(?:을|도)?\s*(?:좀\s*)?(?:해|하고\s*있어|하여)?\s*"
    rf"(?:{_PLEASE}|둬요?|두세요|두어|놔요?|놓아|놓으세요|다오|라|하세요)"
    r"|(?:잊지|까먹지)\s*(?:마요?|마세요|마라|말아?\s*(?:줘요?|주세요|것)?)|메모해\s*(?:줘요?|둬요?|주세요))"
)
_SURELY = r"(?:(?:꼭|좀|잘|반드시|제발|계속|절대로?)\s*)*"
_KEEP_FIRST = re.compile(
    rf"(?:(?:이것|이거|이건|이걸|다음|아래|꼭|이 점|하나)[은을를도만]?\s*)*(?:{_KEEP}|기억해)"
    r"\s*[:：,–—-]\s*(?P<x>\S.*)$",
    re.DOTALL,
)
_KEEP_LAST = re.compile(
    r"(?P<x>\S.*?)(?:(?P<plain>다는|다고)|(?P<quoted>이?라는|이?란|이?라고)|(?P<adnominal>[는은인한던]))?"
    rf"\s*(?P<that>걸|것을|것도|거를|거|것|점을|점|사실을|사실|건)?(?P<mark>[,을를도]?)\s*{_SURELY}{_KEEP}$",
    re.DOTALL,
)
_POINTER = re.compile(
    r"(?:(?:이것|이거|이건|이걸|그거|그걸|그건|그것|방금\s*(?:한\s*)?말|(?:내가|제가)\s*(?:방금\s*)?(?:한\s*)?말|이\s*점|이\s*내용"
    rf"|지금 말한 거)(?:은|는|을|를|도|만)?\s*)*{_SURELY}{_KEEP}$"
)
_STATED = re.compile(r"(?:[다요야어아해]|니다|임|음)$|\d")


def find(span: Span, earlier: Span | None) -> tuple[Finding, ...]:
    """What one sentence says. `earlier` is the sentence before it, for '기억해 줘.'."""
    body = _opened(span)
    if len(body.masked) > SENTENCE_CHARS and not re.search(rf"{_KEEP}$", body.masked[-40:]):
        told = _KEEP_FIRST.match(body.masked)
        return (_fact(body.cut(told.start("x"))),) if told else ()
    told_of = _explicit(body, earlier, span.question)
    if told_of is not None:
        return told_of
    if _HYPOTHETICAL.match(body.masked):
        return ()
    if span.question and not re.search(r"(?:줄래요?|줄\s*수\s*있\S*|주시겠어요)$", body.masked):
        return _before_question(body)
    return _statement(body, False)


def _opened(span: Span) -> Span:
    span = span.strip(",ㅠㅜㅋㅎ^♡!~")
    opener = _OPENERS.match(span.masked)
    return span.cut(opener.end()).strip(",") if opener else span


def _explicit(body: Span, earlier: Span | None, question: bool) -> tuple[Finding, ...] | None:
    """'… 기억해 줘': the payload by the other rules, else as it stands. None where nothing is asked for."""
    if _POINTER.match(body.masked):
        if question or earlier is None or earlier.question or find(earlier, None):
            return ()
        return (_fact(earlier),)
    first = _KEEP_FIRST.match(body.masked)
    if first:
        payload = body.cut(first.start("x")).strip(",:")
        return _statement(payload, False) or (_fact(payload),)
    last = _KEEP_LAST.match(body.masked)
    return _last(body, last) if last else None


def _last(body: Span, asked: re.Match[str]) -> tuple[Finding, ...]:
    """The payload before '기억해 줘', which must say something: a clause or a date, not 'our talk'."""
    end = asked.end("x") + (1 if asked["plain"] or asked["adnominal"] else 0)
    payload = body.cut(asked.start("x"), end).strip(",:")
    clause = bool(asked["plain"] or asked["quoted"] or (asked["adnominal"] and asked["that"]))
    if not payload.masked.strip(MASK + " ") or len(payload.masked.split()) < 2:
        return ()
    if not clause and not _STATED.search(payload.masked):
        return ()
    return _statement(payload, False) or (_fact(payload, " 것" if asked["adnominal"] and asked["that"] else ""),)


def _fact(span: Span, ending: str = "") -> Finding:
    return Finding(MemoryKind.FACT, to_third_person(span.source + ending), span.start, span.start + len(span.source))


def _before_question(body: Span) -> tuple[Finding, ...]:
    """'저는 채식주의자인데 뭘 먹을까요?': what is stated before what is asked."""
    for gap in islice(re.finditer(r"(?<=데)[,\s]\s*", body.masked), MAX_CLAUSES):
        found = _own(body.cut(0, gap.start()), False)
        if found:
            return found
    return ()


def _statement(body: Span, own: bool) -> tuple[Finding, ...]:
    """A first part that ends in '-고' or '-데' with what follows it; else the whole."""
    for gap in islice(re.finditer(r"(?<=[고데])[,\s]\s*(?!싶|있|말)", body.masked), MAX_CLAUSES):
        head = _own(body.cut(0, gap.start()), own)
        if head:
            return (*head, *_statement(body.cut(gap.end()).strip(","), own or has_subject(body.masked)))
    return _manner(body) or _order(body) or _own(body, own)


def _own(body: Span, own: bool) -> tuple[Finding, ...]:
    return find_life(body, own) or find_self(body, own)


def _manner(span: Span) -> tuple[Finding, ...]:
    """The answers' language and the speech level."""
    language = _LANGUAGE.match(span.masked)
    if language:
        name = KOREAN_LANGUAGES[language["x"] or language["y"]]
        return single_finding(MemoryKind.PREFERENCE, f"Wants answers in {name}.", span)
    if _RELAX.match(span.masked):
        return single_finding(MemoryKind.PREFERENCE, "Prefers casual Korean (반말).", span)
    refused = _NOT_SPEECH.match(span.masked)
    level = refused or _SPEECH.match(span.masked)
    if not level:
        return ()
    polite = bool(level["polite"]) != bool(refused)
    said = "polite Korean (존댓말)" if polite else "casual Korean (반말)"
    return single_finding(MemoryKind.PREFERENCE, f"Prefers {said}.", span)


def _order(span: Span) -> tuple[Finding, ...]:
    """'앞으로 …', '항상 …', '절대 …' with an imperative at the end."""
    if not _STANDING.match(span.masked) or _NO_ORDER.search(span.masked) or not _ORDER_END.search(span.masked):
        return ()
    text = " ".join(_FROM_NOW.sub("", span.source, count=1).split()).rstrip(".")
    return single_finding(MemoryKind.INSTRUCTION, f"{text}.", span)

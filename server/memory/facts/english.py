"""English statements worth keeping, by rules that would rather miss one than invent one.

Requests to remember, forms of speech, the answers' language and standing orders; what is said of oneself is
found by `english_self`. Knows nothing of storage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from server.memory.facts.english_life import find_life
from server.memory.facts.english_self import find_self, single_finding
from server.memory.facts.findings import Finding
from server.memory.facts.person import as_sentence, to_third_person
from server.memory.facts.vocabulary import IMPERATIVES, LANGUAGES
from server.memory.reading.own_words import Span
from server.types import MemoryKind

_IGNORE = re.IGNORECASE | re.DOTALL
_OPENERS = re.compile(
    r"(?:(?:hi|hello|hey|ok|okay|well|actually|also|and|but|so|oh|yes|yeah|yep|no|nope|please|pls|plz|thanks"
    r"|thank you|sorry|anyway|by the way|btw|fyi|p\.?s\.?|one more thing|just so you know|for your information"
    r"|(?:a )?quick note|note"
    r"|(?:a few things |something )?about (?:me|myself)|good (?:morning|afternoon|evening)|in general|generally)\b"
    r"(?: there\b| all\b| everyone\b| again\b)?[\s,.!:;–—-]*)+",
    re.IGNORECASE,
)
_GREETING = re.compile(r"(?:hi|hello|hey|good (?:morning|afternoon|evening))\b", re.IGNORECASE)
_STANDING = re.compile(r"(?:from (?:now|here) on(?:wards?)?|going forward|in (?:the )?future)\b[\s,:]*", re.IGNORECASE)
_REQUEST = re.compile(
    r"(?:(?P<ask>can|could|would|will) you\s+(?:please\s+|kindly\s+)?|i(?:'d| would) like you to\s+"
    r"|i (?:want|need) you to\s+|you (?:should|must|can|may|have to|need to)\s+"
    r"|make sure (?:to|you|that you)\s+|be sure to\s+)",
    re.IGNORECASE,
)
_HYPOTHETICAL = re.compile(
    r"(?:if|suppose|supposing|imagine|pretend|assum(?:e|ing)|let's (?:say|pretend|imagine)|say,|what if|unless"
    r"|when(?:ever)?|while|once|in case|had|were|as if|act as|for (?:example|instance)|e\.g|i wish|wish"
    r"|hypothetically|someone|somebody)\b",
    re.IGNORECASE,
)
_REPORTED = re.compile(
    r"\b(?:said|says?|saying|told|tells|wrote|writes|asked|asks|claim(?:s|ed)?|thinks|thought|believes?|mentioned"
    r"|replied|answered|quotes?|lyrics?|goes like|according to|screamed|shouted|whispered|pretending|if)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"(?:\s*[,;]|\s+[–—-])?\s+(?:and|but|so)\s+(?=(?:also\s+)?(?:i|i'm|i've|my|please|call me|always|never"
    r"|from now on|you can call|answer in|reply in|respond in)\b)"
    r"|\s*[,;]\s+so\s+|(?:\s*[,;]|\s+[–—-])\s*(?=(?:i|i'm|my|please|call me|always|never|from now on|you can call)\b)",
    re.IGNORECASE,
)
_THEN_REMEMBER = re.compile(
    r"\s*(?:[,;]|\s[–—-]|\s(?:and|so|but)\b)\s*(?:and\s+|so\s+|but\s+)?"
    r"(?=(?:please\s+)?(?:remember|don't forget|do not forget)\b)",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\s*(?:[,;]|\s[–—-])\s*(?:and |so |but )?(?=(?:what|how|which|where|who|why|when|can|could|should|would|will|do"
    r"|does|is|are|any)\b)",
    re.IGNORECASE,
)
_EXPLICIT = re.compile(
    r"(?:always\s+)?(?:remember|don't (?:ever )?forget|do not forget|never forget|make a note|memori[sz]e"
    r"|save (?:this|that|it)?\s*(?:to|in) (?:your )?memory)\b"
    r"(?P<link>\s*(?:this|the following|these)?\s*(?:about me|for me|for later|for next time)?"
    r"(?:\s*[:–—,]\s*|\s+that\b[\s,:]*|\s+))(?P<x>\S.*)$",
    _IGNORE,
)
_POINTER = re.compile(
    r"(?:always\s+)?(?:remember|don't forget|do not forget|make a note of|memori[sz]e)"
    r"(?:\s+(?:that|this|it|these|those))?(?:\s+(?:about me|for me|for later|for next time|please|okay|ok))*$",
    re.IGNORECASE,
)
_STATES = re.compile(
    r"(?:i|i'?m|i've|i'll|my|our|we|we're)\b|.*\b(?:is|are|was|were|am|has|have|means|prefers?|likes?|needs?|will)\b"
    r"|.*'s\b",
    _IGNORE,
)
_NO_PAYLOAD = re.compile(
    r"(?:when|how|what|why|where|who|whether|if|me|him|her|them|us|the time|last time|those|these)\b", re.IGNORECASE
)
_TONGUE = "|".join(LANGUAGES)
_LANGUAGE = re.compile(
    r"(?:always\s+)?(?:please\s+)?"
    r"(?:(?:answer|reply|respond|write(?= to me)|talk|speak|chat)(?:\s+(?:to|with))?(?:\s+me)?(?:\s+only)?\s+(?:in\s+)?"
    rf"|use\s+)(?:only\s+)?(?P<x>{_TONGUE})"
    r"(?:\s+(?:please|only|from now on|to me|with me|for me|always|instead|in (?:this|our) chats?"
    r"|for all (?:your )?answers))*$"
    r"|i(?:'d| would)?\s+(?:prefer|want|like)\s+(?:your\s+)?(?:answers|replies|responses)\s+(?:to be\s+)?in\s+"
    rf"(?P<y>{_TONGUE})$",
    re.IGNORECASE,
)
_SPEECH = re.compile(
    r"(?:use|speak|answer|reply|respond|talk)(?:\s+(?:to|with))?(?:\s+me)?\s+(?:in\s+|with\s+)?"
    r"(?:(?P<polite>존댓말|jondaemal|jondaetmal|(?:polite|formal|honorific) (?:korean|speech))"
    r"|(?P<casual>반말|banmal|(?:casual|informal) (?:korean|speech)))(?:\s+(?:please|from now on|to me|with me))*$",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"(?P<how>always|never|don't ever|do not ever|don't|do not)\s+(?:please\s+|ever\s+|again\s+)?(?P<verb>[a-z-]+)\b",
    re.IGNORECASE,
)
_LATER = re.compile(r".*\b(?:from now on|any ?more|in (?:the )?future|going forward)(?: please)?$", _IGNORE)
_ATTRIBUTED = re.compile(r",\s*(?:\w+\s+){1,3}(?:said|says|told|replied|wrote|asked|thought)\b", re.IGNORECASE)
_VERB = re.compile(r"(?P<verb>[a-z-]+)\b", re.IGNORECASE)


def find(span: Span, earlier: Span | None) -> tuple[Finding, ...]:
    """What one sentence says. `earlier` is the sentence before it, for 'Remember that.'."""
    greeted = _GREETING.match(span.masked) is not None
    body, standing = _opened(span)
    if _HYPOTHETICAL.match(body.masked):
        return ()
    asked = _REQUEST.match(body.masked)
    if asked:
        body, standing = _opened(body.cut(asked.end()), standing)
    if span.question and not (asked and _may_be_asked(body, asked["ask"], standing)):
        question = _ASIDE.search(body.masked)
        if asked or not question:
            return ()
        body = body.cut(0, question.start())  # 'I am a nurse, what …?' states before it asks
    told = _explicit(body, earlier)
    if told is not None:
        return told
    then = _THEN_REMEMBER.search(body.masked)
    if then:
        first, rest = body.cut(0, then.start()), _opened(body.cut(then.end()))[0]
        return (*_stated(first, standing, greeted), *(_explicit(rest, first) or ()))
    return _stated(body, standing, greeted)


def _stated(body: Span, standing: bool, greeted: bool) -> tuple[Finding, ...]:
    if _ATTRIBUTED.search(body.masked):
        return ()
    found: list[Finding] = []
    for clause, before in _clauses(body):
        if not _REPORTED.search(before):
            found += _clause(clause, standing, greeted)
    return tuple(found)


def _opened(span: Span, standing: bool = False) -> tuple[Span, bool]:
    """Without greetings, 'please' and 'from now on'; whether the latter stood there."""
    span = span.strip(",;")
    while True:
        opener = _OPENERS.match(span.masked)
        if opener:
            span = span.cut(opener.end())
        order = _STANDING.match(span.masked)
        if order:
            span, standing = span.cut(order.end()), True
        if not opener and not order:
            return span.strip(",;"), standing


def _may_be_asked(body: Span, ask: str | None, standing: bool) -> bool:
    """'Could you always …?' is an order; 'can you …?' may be curiosity."""
    order = re.match(r"(?:always|never|call me|address me|(?:remember|not forget)(?: that\b|:))", body.masked, re.I)
    if standing or order:
        return True
    return (ask or "").lower() in ("could", "would") and _LANGUAGE.match(body.masked) is not None


def _explicit(body: Span, earlier: Span | None) -> tuple[Finding, ...] | None:
    """'remember that …'. None where nothing is asked for."""
    if _POINTER.match(body.masked):
        if earlier is None or earlier.question or find(earlier, None):
            return ()
        return (_fact(earlier),)
    asked = _EXPLICIT.match(body.masked)
    if asked is None:
        return None
    link, payload = asked["link"].lower(), body.cut(asked.start("x")).strip(",;:")
    if payload.masked.lower().startswith("to ") and ":" not in link:
        return _order(payload.cut(3).strip(), payload)
    named = "that" in link or ":" in link or "–" in link or "—" in link
    if not named and (_NO_PAYLOAD.match(payload.masked) or not _STATES.match(payload.masked)):
        return ()
    return _payload(payload)


def _payload(payload: Span) -> tuple[Finding, ...]:
    """By the other rules where they understand every clause, else as it stands."""
    found = [_clause(clause, False, False) for clause, _ in _clauses(payload)]
    if found and all(found):
        return tuple(finding for findings in found for finding in findings)
    return (_fact(payload),) if payload.masked else ()


def _fact(span: Span) -> Finding:
    return Finding(MemoryKind.FACT, to_third_person(span.source), span.start, span.start + len(span.source))


def _clauses(body: Span) -> Iterator[tuple[Span, str]]:
    """Clauses with what stands before each in the sentence."""
    start = 0
    for gap in [*_CLAUSE.finditer(body.masked), None]:
        end = gap.start() if gap else len(body.masked)
        clause = body.cut(start, end).strip(",;")
        if clause.masked:
            yield clause, body.masked[:start]
        start = gap.end() if gap else end


def _clause(clause: Span, standing: bool, greeted: bool) -> tuple[Finding, ...]:
    body, now = _opened(clause, standing)
    found = _manner(body) or find_life(body) or find_self(body, greeted)
    if found:
        return found
    order = _ORDER.match(body.masked)
    if (
        now
        or _LATER.match(body.masked)
        or (order and order["how"].lower() in ("always", "never", "don't ever", "do not ever"))
    ):
        return _order(body, body)
    return ()


def _manner(span: Span) -> tuple[Finding, ...]:
    """The answers' language and the Korean speech level."""
    language = _LANGUAGE.match(span.masked)
    if language:
        name = LANGUAGES[(language["x"] or language["y"]).lower()]
        return single_finding(MemoryKind.PREFERENCE, f"Wants answers in {name}.", span)
    level = _SPEECH.match(span.masked)
    if level:
        said = "polite Korean (존댓말)" if level["polite"] else "casual Korean (반말)"
        return single_finding(MemoryKind.PREFERENCE, f"Prefers {said}.", span)
    return ()


def _order(order: Span, quoted: Span) -> tuple[Finding, ...]:
    """`order` begins with 'always', 'never', 'don't' or a verb that users order an assistant with."""
    verb = _ORDER.match(order.masked) or _VERB.match(order.masked)
    if not verb or verb["verb"].lower() not in IMPERATIVES:
        return ()
    rest = order.masked[verb.end() :].strip()
    forbidden = verb.re is _ORDER and verb["how"].lower().startswith("do")
    if (not rest and not forbidden) or re.fullmatch(r"(?:that|this|it|so)(?: again| please)*", rest, re.IGNORECASE):
        return ()
    text = re.sub(r"\s+please$", "", " ".join(order.source.split()), flags=re.IGNORECASE)
    return single_finding(MemoryKind.INSTRUCTION, as_sentence(text), quoted)

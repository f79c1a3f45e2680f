"""What English clauses say of their speaker: name, form of address, tastes, home, work, allergies.

Each rule must match from the start of a clause and fit to its end. Knows nothing of sentences or storage.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from server.memory.facts.findings import Finding
from server.memory.facts.person import as_sentence, third_person_verb, to_third_person, with_they
from server.memory.facts.vocabulary import NOT_NAMES, ROLES
from server.memory.reading.own_words import MASK, Span
from server.types import MemoryKind

_IGNORE = re.IGNORECASE | re.DOTALL
_TOKEN = r"[^\W\d_][\w'.-]{0,30}"
_MY_NAME = re.compile(
    r"my (?:(?:full|first|real|given|legal|last) )?name(?:'?s|\s+is|:)\s+"
    rf"(?P<x>{MASK}+|{_TOKEN}(?:\s+{_TOKEN}){{0,3}}?)"
    r"(?:,?\s+(?:by the way|btw|from\b.*|and\b.*|not\s+\w+))?$",
    _IGNORE,
)
_I_AM = re.compile(
    r"i(?:'?m| am)\s+(?P<x>[^\W\d_][\w'-]{1,30}(?:\s+[^\W\d_][\w'-]{1,30}){0,2}?)"
    r"(?:\s+(?:from|here|btw|by the way)\b.*)?$",
    _IGNORE,
)
_CALLED = re.compile(rf"(?:i(?:'?m| am) called|this is)\s+(?P<x>{_TOKEN}(?:\s+{_TOKEN})?)$", _IGNORE)
_CALL_ME = re.compile(
    r"(?:(?:you can|you may|just|please|simply)\s+)*(?:call me|address me as|refer to me as)\s+"
    rf"(?P<x>{MASK}+|{_TOKEN}(?:\s+{_TOKEN})?)"
    r"(?:\s+(?:please|instead|from now on|if you (?:like|want|don't mind)|for short|not \w+))*(?:,\s.*)?$"
    r"|(?:everyone|everybody|people|(?:all )?my friends|friends|they|they all|most people) calls? me\s+"
    rf"(?P<y>{_TOKEN})$"
    rf"|i(?: usually)? go by(?: the name)?\s+(?P<z>{_TOKEN}(?:\s+{_TOKEN})?)$",
    _IGNORE,
)
_TITLE = re.compile(r"(?:doctor|professor|captain|teacher|coach|chef|nurse|judge|major|colonel|boss)", re.IGNORECASE)
_LIKES = re.compile(
    r"i(?:'d| would)?\s+(?P<adverbs>(?:(?:really|absolutely|also|personally|still|just|actually|generally|usually"
    r"|much|strongly|definitely|always)\s+)*)"
    r"(?P<verb>prefer|like|love|hate|dislike|enjoy|detest|adore|don'?t like|do not like|don'?t enjoy|can'?t stand"
    r"|cannot stand)\s+(?P<x>\S.*)$",
    _IGNORE,
)
# Objects that point at the talk ("that one", "your answer") or belong to a phrase ("I hate to say").
_NO_TASTE = re.compile(
    r"(?:(?:number |no\.? ?|#)?\d+$|\w$"
    r"|it|its|it's|that|that's|this|these|those|them|you|your|yours|him|her|he|she|how|what|where|when|why|who"
    r"|both|neither|either|one|ones|more|not|if|another|option|some(?: help)?|everything|nothing|anything|something"
    r"|to (?:say|see|think|bother|ask|be that|admit|break|disappoint|tell|know|hear|inform|point|believe)"
    r"|the (?:way|first|second|third|fourth|last|latter|former|other|new|old|one|idea|sounds?|looks?|fact|results?"
    r"|answer|response|suggestion|previous|next|above|option|version|plan|approach|\w+ (?:one|option|version|answer))"
    r"|my chances|a (?:copy|list|recipe|summary|refund|few|bit|lot|minute|table|second))\b",
    re.IGNORECASE,
)
_IDENTITY = re.compile(
    r"i(?:\s+(?:currently|now|still|also|actually))?\s+"
    r"(?:live\s+(?:in|near)|work\s+(?:at|for|as|from|in)|teach\s+(?:\w+\s+){0,3}?(?:at|in)"
    r"|study\s+at)\s+(?P<place>\S.*)$"
    r"|i(?:'?m| am)\s+(?:originally\s+)?(?:from|based in)\s+(?P<origin>\S.*)$"
    r"|i(?:'?m| am)\s+(?:\w+ly\s+)?allergic to\s+\S.*$"
    r"|i(?:'?m| am)\s+(?:a\s+)?(?:lactose[ -]intolerant|gluten[ -]intolerant|vegetarian|vegan|pescatarian|diabetic"
    r"|left-handed|colou?r-?blind|deaf|blind|celiac|coeliac|dyslexic|retired|self-employed|unemployed)(?: now)?$"
    r"|i(?:'?m| am)\s+(?:the\s+)?(?:oldest|youngest|eldest|middle|only)\s+(?:child|one|of\s+\w+)\b.{0,40}$"
    r"|i(?:'?m| am)\s+in my\s+\w+\s+year\s+(?:of|at|in)\s+\S.*$"
    r"|i(?:'?m| am)\s+(?:more of\s+)?an?\s+(?:[\w-]+\s+)?(?:morning|night|tea|coffee|dog|cat|people|beach"
    r"|mountain|city)\s+person$"
    r"|i\s+(?:usually|always|mostly|only)\s+work\s+(?:nights|days|weekends|remotely|from home|part-?time)$"
    r"|i\s+run\s+(?:an?|my own)\s+(?:[\w-]+\s+){0,3}(?:bakery|shop|store|company|business|restaurant|caf[eé]"
    r"|farm|studio|startup"
    r"|blog|channel|podcast|agency|school|clinic|hotel|bookstore|bar|gym|salon)\b.*$"
    r"|i(?:'ve| have)\s+been\s+(?:an?\s+)?(?:vegetarian|vegan|pescatarian|sober|married|single|diabetic)\s+"
    r"(?:since|for)\s+\S.*$"
    r"|i(?:'?m| am)\s+not\s+a\s+native\s+(?:\w+\s+)?speaker$"
    r"|i\s+use\s+(?:an?\s+)?(?:arch|ubuntu|debian|fedora|linux|mac|macbook|macos|windows|android|iphone|ipad"
    r"|chromebook|vim"
    r"|neovim|emacs|vs ?code)\b.{0,40}$"
    r"|i have\s+(?:an?\s+)?(?:\w+\s+){0,4}allerg(?:y|ies)(?:\s+to\s+\S.*)?$"
    r"|i(?:'?m| am)\s+\d{1,3}\s+years?\s+old$",
    _IGNORE,
)
_ROLE = re.compile(
    rf"i(?:'?m| am)\s+an?\s+(?:[\w-]+\s+){{0,3}}(?:{'|'.join(ROLES)})(?:\s+(?:at|from|in|for|with)\s+\S.*)?$", _IGNORE
)
_MY_THING = re.compile(
    r"my\s+(?:(?P<taste>fav(?:ou?rite)\s+[\w -]{2,40}?)|birthday|birth date|date of birth|native language"
    r"|mother tongue|first language|time ?zone|home ?town|pronouns)\s+(?:is|are)\s+\S.*$",
    _IGNORE,
)
_NOWHERE = re.compile(
    r"(?:a (?:world|bubble|dream)|(?:the|a|my) (?:moment|past|future|present|terminal|shell|browser|editor|dark"
    r"|background|console|cloud)|fear|hope|denial|peace|here|there|this|that|it"
    r"|progress|theory|order|what|you|your)\b",
    re.IGNORECASE,
)


def find_self(span: Span, greeted: bool) -> tuple[Finding, ...]:
    """One clause; `greeted`: the sentence began with 'hi'."""
    for rule in _RULES:
        found = rule(span)
        if found:
            return found
    return _introduction(span, greeted)


def single_finding(kind: MemoryKind, text: str, span: Span) -> tuple[Finding, ...]:
    return (Finding(kind, text, span.start, span.start + len(span.source)),)


def _name(span: Span) -> tuple[Finding, ...]:
    found = _MY_NAME.match(span.masked)
    name = _as_name(span, found, "x", most=4) if found else ""
    if not found or not name:
        return ()
    return single_finding(MemoryKind.IDENTITY, f"Name is {name}.", span.cut(0, found.end("x")))


def _introduction(span: Span, greeted: bool) -> tuple[Finding, ...]:
    """'I'm Mina': a capital says that it is a name; two or three words only after a greeting."""
    called = _CALLED.match(span.masked)
    if called and not greeted and called[0].lower().startswith("this"):
        return ()
    found = called or _I_AM.match(span.masked)
    name = _as_name(span, found, "x", most=3 if greeted else 1, capital=True) if found else ""
    return single_finding(MemoryKind.IDENTITY, f"Name is {name}.", span) if name else ()


def _address(span: Span) -> tuple[Finding, ...]:
    found = _CALL_ME.match(span.masked)
    name = _as_name(span, found, found.lastgroup or "x", most=2) if found else ""
    return single_finding(MemoryKind.PREFERENCE, f"Wants to be called {name}.", span) if name else ()


def _as_name(span: Span, found: re.Match[str], group: str, *, most: int, capital: bool = False) -> str:
    """The name in the group, or '' where the words are no name: too many, in the list, or (three and
    more, or where only a capital tells) written small."""
    text = span.source[found.start(group) : found.end(group)].strip("\"'“”‘’「」『』`*.,- ")
    words = text.split()
    if words and words[-1].lower() == "please":
        words.pop()
    if not words or len(words) > most:
        return ""
    called = words[1:] if len(words) > 1 and _TITLE.fullmatch(words[0]) else words
    if any(word.lower().strip(".") in NOT_NAMES for word in called):
        return ""
    latin = [word for word in words if word[0].isascii()]
    capitals = all(word[0].isupper() and (len(word) < 3 or not word.isupper()) for word in latin)
    if not capitals and (capital or len(words) > 2):
        return ""
    return " ".join(words)


def _taste(span: Span) -> tuple[Finding, ...]:
    found = _LIKES.match(span.masked)
    if not found or _NO_TASTE.match(found["x"]):
        return ()
    would = re.match(r"i(?:'d| would)\b", span.masked, re.IGNORECASE)
    if would and found["verb"].lower() != "prefer":
        return ()
    verb = re.sub(r"^(?:do not|dont)\b", "don't", re.sub(r"^(?:cannot|cant)\b", "can't", found["verb"].lower()))
    head, _, tail = verb.partition(" ")
    adverbs = "" if would else found["adverbs"].lower()
    said = " ".join(f"{adverbs}{third_person_verb(head)} {tail} {with_they(span.source[found.start('x') :])}".split())
    return single_finding(MemoryKind.PREFERENCE, as_sentence(said), span)


def _identity(span: Span) -> tuple[Finding, ...]:
    found = _IDENTITY.match(span.masked)
    place = (found["place"] or found["origin"] or "") if found else ""
    if _NOWHERE.match(place):
        return ()
    if found or _ROLE.match(span.masked):
        return single_finding(MemoryKind.IDENTITY, to_third_person(span.source), span)
    mine = _MY_THING.match(span.masked)
    if not mine:
        return ()
    kind = MemoryKind.PREFERENCE if mine["taste"] else MemoryKind.IDENTITY
    return single_finding(kind, to_third_person(span.source), span)


_RULES: tuple[Callable[[Span], tuple[Finding, ...]], ...] = (_name, _address, _taste, _identity)

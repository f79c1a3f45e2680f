"""What English clauses say of the speaker's life: who belongs to them, what they work on, what is to come, what
has changed ("I moved from Busan to Seoul").

Each rule must match from the start of a clause. A change gives what was and what is now; an event needs a day to
come and is over after it. Knows nothing of sentences or storage.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from server.memory.facts.findings import Finding
from server.memory.facts.person import as_sentence, to_third_person, with_they
from server.memory.facts.vocabulary import KIN, LANGUAGES, NO_PLACES, ROLES
from server.memory.reading import dates
from server.memory.reading.own_words import Span
from server.types import MemoryKind

_IGNORE = re.IGNORECASE | re.DOTALL
_NAME = r"(?-i:[A-Z][\w'-]{1,30})"
_PROPER = rf"(?:the\s+)?{_NAME}(?:(?:,?\s+|\s+(?:of|de|la|upon)\s+){_NAME}){{0,3}}"
_SOON = r"(?:\s+(?:just|recently|finally|actually|already|also|now))?"
_BECAUSE = r"(?:,?\s+(?:for|because|with|and|but|so|after|when|where|to be|recently|now)\b.*)?"

_CHANGES = tuple(
    (then, now, re.compile(rf"{pattern}{_BECAUSE}$", _IGNORE))
    for then, now, pattern in (
        ("Lived in", "Lives in",
         rf"(?:i|we)(?:'ve| have)?{_SOON}\s+(?:moved|relocated)(?:\s+(?:here|back))?"
         rf"(?:\s+from\s+(?P<old>{_PROPER}))?\s+to\s+(?P<new>{_PROPER})"),
        ("Lived in", "Lives in",
         rf"(?:i|we)(?:'ve| have)?{_SOON}\s+(?:moved|relocated)\s+to\s+(?P<new>{_PROPER})\s+from\s+(?P<old>{_PROPER})"),
        ("Worked at", "Works at",
         rf"i(?:'ve| have)?{_SOON}\s+(?:changed|switched|moved)\s+(?:jobs?|companies|employers?)"
         rf"(?:\s+from\s+(?P<old>{_PROPER}))?\s+to\s+(?P<new>{_PROPER}|an?\s+[\w -]{{3,40}}?)"),
        ("Worked at", "Works at",
         rf"i(?:'ve| have)?{_SOON}\s+(?:left|quit)\s+(?P<old>{_PROPER})\s+"
         rf"(?:and\s+(?:joined|moved to|went to|started at|now\s+(?:i\s+)?work\s+(?:at|for))"
         rf"|to join|to work (?:at|for)|for)\s+(?P<new>{_PROPER})"),
        ("Worked at", "Works at",
         rf"i(?:'ve| have)?{_SOON}\s+(?:got an?(?: new)? job (?:at|with)|started (?:working|a new job) (?:at|for)"
         rf"|joined)(?P<old>(?!))?\s+(?P<new>{_PROPER})(?(old)|(?:\s+as\s+an?\s+[\w -]{{3,40}}?)?)"),
    )
)  # fmt: skip
# Those who write 'i' small write places small as well.
_MOVED_SMALL = re.compile(
    rf"i(?:'ve)?{_SOON} moved from (?P<old>[a-z]{{3,}}(?: [a-z]{{3,}})?) to (?P<new>[a-z]{{3,}}"
    rf"(?: [a-z]{{3,}})?){_BECAUSE}$"
)
_PAST = re.compile(
    r"(?:i\s+(?:used to|no longer|don'?t|do not|previously|formerly)\s+(?P<verb>live[d]?\s+in|work(?:ed)?\s+"
    r"(?:at|for)))\s+"
    rf"(?P<x>{_PROPER})(?P<end>\s+(?:any\s?more|before|until\b.*|back then|years ago|as a child|as a kid))?{_BECAUSE}$",
    _IGNORE,
)
_LEFT = re.compile(
    rf"i(?:'ve| have)?{_SOON}\s+(?:(?:quit|left|lost)\s+my\s+(?:job|position|role)\s+(?:at|with)|(?:resigned"
    rf"|retired)\s+from"
    rf"|(?:got|was)\s+laid\s+off\s+(?:from|by))\s+(?P<x>{_PROPER}){_BECAUSE}$",
    _IGNORE,
)
_SINCE = re.compile(
    r"i(?:'ve| have)\s+(?:been\s+)?(?P<verb>liv(?:ed|ing)\s+in|work(?:ed|ing)\s+(?:at|for))\s+"
    rf"(?P<x>{_PROPER})\s+(?:since\b.*|for\s+.*)$",
    _IGNORE,
)

_KIN = rf"(?:(?:older|younger|elder|big|little|twin|late|ex|eldest|youngest|oldest)[- ])?(?:{'|'.join(KIN)})"
_OBJECT = r"(?!(?:it|that|this|you|your|me|when|how|what|to|the (?:idea|way|fact))\b)\S.*?"
_PEOPLES = (
    "korean|american|english|british|irish|french|german|italian|spanish|portuguese|dutch|swedish|polish"
    "|russian|ukrainian|greek|turkish"
    "|indian|chinese|japanese|vietnamese|thai|indonesian|filipino|australian|canadian|mexican|brazilian|muslim"
    "|catholic|jewish|buddhist"
)
_CARES = (
    r"(?:liv(?:es?)\s+(?:in|near|with)|works?\s+(?:at|for|as|in)|stud(?:y|ies)\s+(?:at|in)|teach(?:es)?\s+(?:at"
    r"|in))\s+\S.*?"
    rf"|(?:is|are)\s+an?\s+(?:[\w-]+\s+){{0,2}}(?:{'|'.join(ROLES)})(?:\s+(?:at|in|for)\s+\S.*?)?"
    r"|(?:is|are)\s+(?:vegetarian|vegan|diabetic|deaf|blind|autistic|dyslexic|pregnant|left-handed|retired)"
    rf"|(?:is|are)\s+(?:from\s+{_PROPER}|(?:half[- ])?(?:{_PEOPLES}))"
    r"|(?:is|are)\s+(?:\w+ly\s+)?allergic to\s+\S.*?|ha(?:s|ve)\s+an?\s+(?:\w+\s+){0,2}allergy(?:\s+to\s+\S.*?)?"
    r"|(?:is|are|turned|just turned)\s+(?:\d{1,3}|one|two|three|four|five|six|seven|eight|nine|ten)"
    r"(?:,?\s+and\s+\d{1,2})?(?:\s+"
    r"(?:years|months)\s+old)?"
    rf"|(?:really\s+)?(?:loves?|likes?|hates?|prefers?|can'?t eat|do(?:es)?n'?t eat|enjoys?)\s+{_OBJECT}"
)
_AND_THEY = r"(?:(?:,|\s+(?:and|but|so|who|which|because))\s+.*)?$"
_MY_KIN = re.compile(
    rf"(?P<all>my\s+(?P<kin>{_KIN})(?:,?\s+(?P<name>{_NAME}),?)?\s+(?:{_CARES}))(?P<rest>{_AND_THEY})", _IGNORE
)
_KIN_NAME = re.compile(
    rf"(?P<all>my\s+(?P<kin>{_KIN})(?:'s\s+name\s+is|\s+is\s+(?:called|named)|'s\s+(?:called|named)"
    rf"|\s+is)\s+(?P<name>{_NAME}(?:\s+{_NAME})?))"
    rf"{_AND_THEY}",
    _IGNORE,
)
_KIN_DAY = re.compile(rf"(?P<all>my\s+(?P<kin>{_KIN})'s\s+birthday\s+is\s+\S.*)(?P<name>(?!))?$", _IGNORE)
_IS_KIN = re.compile(rf"(?P<name>{_NAME})\s+is\s+my\s+(?P<kin>{_KIN}){_AND_THEY}", _IGNORE)
_HAVE_KIN = re.compile(
    r"(?P<who>i|we)(?:\s+have|'ve\s+got|\s+have\s+got)\s+(?P<x>(?:an?|one|two|three|four|five|six|\d)\s+"
    r"(?:[\w-]+\s+){0,2}?"
    r"(?:kids?|child(?:ren)?|sons?|daughters?|brothers?|sisters?|siblings?|twins|dogs?|cats?|pets?|pupp(?:y"
    r"|ies)|kittens?|rabbits?"
    r"|hamsters?|parrots?|horses?|grand(?:child(?:ren)?|kids?|sons?|daughters?)|wife|husband|girlfriend"
    r"|boyfriend|roommates?)"
    rf"(?:\s+and\s+(?:an?|one|two|three)\s+\w+)?(?:,?\s+(?:named|called|aged)\s+.{{1,60}}|,\s+(?:{_NAME}|\w+)(?:,?\s+and\s+\w+))?)$",
    _IGNORE,
)
_ADOPTED = re.compile(
    r"(?:i|we)(?:'ve| have)?(?:\s+just|\s+recently)?\s+adopted\s+(?:an?|two|three)\s+(?:[\w-]+\s+){0,3}?"
    r"(?:dogs?|cats?|pupp(?:y|ies)|kittens?|rabbits?|child(?:ren)?|girl|boy|baby|greyhound|parrot)\b.{0,60}$",
    _IGNORE,
)
_MARRIED = re.compile(
    rf"i(?:'?m| am)\s+(?:happily\s+|recently\s+|newly\s+)?(?:married|engaged|divorced|widowed)"
    rf"(?:\s+to\s+{_NAME}|\s+with\s+\w+\s+(?:kids|children))?$",
    _IGNORE,
)

_NOW = r"i(?:'?m| am|'ve been| have been)(?:\s+(?:currently|now|also|still|actually|slowly|in the middle of))?\s+"
_TONGUES = "|".join(LANGUAGES)
_WORKS = (
    "app|application|game|website|site|platform|engine|library|compiler|language|tool|bot|chatbot|robot|startup"
    "|company|business|product"
    "|service|device|drone|house|cabin|boat|shed|synth\\w*|keyboard|pc|framework|plugin|extension|dashboard"
    "|database|simulator|editor"
    "|course|podcast|film|movie|documentary|album|channel|store|shop|assistant|model|system|prototype"
    "|curriculum|garden|guitar|telescope"
)
_PROJECT = re.compile(
    rf"(?P<all>{_NOW}(?:"
    rf"(?:building|developing|creating|designing|making|launching|programming|coding)\s+(?:an?|my(?:\s+own)?"
    rf"|our)\s+(?:[\w'#+.-]+\s+){{0,4}}(?:{_WORKS})\b.*?"
    r"|working on\s+(?:an?|my|our)\s+(?!(?:[\w-]+\s+){0,2}(?:bug|problem|issue|error|question|homework"
    r"|assignment|task|e-?mail|letter"
    r"|function|code|test|fix|ticket|query|line|puzzle|exercise|script|class|file|answer|response|reply)\b)\S.*?"
    r"|writing\s+(?:an?|my|our)\s+(?:[\w'-]+\s+){0,4}(?:book|novel|thesis|dissertation|memoir|screenplay"
    r"|textbook|blog|novella"
    r"|musical|cookbook|biography|paper|trilogy|newsletter|opera|symphony)\b.*?"
    rf"|learning\s+(?:(?:to|how to)\s+(?:play|swim|drive|code|program|cook|dance|sing|draw|paint|knit|sew|speak"
    rf"|ski|surf|sail|fly|read)\b.*?"
    rf"|(?:{_TONGUES})|{_NAME}|(?:the\s+)?(?:guitar|piano|violin|cello|drums|chess|calligraphy|pottery"
    rf"|sign language|machine learning"
    r"|statistics|data science|web development|programming|photography|carpentry))\b.*?"
    r"|(?:studying|training|preparing|practi[sc]ing)\s+for\s+(?:an?|the|my(?:\s+first)?|our)\s+"
    r"(?:[\w'-]+\s+){0,4}(?:exams?|test|bar|finals"
    r"|interviews?|marathon|race|wedding|competition|certificat\w+|triathlon|defen[cs]e|olympiad|audition"
    r"|ironman|trek|championship)\b.*?"
    r"|(?:planning|organi[sz]ing)\s+(?:an?|my|our)\s+(?:[\w'-]+\s+){0,3}(?:trip|wedding|move|vacation|holiday"
    r"|road trip|party|conference"
    r"|reunion|honeymoon|exhibition|retirement)\b.*?"
    r"))$",
    _IGNORE,
)
_MY_PROJECT = re.compile(
    r"my\s+(?:current\s+|new\s+|main\s+|side\s+|phd\s+|master'?s\s+|doctoral\s+)*(?:project|thesis|dissertation"
    r"|research|startup|novel"
    r"|podcast|band|blog)\s+is\s+(?:called|named|about|on|an?)\s+\S.*$",
    _IGNORE,
)
_TROUBLE = re.compile(
    r"\b(?:fails?|failed|failing|errors?|crash\w*|bugs?|stuck|(?:doesn|isn|won|don)'?t work\w*"
    r"|not working|on this|how|problem|today)\b",
    re.IGNORECASE,
)

_OCCASION = (
    r"(?:meetings?|interviews?|exams?|tests?|appointments?|flights?|weddings?|trips?|deadlines?|presentations?"
    r"|surger(?:y|ies)|operation"
    r"|part(?:y|ies)|concerts?|conferences?|dinner|match|race|marathon|vacation|holiday|visit|graduation"
    r"|ceremony|defen[cs]e|check-?up"
    r"|audition|recital|reunion|talk|lecture|finals?|midterms?|anniversary|move|train|hearing|performance"
    r"|hackathon|date|demo|review)"
)
_EVENTS = tuple(
    re.compile(pattern, _IGNORE)
    for pattern in (
        rf"(?:i|we)(?:'ve| have)(?:\s+got)?\s+(?:an?|my|our|the|two|three)\s+(?:[\w'-]+\s+){{0,4}}?{_OCCASION}\b.*$",
        rf"my\s+(?:[\w'-]+\s+){{0,3}}?{_OCCASION}\b(?:\s+(?:to|in|with|at|for)\s+[\w' -]{{2,40}}?)?\s+"
        r"(?:is|are|starts?|begins?|leaves?|takes place|will be)\s+\S.*$",
        r"(?:i|we)(?:'?m| am|'re| are|'ll be| will be)\s+(?:flying|travell?ing|going|moving|getting married"
        r"|graduating|visiting"
        r"|leaving for|starting"
        r"|having (?:surgery|an operation|a baby)|giving a (?:talk|speech|presentation)|presenting|hosting"
        r"|running a|retiring"
        r"|expecting (?:my|our|an?)|taking (?:the|my|an?)|defending|meeting|turning \d+)\b.*$",
    )
)
_RECURS = re.compile(
    r"\b(?:every|each|usually|always|often|sometimes|mondays|weekly|daily|monthly|might|maybe|if)\b", re.IGNORECASE
)

_DIET = re.compile(
    r"i\s+(?:can'?t|cannot|don'?t|do not|never)\s+(?:eat|drink)\s+"
    r"(?!(?:it|that|this|them|much|anything|now|at|until|before|any of)\b)\S.{1,60}$",
    _IGNORE,
)
_SKILL = re.compile(
    rf"i\s+(?:can\s+|also\s+)?speak\s+(?:fluent\s+|some\s+|a little\s+|a bit of\s+|native\s+)?"
    rf"(?:{_TONGUES})\b.{{0,60}}$"
    r"|i\s+(?:can\s+)?play\s+(?:the\s+)?(?:guitar|piano|violin|viola|cello|drums|bass|flute|clarinet|saxophone"
    r"|trumpet|harp|ukulele|tennis|golf"
    r"|football|soccer|basketball|badminton|chess|baduk|rugby|hockey|cricket|volleyball)\b.{0,60}$"
    r"|i\s+(?:drive|own|ride)\s+an?\s+(?:[\w'-]+\s+){0,3}[\w'-]+$"
    rf"|i\s+(?:was\s+)?(?:born|grew up|raised)\s+(?:and raised\s+)?in\s+{_PROPER}.{{0,40}}$"
    rf"|i\s+graduated\s+from\s+{_PROPER}.{{0,40}}$|i(?:'?m|\s+am)?\s+(?:major(?:ed|ing)?)\s+in\s+[\w ]{{3,40}}$",
    _IGNORE,
)


def find_life(span: Span) -> tuple[Finding, ...]:
    """One clause."""
    for rule in _FINDERS:
        found = rule(span)
        if found:
            return found
    return ()


def _one(
    kind: MemoryKind, text: str, span: Span, subject: str = "", valid_to: float | None = None
) -> tuple[Finding, ...]:
    stop = span.start + len(span.source)
    return (Finding(kind, text, span.start, stop, subject=subject, valid_to=valid_to),)


def _change(span: Span) -> tuple[Finding, ...]:
    """What was, until then, and what is, from then on."""
    day, bare = dates.strip_date(span.masked, span.at)
    for then, now, pattern in (*_CHANGES, ("Lived in", "Lives in", _MOVED_SMALL)):
        found = pattern.match(bare)
        if found is None or found["old"] == found["new"] or any(_no_place(found[group]) for group in ("old", "new")):
            continue
        when = day.start if day and day.start <= span.at else span.at
        stop = span.start + len(span.source)
        known = Finding(MemoryKind.IDENTITY, f"{now} {found['new']}.", span.start, stop, valid_from=when)
        if not found["old"]:
            return (known,)
        return Finding(MemoryKind.IDENTITY, f"{then} {found['old']}.", span.start, stop, valid_to=when), known
    return ()


def _no_place(words: str | None) -> bool:
    return bool(words) and any(word.lower().strip(".,") in NO_PLACES for word in (words or "").split())


def _was(span: Span) -> tuple[Finding, ...]:
    """'I used to live in Busan': over, at the latest when it is said."""
    day, bare = dates.strip_date(span.masked, span.at)
    found = _PAST.match(bare)
    if found:
        still = re.match(r"i\s+(?:don'?t|do not)\b", bare, re.IGNORECASE)
        if _no_place(found["x"]) or (still and "more" not in (found["end"] or "")):
            return ()
        verb = "Lived in" if found["verb"].lower().startswith("live") else "Worked at"
        over = day.start if day and day.start <= span.at else span.at
        return _one(MemoryKind.IDENTITY, f"{verb} {found['x']}.", span, valid_to=over)
    left = _LEFT.match(bare)
    if left and not _no_place(left["x"]):
        over = day.start if day and day.start <= span.at else span.at
        return _one(MemoryKind.IDENTITY, f"Worked at {left['x']}.", span, valid_to=over)
    since = _SINCE.match(span.masked)
    if since is None or _no_place(since["x"]):
        return ()
    began = day.start if day and day.start <= span.at else None
    verb = "Lives in" if since["verb"].lower().startswith("liv") else "Works at"
    stop = span.start + len(span.source)
    return (Finding(MemoryKind.IDENTITY, f"{verb} {since['x']}.", span.start, stop, valid_from=began),)


def _relation(span: Span) -> tuple[Finding, ...]:
    for pattern in (_KIN_NAME, _MY_KIN, _KIN_DAY):
        found = pattern.match(span.masked)
        if found:
            part = span.cut(0, found.end("all"))
            who = found["name"] or found["kin"].lower()
            return _one(MemoryKind.RELATION, to_third_person(_mine(part.source)), part, who)
    if _ADOPTED.match(span.masked):
        return _one(MemoryKind.RELATION, to_third_person(_mine(span.source)), span)
    named = _IS_KIN.match(span.masked)
    if named:
        text = f"{named['name']} is the user's {named['kin'].lower()}."
        return _one(MemoryKind.RELATION, text, span.cut(0, named.end("kin")), named["name"])
    have = _HAVE_KIN.match(span.masked)
    if have:
        words = with_they(span.source[have.start("x") : have.end("x")])
        return _one(MemoryKind.RELATION, as_sentence(f"has {words}"), span)
    return _one(MemoryKind.RELATION, to_third_person(span.source), span) if _MARRIED.match(span.masked) else ()


def _mine(words: str) -> str:
    """A household speaks through the user: 'we are going' is 'I am going'."""
    for group, own in ((r"^we(?:'re| are)\b", "I'm"), (r"^we\b", "I"), (r"\bour\b", "my"), (r"\bus\b", "me")):
        words = re.sub(group, own, words, flags=re.IGNORECASE)
    return words


def _project(span: Span) -> tuple[Finding, ...]:
    if _TROUBLE.search(span.masked) or not (_PROJECT.match(span.masked) or _MY_PROJECT.match(span.masked)):
        return ()
    return _one(MemoryKind.PROJECT, to_third_person(span.source), span)


def _event(span: Span) -> tuple[Finding, ...]:
    """Of a day to come, which the text tells in numbers; today is not worth it."""
    said = span
    day = dates.find_future_date(span.masked, span.at)
    if day is None or day.start <= span.at or _RECURS.search(span.masked):
        return ()
    words = span.source
    if day.text_start == 0 or span.masked[: day.text_start].strip().lower() in ("on", "in"):  # 'Tomorrow I have …'
        span = span.cut(day.text_end).strip(",")
        words = f"{span.source} {said.source[: day.text_end][:1].lower()}{said.source[1 : day.text_end]}"
    if not any(pattern.match(span.masked) for pattern in _EVENTS):
        return ()
    return _one(MemoryKind.EVENT, f"{to_third_person(_mine(words)).rstrip('.')} ({day.iso}).", said, valid_to=day.end)


def _other(span: Span) -> tuple[Finding, ...]:
    if _DIET.match(span.masked) or _SKILL.match(span.masked):
        return _one(MemoryKind.IDENTITY, to_third_person(span.source), span)
    return ()


_FINDERS: tuple[Callable[[Span], tuple[Finding, ...]], ...] = (_change, _was, _relation, _event, _project, _other)

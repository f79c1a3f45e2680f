"""Does a question ask for what was said in an earlier chat? English and Korean; knows no storage.

"What did we decide on Tuesday?" and "지난번에 뭐라고 했지?" do; "what did Napoleon decide?" does not.
"""

from __future__ import annotations

import re
from typing import Final

from server.words import normalize

MAX_CHARS: Final = 1000  # a longer message is a task with its own text

_SAID = (
    r"(?:say|said|tell|told|talk(?:ed)?|discuss(?:ed)?|decide[d]?|agree[d]?|conclude[d]?|suggest(?:ed)?|recommend(?:ed)?"
    r"|mention(?:ed)?|ask(?:ed)?|answer(?:ed)?|plan(?:ned)?|settle[d]?|choose|chose|pick(?:ed)?|explain(?:ed)?"
    r"|advise[d]?|come up with|came up with|speak|spoke|chat(?:ted)?|write|wrote|work(?:ed)? (?:on|out)|end(?:ed)? up)"
)
_CHAT = r"(?:chat|conversation|discussion|talk|session|time we (?:talked|spoke|chatted|discussed))"
_ENGLISH: Final = (
    # what did we decide on Tuesday; what did you tell me about it; when did I ask you about visas
    re.compile(
        rf"\b(?:what|which|when|where|why|how|who|whom)\b[^.?!]{{0,60}}\b(?:did|had|have|was it that)\s+(?:we|you|i)\s+"
        rf"(?:\w+\s+){{0,2}}?{_SAID}\b"
    ),
    re.compile(rf"\bdid (?:we|you|i) (?:ever |already |not )?{_SAID}\b"),
    re.compile(rf"\bwhat (?:was|were) (?:it )?(?:that )?(?:we|you|i) {_SAID}\b"),
    re.compile(rf"\b(?:our|my|the|a|an) (?:last|previous|earlier|past|other|old|recent|yesterday's) {_CHAT}s?\b"),
    re.compile(rf"\b(?:in|from|during) (?:an?|some) (?:earlier|previous|other|another|old|past|last) {_CHAT}s?\b"),
    re.compile(
        rf"\b(?:as|like|what|the \w+) (?:we|you|i) (?:\w+ly )?{_SAID} (?:about|on|last|yesterday|earlier|before)\b"
    ),
    re.compile(rf"\b(?:last time|yesterday|the other day|earlier|before),? (?:we|you|i) {_SAID}\b"),
    re.compile(
        rf"\b(?:remind me|do you (?:remember|recall)) (?:what|which|when|where|why|how|that)\b[^.?!]{{0,40}}"
        rf"\b(?:we|you|i)\b[^.?!]{{0,20}}\b{_SAID}\b"
    ),
    re.compile(r"\b(?:continue|pick up) (?:where we|from where we|our)\b"),
)  # fmt: skip
_PAST_KOREAN = (
    r"(?:지난\s*번|저번|접때|예전|이전|전에|아까|어제|그제|그저께|엊그제|지난\s*(?:주|달|해|월|화|수|목|금|토|일)|작년"
    r"|[월화수목금토일]요일|그때|\d+\s*(?:일|주|달|개월|시간)\s*전|\d+월\s*\d+일|며칠\s*전|얼마\s*전|최근)"
)
_SAID_KOREAN = (
    r"(?:(?:뭐|무엇을?|뭘|무슨|어떤|어떻게|언제|어디|왜|누구|몇)\S*(?:\s+\S+){0,4}?\s*(?:했|말했|얘기했|이야기했|그랬|정했|결정했"
    r"|하기로|정하기로|추천했|물어봤|물었|알려\s*줬|합의했|논의했|골랐|설명했|답했|대답했|말씀하셨|하셨|제안했))"
)
_KOREAN: Final = (
    re.compile(rf"{_PAST_KOREAN}.{{0,60}}(?:{_SAID_KOREAN}|하기로\s*했)"),
    re.compile(rf"(?:우리|네가|니가|당신이|내가|제가|너).{{0,40}}{_SAID_KOREAN}"),
    re.compile(r"^(?:근데\s*|그런데\s*|그럼\s*|혹시\s*)?(?:뭐라고|무엇이라고|뭐라\s*그랬|어떻게\s*하기로)\s*(?:했|하기로\s*했|말했|그랬|하셨|말씀)"),
    re.compile(rf"{_PAST_KOREAN}.{{0,30}}(?:대화|채팅|얘기|이야기|말한|말했던|얘기한|얘기했던|정한|결정한|추천한|추천해\s*준|나눈)"),
    re.compile(r"(?:우리가?|너랑|너와)\s.{0,30}(?:얘기했|이야기했|정했|결정했|논의했|하기로\s*했|나눴)\S*(?:지|었지|나|니|더라|잖아|던)"),
)  # fmt: skip


def asks_for_chats(question: str) -> bool:
    """True where the user wants what was said before, not what is so in the world."""
    text = " ".join(normalize(question, "NFC").lower().replace("’", "'").split())
    if not text or len(text) > MAX_CHARS:
        return False
    return any(pattern.search(text) for pattern in (*_ENGLISH, *_KOREAN))

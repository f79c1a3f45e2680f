"""How much a passage reads like a prompt injection: an instruction to a language model instead of a text for people.

Documents are data, but whoever writes one can address the model that will read it ("ignore the above and …").
Each rule has a weight; the score is 1 - Π(1 - weight) over the rules that a text matches, in 0..1. Rules ask for more
than one thing at once (an order *and* the answer it is about), so that prose, forms and e-mail rarely match any.
English and Korean. An order that a person could give another ("translate this letter") matches no rule and is not
found. Pure functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from server.words import normalize

MAX_CHARS: Final = 20_000  # of a passage

_SPAN = r"(?:[^.!?\n]|\.(?=\w))"  # within one sentence
_START = r"(?:^|[.!?:;\"“'(>*,-]\s*|\b(?:please|kindly|must|should|to|and|then|now|also|just|completely)\s+)"
_ORDER = (
    r"(?:add|append|apply|augment|begin|convert|display|embed|encode|encrypt|end|enhance|express|finish|hide|highlight|"
    r"include|incorporate|inject|insert|integrate|introduce|invert|mention|modify|output|place|prepend|present|print|"
    r"promote|provide|put|render|repeat|rephrase|replace|reverse|rewrite|say|shift|slip|start|state|substitute|suggest|"
    r"translate|use|weave|write)"
)
_ANSWER = r"(?:answers?|responses?|reply|replies|output|completion|summary)"
# What people ask each other for: "please include your order number in your reply", "write your answer in the box"
_FOR_PEOPLE = (
    r"(?!\s+(?:your|the|an?|this|any)\s+(?:[\w-]+\s+){0,3}(?:numbers?|names?|address|details|id|e-?mail|phone|dates?|"
    r"signature|photos?|codes?|reference|receipt|invoice|cv|resume)\b)"
)
_ON_PAPER = r"(?!\s+(?:on|in|into|under|beside)\s+(?:the|a)\b|\s+(?:below|here|within)\b)"
_LANGUAGE = (
    r"(?:english|french|spanish|german|italian|portuguese|korean|japanese|chinese|russian|arabic|latin|reverse|capitals?|"
    r"uppercase|emojis?|base ?\d+|morse|json|rhymes?|code)\b"
)
_KO_ORDER = (
    r"(?:하라|해라|하세요|하십시오|하시오|해 ?줘|해 ?주세요|할 것|으라|으세요|으십시오|으시오|어라|아라|어 ?줘"
    r"|[어아] ?주세요)"
)


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    weight: float
    prefilter: re.Pattern[str]  # cheap: without one of these words the pattern is not tried
    pattern: re.Pattern[str]


def _rule(name: str, weight: float, prefilter: str, *patterns: str) -> _Rule:
    whole = "|".join(f"(?:{pattern})" for pattern in patterns)
    return _Rule(name, weight, re.compile(prefilter), re.compile(whole, re.IGNORECASE | re.MULTILINE))


RULES: Final = (
    _rule(
        "takes back instructions", 0.9,
        r"ignore|disregard|forget|override|bypass|discard|do not|무시|잊|따르지|버리|취소",
        rf"{_START}(?:ignore|disregard|forget|override|bypass|discard)\b{_SPAN}{{0,30}}\b(?:previous|prior|above|preceding|"
        rf"earlier|foregoing|other|initial|original|system|your|all)\b{_SPAN}{{0,30}}\b(?:instruct\w*|prompts?|rules|"
        r"directions|directives|guidelines|commands|programming)\b",
        rf"{_START}(?:ignore|disregard|forget)\s+(?:everything|anything|what)\b{_SPAN}{{0,25}}"
        r"\b(?:above|before|told|previous\w*|so far)\b",
        rf"\bdo not (?:follow|obey)\b{_SPAN}{{0,30}}\b(?:previous|prior|above|system|original)\b{_SPAN}{{0,20}}"
        r"\b(?:instructions?|prompts?|rules)\b",
        rf"(?:이전|위의?|앞(?:선|의|서)?|지금까지의?|기존의?|모든|원래)\s?{_SPAN}{{0,20}}"
        rf"(?:지시|명령|지침|프롬프트|규칙|설정){_SPAN}{{0,15}}(?:무시|잊|따르지|버리|취소)",
    ),
    _rule(
        "marks of a chat", 0.9, r"<|\[|#|system|assistant",
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|?>", r"\[/?INST\]",
        r"<<\s*/?SYS\s*>>", r"^\s*#{2,}\s*(?:system|instruction|response)s?\s*:?\s*$", r"</?(?:system|assistant)>",
        r"^\s*(?:system|assistant)\s*(?:prompt|message)?\s*:\s+"
        r"(?:you|the assistant|ignore|from now|always|never|please|do|answer|respond|reply|follow)\b",
    ),
    _rule(
        "orders the answer", 0.6, r"answer|respon|repl|output|completion|summary|답|응|출력",
        rf"(?:{_START}|\b(?:can|could|will)\s+you\s+|\byou\s+(?:will|have to|need to)\s+)"
        rf"{_ORDER}\b{_FOR_PEOPLE}{_SPAN}{{0,70}}\byour\s+(?:\w+\s+)?{_ANSWER}\b{_ON_PAPER}",
        rf"\b(?:in|to|with|of|at the (?:end|beginning|start) of)\s+your\s+(?:\w+\s+)?{_ANSWER}\b{_SPAN}{{0,15}},\s*"
        rf"(?:please\s+)?{_ORDER}\b{_FOR_PEOPLE}",
        rf"\badd\s+[\"“'][^\n]{{3,160}}[\"”']\s+to\s+your\s+{_ANSWER}\b",
        rf"(?:{_START}|\b(?:can|could)\s+you\s+)(?:reply|respond|answer)\s+(?:only\s+)?"
        rf"(?:in\s+{_LANGUAGE}|(?:with|using)\s+(?:only\s+|nothing but\s+)?"
        rf"(?:{_LANGUAGE}|[\"“']|the (?:words?|phrase|sentence)))",
        r"(?:답변|응답|대답|회답|출력)(?:의)?\s?(?:끝|마지막|처음|앞|뒤)?(?:에|을|를|은|마다|에는|에서|으로)"
        rf"{_SPAN}{{0,45}}{_KO_ORDER}",
        r"(?:[가-힣]+어|이모지|json|base ?\d+|대문자|한 단어)(?:으로|로)만\s?(?:답|대답|응답|답변)"
        rf"{_SPAN}{{0,4}}{_KO_ORDER}",
    ),
    _rule(
        "speaks to a model", 0.55, r"ai|llm|gpt|model|chatbot|assistant|인공지능|챗봇|모델|어시스턴트",
        rf"\b(?:dear|hey|attention|note to|notice to|message (?:to|for)|instructions? (?:to|for))\b{_SPAN}{{0,20}}"
        r"\b(?:AI|LLM|GPT|chatbot|language model|AI assistant|assistant model)s?\b",
        r"\bif you are (?:an? )?(?:AI|LLM|GPT|chatbot|(?:large )?language model|(?:AI |virtual )assistant)\b"
        r"(?! (?:developer|engineer|researcher|company|user|train))",
        r"^\W*(?:AI|assistant|chatbot|LLM|GPT|ChatGPT|language model)\s*[,:]\s*"
        r"(?:please|you|do|ignore|always|never|from now)\b",
        r"(?:AI|인공지능|챗봇|언어 ?모델|어시스턴트|LLM|GPT)\s?(?:비서|모델|어시스턴트|에이전트)?"
        rf"(?:에게\s*[:,]|[아야][,!]|이?라면{_SPAN}{{0,40}}{_KO_ORDER})",
    ),
    _rule(
        "gives a role", 0.55,
        r"now|mode|as |like|pretend|instruction|prompt|directive|너|넌|당신|지금|이제|새로운",
        r"\b(?:you are|you're) now (?:(?:an? |the )?(?:\w+ )?"
        r"(?:AI|assistant|chatbot|model|bot|pirate|hacker|expert)\b|called |named |"
        r"in (?:developer|debug|god|jailbreak) mode|free (?:of|from) (?:all |any )?(?:rules|limits|restrictions)|"
        r"(?-i:[A-Z]{3,})\b)",
        r"\bfrom now on,?\s+(?:you (?:are|answer|respond|reply|speak|obey|act)|your (?:name|role|answers?|task)|answer|"
        r"respond|reply|speak|act)\b",
        rf"{_START}(?:act|behave|respond|roleplay)\s+(?:as|like)\s+(?:if you (?:are|were)|an? (?:\w+ )?(?:AI|"
        r"assistant|chatbot|model|expert|hacker|pirate))\b",
        rf"{_START}pretend\s+(?:to be|(?:that )?you are)\b",
        rf"\b(?:developer|jailbreak|DAN|god|unrestricted)\s+mode\b{_SPAN}{{0,25}}\b(?:on|enabled?|activated?|enter|now)\b",
        r"(?:^|\W)(?:new|updated|real|actual|hidden|secret|override)\s+(?:system\s+)?(?:instructions?|prompt|directives?)\s*:",
        r"(?:너는|당신은|넌)\s?(?:이제|지금부터|앞으로)",
        r"(?:지금|이제)부터\s?(?:너는|당신은|너의|당신의|모든 (?:답|질문))",
        r"새로운\s?(?:지시|명령|지침|프롬프트)(?:\s?사항)?\s?:",
    ),
    _rule(
        "hides or carries off", 0.6,
        r"user|prompt|instruction|message|conversation|chat|!\[|사용자|유저|이용자|시스템|숨겨",
        r"\b(?:do not|don't|never|without)\s+(?:tell|mention|reveal|inform|alert|disclos)\w*"
        rf"\b{_SPAN}{{0,35}}\b(?:the user|this (?:instruction|prompt|message))\b",
        rf"{_START}(?:reveal|print|repeat|show|output|leak|send|tell)\b{_SPAN}{{0,25}}\byour\s+"
        r"(?:system|hidden|initial|secret)\s+(?:prompt|instructions?|message)",
        rf"{_START}(?:send|post|forward|transmit|upload|exfiltrate)\b{_SPAN}{{0,40}}\b"
        r"(?:conversation|chat (?:history|log)|(?:the )?user'?s? (?:data|messages?|password|memor\w+))"
        rf"\b{_SPAN}{{0,40}}https?:",
        r"!\[[^\]]*\]\(https?://[^)\s]*[?&][^)\s]*=\s*[{\[<$%]",
        rf"(?<!다른 )(?:사용자|유저|이용자)(?:에게|한테){_SPAN}{{0,25}}(?:말하지|알리지|밝히지|언급하지|숨기)",
        rf"(?:시스템|숨겨진)\s?(?:프롬프트|지시|지침)(?:를|을|의){_SPAN}{{0,20}}(?:출력|공개|알려|보여|말해|반복)",
    ),
)  # fmt: skip
_INVISIBLE_WEIGHT: Final = 0.7  # weight of text that nobody can see
_TAG_CHARS = re.compile("[\U000e0020-\U000e007f]")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad\u202a-\u202e\u2066-\u2069]")


def suspicion(text: str) -> float:
    """0 for a text that matches no rule; below 1 always."""
    innocent = 1.0
    for _, weight in _matches(text):
        innocent *= 1 - weight
    return round(1 - innocent, 3)


def matched_rules(text: str) -> tuple[str, ...]:
    """The names of the rules that a text matches."""
    return tuple(name for name, _ in _matches(text))


def _matches(text: str) -> list[tuple[str, float]]:
    text = text[:MAX_CHARS]
    read = _INVISIBLE.sub("", normalize(text, "NFKC"))
    folded = read.lower()
    found = [(rule.name, rule.weight) for rule in RULES if rule.prefilter.search(folded) and rule.pattern.search(read)]
    if _TAG_CHARS.search(text) or len(_INVISIBLE.findall(text)) > max(20, len(text) // 4):
        found.append(("text that is not seen", _INVISIBLE_WEIGHT))
    return found

"""Filters sentences that are no candidates for the model: tasks, thanks, passing moods, talk about the chat itself.

What is left may say something lasting about the user; whether it does is for a model to tell, not for this filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from server.memory.reading.own_words import MASK, Span, sentences
from server.memory.reading.sensitive import is_prompt_injection, is_sensitive

MAX_SENTENCES = 12
MIN_CHARS, MAX_CHARS = 8, 300

_SELF = re.compile(r"\b(?:i|i'?m|i've|i'd|i'll|my|mine|me|myself|we|we're|we've|our|ours)\b", re.IGNORECASE)
_TASK = re.compile(
    r"(?:(?:hi|hello|hey|ok|okay|so|well|please|thanks|thank you|sorry|yes|no|and|but)\b[\s,.!]*)*"
    r"(?:(?:can|could|would|will|should|do|does|did|is|are|what|how|why|when|where|which|who) |let me\b|let's\b"
    r"|(?:please |kindly )?(?:write|give|show|tell|explain|make|list|help|fix|translate|summari[sz]e|find|check"
    r"|compare"
    r"|suggest|recommend|create|generate|draft|rewrite|describe|add|remove|change|convert|try|use|answer|continue)\b"
    r"|i(?:'d| would)? (?:just |really |also |still )?(?:want|need|would like|like you|think|guess|hope|wish"
    r"|wonder|mean|see"
    r"|understand|agree|know|don'?t (?:know|understand|get|see|think|want|need|care|mind)|didn'?t|can'?t|cannot"
    r"|couldn'?t"
    r"|asked|said|meant|tried|got an?|keep getting|get an?|forgot|have (?:a|another|one|some) (?:\w+ )?"
    r"(?:question|problem"
    r"|issue|error|idea|request|doubt)|appreciate|was wondering|saw|heard|found|noticed|feel)\b"
    r"|i'?m (?:just |still |really |so |a bit |also )?(?:trying|looking|getting|wondering|confused|sorry|sure"
    r"|not sure|stuck"
    r"|curious|afraid|asking|thinking|tired|hungry|bored|happy|sad|glad|fine|good|ok|okay|back|here|done|ready"
    r"|late|lost"
    r"|having|interested|worried|busy|about to|going to (?:ask|try|use|need))\b"
    r"|i'?d (?:like|love|rather|say)\b|i'll\b"
    r"|my (?:question|problem|point|code|error|bad|guess|mistake|file|script|query)\b)",
    re.IGNORECASE,
)
_MOMENT = re.compile(
    r"\b(?:right now|at the moment|just now|this error|this code|above|below|your answer|you said)\b", re.IGNORECASE
)
_KOREAN_TASK = re.compile(
    r"(?:줘요?|주세요|주라|줄래요?|주실래요|주시겠어요|할까요?|인가요?|나요|까요?|니|냐|을래요?|자|봐요?|보세요"
    r"|하세요|하라|해라)$"
    r"|고\s*싶|궁금|모르겠|감사|고마|미안|죄송|알겠|이해(?:했|가)|안녕|괜찮|배고|졸려|피곤|심심|힘들|맞아"
    r"|그래요?$|네요$|군요$|지요?$|거든"
)
_KOREAN_STATES = re.compile(r"(?:요|다|어|아|야|해|음|임|지|고|데)$")


def candidates(text: str) -> Iterator[Span]:
    """The user's own sentences that may be worth keeping, in order. `text` is `reading.clean`."""
    count = 0
    for span in sentences(text):
        if count == MAX_SENTENCES:
            return
        if not is_trivia(span):
            count += 1
            yield span


def is_trivia(span: Span) -> bool:
    text = span.masked.strip()
    if span.question or not MIN_CHARS <= len(text) <= MAX_CHARS or MASK in text or _MOMENT.search(text):
        return True
    if is_sensitive(span.source) or is_prompt_injection(span.source):
        return True
    if span.korean:
        return _KOREAN_TASK.search(text) is not None or _KOREAN_STATES.search(text) is None
    return _TASK.match(text) is not None or _SELF.search(text) is None

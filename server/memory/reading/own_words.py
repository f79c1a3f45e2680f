"""Which parts of a message are the user's own statements, cut into sentences.

Code, quotations, quoted lines and what follows a task ("Translate this: …") are other people's words.
They are masked, not cut, so every position stays the message's own. All of it is linear in the text.
Knows nothing of what a statement means.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from server import words

MASK = "\ufffc"
READ_CHARS = 4_000  # from each end of a long message: what lies between is pasted material
SENTENCE_CHARS = 2_000  # a longer run without an end is no statement
WRAP_CHARS = 50  # a line this long that goes on in lower case was wrapped, not ended
MIN_CHARS = 4  # nor is a shorter one

# An opener may not stand inside its own quotation, or many of them without an end would cost a scan each.
_QUOTED = re.compile(
    r'"[^"\n]*"|“[^“”\n]*”|„[^„“”\n]*[“”]|«[^«»\n]*»|「[^「」\n]*」|『[^『』\n]*』|《[^《》\n]*》|`[^`\n]+`'
    r"|(?<!\w)'[^'\n]{1,300}'(?![A-Za-z0-9_])|(?<!\w)‘[^‘’\n]{1,300}’(?![A-Za-z0-9_])"
)
_QUOTED_LINE = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
_END_MARKS = ".!?。！？…~"

_TASK = re.compile(
    r"\s*(?:please\s+|can you\s+|could you\s+|help me\s+)*"
    r"(?:translat|summari[sz]|rewrit|proofread|paraphras|rephras|correct|fix|edit|improv|polish|analy[sz]|classif"
    r"|review|check|explain|shorten|simplif|convert|format|continu|complete|extract|find|label|read"
    r"|here(?:'s| is| are))"
    r"\w*\b.*\b(?:this|these|following|below|text|sentences?|paragraph|e-?mail|letter|essay|message|passage|poem|lyrics"
    r"|story|article|review|conversation|dialogue|code|log|grammar|into|to)\b",
    re.IGNORECASE,
)
_KOREAN_TASK = re.compile(
    r"(?:다음|아래|이|위)\s*(?:글|문장|텍스트|내용|메일|이메일|편지|문단|대화|리뷰|시|가사|코드|단락|것|걸|거)?"
    r"[을를은는의이]?\s.*(?:번역|요약|교정|고쳐|다듬|수정|분석|분류|바꿔|바꾸|첨삭|설명|읽어|검토)"
)
_ROLE_PLAY = re.compile(
    r"\s*(?:let's (?:play|pretend|imagine)|imagine|pretend|suppose|role-?play|in this (?:story|game|scene|role)"
    r"|you are now\b|act as\b)|.*(?:상황극|역할극|역할을 (?:해|맡)|연기해|척 ?해)",
    re.IGNORECASE,
)
# What may come before a colon in a statement of one's own.
_OWN_LABEL = re.compile(
    r"(?:remember|forget|note|about me|about myself|fyi|p\.?\s?s\.?|btw|by the way|from now on|always|please|name"
    r"|moved|new job|news|update"
    r"|기억|잊지|앞으로|참고|소개|저에 대해|나에 대해|이름|항상|이사했|이사 왔|이직|근황|소식)[^:：]{0,40}$",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[:：](?=\s|$|[가-힣A-Za-z\ufffc])(?!//)")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the message. `masked` and `source` are of one length; `start` is where it stands."""

    masked: str
    source: str
    start: int
    mark: str = ""  # the punctuation that ends the sentence
    at: float = 0.0  # when it was said, in seconds since 1970

    def cut(self, start: int, end: int | None = None) -> Span:
        end = len(self.masked) if end is None else end
        return replace(self, masked=self.masked[start:end], source=self.source[start:end], start=self.start + start)

    def strip(self, extra: str = "") -> Span:
        """Without white space and the characters of `extra` at both ends."""
        chars = " \t\r\n" + extra
        left = len(self.masked) - len(self.masked.lstrip(chars))
        return self.cut(left, max(left, len(self.masked.rstrip(chars))))

    @property
    def question(self) -> bool:
        return "?" in self.mark or "？" in self.mark

    @property
    def korean(self) -> bool:
        return words.has_hangul(self.masked)


def clean(text: str) -> str:
    """NFC, without lone surrogates, which neither SQLite nor a tokenizer takes."""
    return words.normalize(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), "NFC")


def sentences(text: str, at: float | None = None) -> Iterator[Span]:
    """The user's own sentences, in order, said at `at` (None: now). `text` is clean()."""
    masked, said_at = mask(text), time.time() if at is None else at
    for window in _windows(masked):
        for span in _split(masked, text, window):
            if _introduces(span, text):
                return  # what follows is the task's material
            yield replace(span, at=said_at)


def mask(text: str) -> str:
    """`text` with code, quoted lines and quotations replaced character by character."""
    pieces, done = [], 0
    for start, end in words.markdown.fenced_code(text):
        pieces += [text[done:start], MASK * (end - start)]
        done = end
    bare = "".join([*pieces, text[done:]])
    for pattern in (_QUOTED_LINE, _QUOTED):
        bare = pattern.sub(lambda match: MASK * len(match[0]), bare)
    return bare.replace("’", "'")


def _windows(masked: str) -> list[tuple[int, int]]:
    if len(masked) <= 2 * READ_CHARS:
        return [(0, len(masked))]
    return [(0, READ_CHARS), (len(masked) - READ_CHARS, len(masked))]


def _split(masked: str, source: str, window: tuple[int, int]) -> Iterator[Span]:
    """Sentences that lie whole inside the window."""
    start, stop = window
    for begin, end in words.sentences(masked, start, stop, wrapped_from=WRAP_CHARS):
        if (begin > start or start == 0) and (end < stop or stop == len(masked)):
            whole = masked[begin:end].rstrip()
            inner = whole.rstrip(_END_MARKS)
            yield from _span(masked, source, begin, begin + len(inner), whole[len(inner) :])


def _span(masked: str, source: str, start: int, end: int, mark: str) -> Iterator[Span]:
    if end - start <= SENTENCE_CHARS:
        span = Span(masked[start:end], source[start:end], start, mark).strip()
        if len(span.masked) >= MIN_CHARS:
            yield span


def _introduces(span: Span, text: str) -> bool:
    """Whether the sentence hands over material (a task on 'this', a label with something after it) or opens
    a play, in which 'I' is somebody else."""
    if _ROLE_PLAY.match(span.masked):
        return True
    task = _TASK.match(span.masked) or _KOREAN_TASK.search(span.masked)
    label = _LABEL.search(span.masked)
    if label and not _OWN_LABEL.search(span.masked, 0, label.start()):
        return True
    after = text[span.start + len(span.masked) :].lstrip(".!?。~ \t")
    return bool(task) and (label is not None or after.startswith("\n"))

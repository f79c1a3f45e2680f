"""Where sentences end, in English, Korean, Chinese and Japanese. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Where a sentence ends: after a Western stop and a space (closing quotes in between), after an
# East Asian stop, after a Korean polite or formal ending without a stop, and at a line break unless
# the next line goes on in lower case.
_SENTENCE_END = re.compile(
    r"""(?<=[.!?…])["'”’»)\]]*\s+"""
    r"""|(?<=[。！？｡])["'”’」』）】]*\s*"""
    r"""|(?<=니다|니까|세요|어요|아요|해요|예요|에요|네요|까요|지요|군요)\s+"""
    r"""|\n+(?![a-zà-öø-ÿа-я])"""
)
_NOT_AN_END = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|No|vs|etc|Fig|e\.g|i\.e|cf|approx)|(?:^|\n)\s*\d+)\.\s+$"
)


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of sentences, without the space between them."""
    for match in _SENTENCE_END.finditer(text, start, end):
        closing = match.start() + len(match[0].rstrip())
        if closing <= start or _NOT_AN_END.search(text, max(start, match.start() - 12), match.end()):
            continue
        if match.end() >= end:
            break
        yield start, closing
        start = match.end()
    yield start, end

"""Where sentences end, in English, Korean, Chinese and Japanese, in documents, answers and chats. Pure functions.

After a Western stop and a space (closing quotes in between), or between two Korean syllables (좋아요.그리고); after an
East Asian stop; after a Korean polite or formal ending without a stop, or with a tilde, unless it is reported (…어요
라고); and at a line break unless the next line goes on in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# 습니까, 합니까, … end a sentence; 하니까, 좋으니까 (because) do not: the syllable before has a final ㅂ, or has not.
_FINAL_B = "".join(chr(code) for code in range(0xAC00, 0xD7A4) if (code - 0xAC00) % 28 == 17)
_POLITE = rf"(?:(?<=니다)|(?<=[{_FINAL_B}]니까)|(?<=[아어여에예해세네까지군워와줘래려돼봐]요))"
_REPORTED = r"(?!(?:라고|라는|라며|하고|고 |그러|그랬|했|말했|그런))"
_END = re.compile(
    r"""(?<=[.!?…])["'”’»)\]]*\s+"""
    r"""|(?<=[가-힣][.!?])(?=[가-힣])"""
    r"""|(?<=[。！？｡])["'”’」』）】]*\s*"""
    rf"""|{_POLITE}\s+{_REPORTED}"""
    r"""|(?<=[요다죠네지까음임함])~+\s+"""
    r"""|(?P<line>\n+)"""
)
_ABBREVIATED = re.compile(
    r"(?:\b(?:[A-Za-z]|St|(?i:Mrs?|Ms|Dr|Prof|Jr|Sr|vs|etc|e\.g|i\.e|cf|approx))|(?:^|\n)\s*\d+)\.\s+$"
)
_NUMBERED = re.compile(r"\b(?:No|Nos|Fig|Art|Sec|p|pp)\.\s+$")  # where a number follows


def sentences(text: str, start: int = 0, end: int | None = None, *, wrapped_from: int = 0) -> Iterator[tuple[int, int]]:
    """Spans of sentences from `start` to `end`, without the space between them. `wrapped_from`: a line must be so long
    for one that begins in lower case to go on with it; in chats short ones stand alone."""
    end = len(text) if end is None else end
    for match in _END.finditer(text, start, end):
        closing = match.start() + len(match[0].rstrip())
        if closing <= start or _is_abbreviation(text, max(start, match.start() - 12), closing, match.end()):
            continue
        if match["line"] and match.start() - start >= wrapped_from and text[match.end() : match.end() + 1].islower():
            continue
        if match.end() >= end:
            break
        yield start, closing
        start = match.end()
    yield start, end


def _is_abbreviation(text: str, start: int, closing: int, following: int) -> bool:
    """Whether the stop before `closing` shortens a word or stands behind a list's number."""
    space = min(closing + 1, following)  # one is enough to see
    if _NUMBERED.search(text, start, space):
        return text[following : following + 1].isdigit()
    return _ABBREVIATED.search(text, start, space) is not None

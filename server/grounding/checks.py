"""The results of checking an answer against its passages. Frozen, without behaviour beyond small sums."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Citation:
    """`[n]` in the answer, and the passage it points to."""

    n: int
    passage_id: str


class Verdict(StrEnum):
    """The result for a sentence that was checked against the passages."""

    SUPPORTED = "supported"
    CORRECTED = "corrected"  # another passage than the cited one supports it
    DROPPED = "dropped"  # what it cites does not support it, and nothing else does
    UNSUPPORTED = "unsupported"  # it cites nothing, and nothing supports it
    NOTHING = "nothing"  # a greeting, a question, a heading, "I found nothing"
    UNCHECKED = "unchecked"  # in a language that cannot be compared with the passages', or far down a long answer


@dataclass(frozen=True, slots=True)
class CheckedMark:
    """Where in the answer numbers are cited, and those that should be shown there instead. One that the model
    left out has `start` = `end` and cites nothing."""

    start: int
    end: int
    cited: tuple[int, ...]
    shown: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Support:
    """How well passage `n` supports a sentence, 0 to 1; its lines from `start` to `end` (in the passage's text) do."""

    n: int
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SentenceCheck:
    """One sentence of an answer. Offsets count Unicode characters of the answer; both ends as in a slice."""

    start: int
    end: int
    verdict: Verdict
    marks: tuple[CheckedMark, ...] = ()
    support: tuple[Support, ...] = ()

    @property
    def cited(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(n for mark in self.marks for n in mark.cited))

    @property
    def shown(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(n for mark in self.marks for n in mark.shown))

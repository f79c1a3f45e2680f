"""Tells a model's thinking from its answer while the text streams. Knows nothing of tokens."""

from __future__ import annotations

from enum import Enum

from server.prompting.constraint import THINK_CLOSE, THINK_OPEN


class _State(Enum):
    START = "start"  # nothing but blanks so far
    THINKING = "thinking"
    GAP = "gap"  # the line break after the closing tag
    ANSWER = "answer"


class ReasoningSplitter:
    """Takes the text piece by piece, wherever the pieces break. One per answer.

    Text that does not open with `<think>` is all answer. What could still become a tag is buffered
    until the next piece, or `flush`.
    """

    def __init__(self) -> None:
        self._state = _State.START
        self._buffer = ""

    def feed(self, text: str) -> tuple[str, str]:
        """(reasoning, answer) that this piece completes; either may be ''."""
        self._buffer += text
        reasoning = ""
        if self._state is _State.START:
            self._detect_opening()
        if self._state is _State.THINKING:
            reasoning = self._take_thinking()
        if self._state is _State.GAP:
            self._buffer = self._buffer.lstrip()
            if self._buffer:
                self._state = _State.ANSWER
        answer = ""
        if self._state is _State.ANSWER:
            answer, self._buffer = self._buffer, ""
        return reasoning, answer

    def flush(self) -> tuple[str, str]:
        """What is still buffered at the end of the stream; the splitter is empty after it."""
        rest, self._buffer = self._buffer, ""
        if self._state is _State.GAP:
            return "", ""
        return (rest, "") if self._state is _State.THINKING else ("", rest)

    def _detect_opening(self) -> None:
        stripped = self._buffer.lstrip()
        if stripped.startswith(THINK_OPEN):
            self._buffer = stripped.removeprefix(THINK_OPEN)
            self._state = _State.THINKING
        elif not THINK_OPEN.startswith(stripped):
            self._state = _State.ANSWER

    def _take_thinking(self) -> str:
        thought, closing, rest = self._buffer.partition(THINK_CLOSE)
        if closing:
            self._state, self._buffer = _State.GAP, rest
            return thought
        possible = _overlap(self._buffer, THINK_CLOSE)
        self._buffer = thought[len(thought) - possible :]
        return thought[: len(thought) - possible]


def _overlap(text: str, closing: str) -> int:
    """How many characters at the end of `text` could begin `closing`."""
    return next((n for n in range(min(len(text), len(closing) - 1), 0, -1) if text.endswith(closing[:n])), 0)

"""Tells a model's thinking from its answer while the text streams. Knows nothing of tokens."""

from __future__ import annotations

from enum import Enum

from server.prompting.constraint import THINK_CLOSE, THINK_OPEN


class _State(Enum):
    START = "start"        # nothing but blanks so far
    THINKING = "thinking"
    GAP = "gap"            # the line break after the closing mark
    ANSWER = "answer"


class ReasoningSplitter:
    """Feed it the text piece by piece, wherever the pieces break; not to be shared between answers.

    Text that does not open with `<think>` is all answer. What could still become a mark is held back
    until the next piece, or `flush`.
    """

    def __init__(self) -> None:
        self._state = _State.START
        self._held = ""

    def feed(self, text: str) -> tuple[str, str]:
        """(reasoning, answer) that this piece completes; either may be ''."""
        self._held += text
        reasoning = ""
        if self._state is _State.START:
            self._open()
        if self._state is _State.THINKING:
            reasoning = self._think()
        if self._state is _State.GAP:
            self._held = self._held.lstrip()
            if self._held:
                self._state = _State.ANSWER
        answer = ""
        if self._state is _State.ANSWER:
            answer, self._held = self._held, ""
        return reasoning, answer

    def flush(self) -> tuple[str, str]:
        """What was held back at the end of the stream; the splitter is empty after it."""
        held, self._held = self._held, ""
        if self._state is _State.GAP:
            return "", ""
        return (held, "") if self._state is _State.THINKING else ("", held)

    def _open(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(THINK_OPEN):
            self._held = begun.removeprefix(THINK_OPEN)
            self._state = _State.THINKING
        elif not THINK_OPEN.startswith(begun):
            self._state = _State.ANSWER

    def _think(self) -> str:
        thought, mark, rest = self._held.partition(THINK_CLOSE)
        if mark:
            self._state, self._held = _State.GAP, rest
            return thought
        keep = _overlap(self._held, THINK_CLOSE)
        self._held = thought[len(thought) - keep :]
        return thought[: len(thought) - keep]


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` could begin `mark`."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)

"""Turns tokens into text that can be shown: whole characters only, and never a piece of a stop string.

Knows nothing of models; it is given a function that decodes ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that form no character, or none yet
_TAIL = 8  # tokens decoded again in front of new ones: an unfinished character lies within them
_MAX_TAIL = 64  # tokens after which the tail is cut to that, even where no character ever ends with a token


class TextStream:
    """One row's text. `stopped` is set once a stop string has come up; nothing is emitted after that."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(text for text in stop if text)
        self._tail: list[int] = []
        self._emitted = 0  # characters of the tail's text that are emitted
        self._held_back = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Text that is now safe to show, possibly ''."""
        if self.stopped:
            return ""
        self._tail.append(token)
        text = self._decode(self._tail)
        final = text.rstrip(_REPLACEMENT)  # broken bytes at the end may yet become a character
        fresh = final[self._emitted :]
        self._emitted = max(self._emitted, len(final))
        if len(self._tail) > (_TAIL if final == text else _MAX_TAIL):
            self._tail = self._tail[-_TAIL:]
            self._emitted = len(self._decode(self._tail).rstrip(_REPLACEMENT))
        return self._release(fresh)

    def flush(self) -> str:
        """What was held back, at the end of the answer; an unfinished character is dropped."""
        held_back, self._held_back = self._held_back, ""
        return "" if self.stopped else held_back

    def _release(self, text: str) -> str:
        text = self._held_back + text
        self._held_back = ""
        found = [index for stop in self._stop if (index := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = self._stop_prefix_length(text)
        if keep:
            self._held_back = text[-keep:]
            return text[:-keep]
        return text

    def _stop_prefix_length(self, text: str) -> int:
        """Length of the longest end of `text` that may grow into a stop string."""
        return max((_overlap(text, stop) for stop in self._stop), default=0)


def _overlap(text: str, stop: str) -> int:
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)

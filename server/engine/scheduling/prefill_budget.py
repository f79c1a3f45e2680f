"""How much of a prompt a step may compute while others' answers are being written.

Learns what steps take, so that a long prompt makes running streams wait no more than about twice as
long for their next token, on any machine. A step that was faster than expected tells more than a slower one, which may
have shared the processor with something else: chunks do not shrink at each disturbance. Knows of rows only how many
there are.
"""

from __future__ import annotations

from collections.abc import Sequence

_SMALLEST = 4    # tokens of a chunk at least
_GRAIN = 4       # products are padded to a multiple of so many rows: a chunk fills them up
_ONCE = 4        # a chunk reads through what is known before it, which costs about as much as so many more tokens
_STRETCH = 0.9   # a prompt's chunk may take so many times a step without one
_FASTER = 0.3    # the weight of a new measurement below what is expected
_SLOWER = 0.1    # and of one above


class Pace:
    def __init__(self, most: int) -> None:
        self._most = most
        self._plain_s: dict[int, float] = {}   # by how many write: a step in which each of them gets one token
        self._token_s = 0.0                    # what a token of a prompt adds, of which a chunk has `_ONCE` more

    def note(self, seconds: float, tokens: Sequence[int]) -> None:
        """A step took that long for so many tokens of each row: one, or some of a prompt."""
        writing = sum(count == 1 for count in tokens)
        prompt = sum(tokens) - writing
        if not prompt:
            self._plain_s[writing] = _blended(self._plain_s.get(writing, seconds), seconds)
        elif prompt >= _SMALLEST:
            added = max(0.0, seconds - self._plain(writing)) / (prompt + _ONCE)
            self._token_s = _blended(self._token_s or added, added)

    def _plain(self, writing: int) -> float:
        """A step of so many rows, or of the number nearest to it that has been seen; 0 where none has."""
        if not self._plain_s or not writing:
            return 0.0
        return self._plain_s[min(self._plain_s, key=lambda seen: abs(seen - writing))]

    def room(self, writing: int, spent: float = 0.0) -> int:
        """Prompt tokens for the next step, in which so many rows write; `spent` seconds before it went into
        something else."""
        plain = self._plain(writing)
        if not (plain and self._token_s):
            tokens = 8.0 * _SMALLEST
        else:
            tokens = max(_SMALLEST, (_STRETCH * plain - spent) / self._token_s - _ONCE)
        if tokens >= self._most:
            return self._most
        full = int(writing + tokens) // _GRAIN * _GRAIN - writing
        return min(self._most, full if full >= _SMALLEST else full + _GRAIN)


def _blended(known: float, new: float) -> float:
    return known + (_FASTER if new < known else _SLOWER) * (new - known)

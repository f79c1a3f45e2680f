"""How much of a prompt a step may compute while others' answers are being written.

Learns what steps take, so that a long prompt makes running streams wait no more than about twice as
long for their next token, on any machine. Knows nothing of rows.
"""

from __future__ import annotations

_SMALLEST = 8
_STRETCH = 0.8   # a prompt's chunk may take so many times a step without one
_WEIGHT = 0.2    # of a new measurement


class Pace:
    def __init__(self, most: int) -> None:
        self._most = most
        self._plain_s = 0.0    # a step in which every row writes one token
        self._token_s = 0.0    # what a token of a prompt adds

    def note(self, seconds: float, tokens: int, rows: int) -> None:
        """A step took that long for `tokens` of `rows`."""
        if tokens == rows:
            self._plain_s += _WEIGHT * (seconds - self._plain_s) if self._plain_s else seconds
        elif tokens - rows >= _SMALLEST:
            added = max(0.0, seconds - self._plain_s) / (tokens - rows)
            self._token_s += _WEIGHT * (added - self._token_s) if self._token_s else added

    def room(self, spent: float = 0.0) -> int:
        """Prompt tokens for the next step, before which `spent` seconds went into something else."""
        if not (self._plain_s and self._token_s):
            return min(self._most, 4 * _SMALLEST)
        return min(self._most, max(_SMALLEST, int((_STRETCH * self._plain_s - spent) / self._token_s)))

"""How many prompt tokens (prefill) a step may compute beside rows that write answers (decode).

Learns what steps take, so that a long prompt makes running streams wait no more than about twice as
long for their next token, on any machine. A step that was faster than expected tells more than a slower one, which may
have shared the processor with something else: chunks do not shrink at each disturbance. Knows of rows only how many
there are.
"""

from __future__ import annotations

from collections.abc import Sequence

_MIN_CHUNK = 4  # tokens
_ROW_MULTIPLE = 4  # products are padded to a multiple of so many rows: a chunk fills them up
_CHUNK_OVERHEAD = 4  # a chunk attends to what is before it, which costs about as much as so many more tokens
_MAX_STRETCH = 0.9  # a prompt's chunk may take so many times a step without one
_FASTER_WEIGHT = 0.3  # the weight of a new measurement below what is expected
_SLOWER_WEIGHT = 0.1  # and of one above


class PrefillBudget:
    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._decode_s: dict[int, float] = {}  # by how many rows decode: a step in which each gets one token
        self._prompt_token_s = 0.0  # what a token of a prompt adds; a chunk counts `_CHUNK_OVERHEAD` more

    def observe(self, seconds: float, tokens: Sequence[int]) -> None:
        """A step took that long for so many tokens of each row: one, or some of a prompt."""
        decoding = sum(count == 1 for count in tokens)
        prompt = sum(tokens) - decoding
        if not prompt:
            self._decode_s[decoding] = _smoothed(self._decode_s.get(decoding, seconds), seconds)
        elif prompt >= _MIN_CHUNK:
            added = max(0.0, seconds - self._decode_step_s(decoding)) / (prompt + _CHUNK_OVERHEAD)
            self._prompt_token_s = _smoothed(self._prompt_token_s or added, added)

    def _decode_step_s(self, decoding: int) -> float:
        """A step of so many rows, or of the number nearest to it that has been seen; 0 where none has."""
        if not self._decode_s or not decoding:
            return 0.0
        return self._decode_s[min(self._decode_s, key=lambda seen: abs(seen - decoding))]

    def tokens(self, decoding: int, spent: float = 0.0) -> int:
        """Prompt tokens for the next step, in which so many rows decode; `spent` seconds before it went into
        something else."""
        decode_s = self._decode_step_s(decoding)
        if not (decode_s and self._prompt_token_s):
            tokens = 8.0 * _MIN_CHUNK
        else:
            tokens = max(_MIN_CHUNK, (_MAX_STRETCH * decode_s - spent) / self._prompt_token_s - _CHUNK_OVERHEAD)
        if tokens >= self._max_tokens:
            return self._max_tokens
        full = int(decoding + tokens) // _ROW_MULTIPLE * _ROW_MULTIPLE - decoding
        return min(self._max_tokens, full if full >= _MIN_CHUNK else full + _ROW_MULTIPLE)


def _smoothed(known: float, new: float) -> float:
    return known + (_FASTER_WEIGHT if new < known else _SLOWER_WEIGHT) * (new - known)

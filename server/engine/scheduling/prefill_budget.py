"""How many prompt tokens (prefill) a step may compute beside rows that write answers (decode).

Learns what steps take, so that a long prompt makes running streams wait no more than about twice as
long for their next token, on any machine. A step that was faster than expected tells more than a slower one, which may
have shared the processor with something else: chunks do not shrink at each disturbance. On a device a chunk costs much
however short it is, since all weights are read once more for it beside the rows that are replayed: there streams wait
about twice as long as beside the shortest chunk. Knows of rows only how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence

_MIN_CHUNK = 4  # tokens
_ROW_MULTIPLE = 4  # products are padded to a multiple of so many rows: a chunk fills them up
_CHUNK_OVERHEAD = 4  # a chunk attends to what is before it, which costs about as much as so many more tokens
_MAX_STRETCH = 0.9  # a prompt's chunk may take so many times a step without one
_FASTER_WEIGHT = 0.3  # the weight of a new measurement below what is expected
_SLOWER_WEIGHT = 0.1  # and of one above


_FIRST_CHUNK = 256  # on a device, before it knows
_SHORTER = 0.75  # every fourth chunk, so that what any chunk costs can be told from what a token does
_KEPT = 0.95  # of what was measured before, at each new measurement of a chunk


class _Line:
    """Least squares of seconds over tokens, both of chunks, where earlier ones count less and less."""

    def __init__(self) -> None:
        self._count = self._tokens = self._seconds = self._squares = self._products = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        sums = (1.0, float(tokens), seconds, float(tokens) ** 2, tokens * seconds)
        old = (self._count, self._tokens, self._seconds, self._squares, self._products)
        self._count, self._tokens, self._seconds, self._squares, self._products = (
            _KEPT * before + new for before, new in zip(old, sums, strict=True)
        )

    def fixed_and_slope(self) -> tuple[float, float]:
        """Seconds that any chunk takes, and those of a token more; neither is negative."""
        if not self._count:
            return 0.0, 0.0
        spread = self._squares - self._tokens**2 / self._count
        if spread <= 1e-6 * self._squares:
            return 0.0, self._seconds / self._tokens
        slope = max(0.0, (self._products - self._tokens * self._seconds / self._count) / spread)
        fixed = (self._seconds - slope * self._tokens) / self._count
        return (fixed, slope) if fixed >= 0 else (0.0, self._products / self._squares)


class PrefillBudget:
    """`fixed_cost`: chunks are run beside replayed rows, and cost something however short they are."""

    def __init__(self, max_tokens: int, *, fixed_cost: bool = False) -> None:
        self._max_tokens = max_tokens
        self._line = _Line() if fixed_cost else None
        self._chunks = 0
        self._decode_s: dict[int, float] = {}  # by how many rows decode: a step in which each gets one token
        self._prompt_token_s = 0.0  # what a token of a prompt adds; a chunk counts `_CHUNK_OVERHEAD` more

    def observe(self, seconds: float, tokens: Sequence[int]) -> None:
        """A step took that long for so many tokens of each row: one, or some of a prompt."""
        decoding = sum(count == 1 for count in tokens)
        prompt = sum(tokens) - decoding
        if not prompt:
            self._decode_s[decoding] = _smoothed(self._decode_s.get(decoding, seconds), seconds)
        elif self._line is not None:
            self._line.add(prompt, max(0.0, seconds - self._decode_step_s(decoding)))
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
        if self._line is not None:
            return self._tokens_beside_replays(decode_s, spent)
        if not (decode_s and self._prompt_token_s):
            tokens = 8.0 * _MIN_CHUNK
        else:
            tokens = max(_MIN_CHUNK, (_MAX_STRETCH * decode_s - spent) / self._prompt_token_s - _CHUNK_OVERHEAD)
        if tokens >= self._max_tokens:
            return self._max_tokens
        full = int(decoding + tokens) // _ROW_MULTIPLE * _ROW_MULTIPLE - decoding
        return min(self._max_tokens, full if full >= _MIN_CHUNK else full + _ROW_MULTIPLE)

    def _tokens_beside_replays(self, decode_s: float, spent: float) -> int:
        assert self._line is not None  # narrows a type
        fixed, slope = self._line.fixed_and_slope()
        if not (decode_s and slope):
            return min(self._max_tokens, _FIRST_CHUNK)
        tokens = (_MAX_STRETCH * (decode_s + fixed) - spent) / slope
        tokens = min(float(self._max_tokens), max(float(_MIN_CHUNK), tokens))
        self._chunks += 1
        return int(tokens * _SHORTER) if self._chunks % 4 == 0 and tokens * _SHORTER >= _MIN_CHUNK else int(tokens)

    def limit(self, tokens: int) -> int:
        """At most so many from now on; how many that are."""
        self._max_tokens = min(self._max_tokens, tokens)
        return self._max_tokens


def _smoothed(known: float, new: float) -> float:
    return known + (_FASTER_WEIGHT if new < known else _SLOWER_WEIGHT) * (new - known)

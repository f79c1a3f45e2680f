"""The statistics of right and wrong answers: an interval for one share, a test for two on the same rows."""

from __future__ import annotations

import math

Z95 = 1.959963984540054


def wilson(right: int, rows: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a share (Wilson, 1927); 95% by default. (0, 1) without rows."""
    if rows == 0:
        return 0.0, 1.0
    share = right / rows
    centre = share + z * z / (2 * rows)
    spread = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return (0.0 if right == 0 else max(0.0, low)), (1.0 if right == rows else min(1.0, high))  # exact at the ends


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test (1947): rows that only one side got right, as fair coin flips."""
    discordant = gained + lost
    if discordant == 0:
        return 1.0
    tail = sum(math.comb(discordant, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << discordant))

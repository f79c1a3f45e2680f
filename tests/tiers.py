"""How much a test does: `make test` runs big suites reduced, with fixed seeds, and `make test-long` whole.

`cases(reduced, whole)` is read when test modules are imported, so `--long` is noted before (tests/conftest.py).
"""

from __future__ import annotations

from typing import Final

_LONG: Final = {"chosen": False}


def choose(*, long: bool) -> None:
    _LONG["chosen"] = long


def cases(reduced: int, whole: int) -> int:
    """So many examples, rows, rounds or kills: `whole` with `--long`."""
    return whole if _LONG["chosen"] else reduced

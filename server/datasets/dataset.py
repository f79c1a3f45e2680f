"""Rows of questions with their right answers, and their one split. Knows nothing of files, models or prompts."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

from server.types import HistoryTurn, TurnContext


@dataclass(frozen=True, slots=True)
class Check:
    """What an answer must hold: all of `contains` (any case), exactly the citations `cites` (when not
    None), and whether it must say that the sources do not hold the answer."""

    contains: tuple[str, ...] = ()
    cites: tuple[int, ...] | None = None
    abstains: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """One turn with its right answer. `check` None: the answer itself is the only right one.

    `system` '' means the domain's own system text. Examples of one `group` never stand on both sides of a split.
    """

    question: str
    answer: str
    context: TurnContext
    history: tuple[HistoryTurn, ...]
    system: str
    check: Check | None
    group: str
    line: int


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What became of each row: `read` = kept + duplicates + broken. `problems` names broken rows, at most 20."""

    read: int
    kept: int
    duplicates: int
    conflicts: int  # of the kept rows: same turn as an earlier row, another answer
    broken: int
    problems: tuple[str, ...]

    def text(self) -> str:
        parts = [f"{self.read} rows read, {self.kept} kept"]
        if self.duplicates:
            parts.append(f"{self.duplicates} dropped as exact duplicates")
        if self.conflicts:
            parts.append(f"{self.conflicts} ask what another row asks and answer differently")
        if self.broken:
            parts.append(f"{self.broken} dropped as broken ({'; '.join(self.problems[:3])})")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Dataset:
    examples: tuple[Example, ...]
    report: DatasetReport

    def split(self, held_out: float = 0.15, seed: int = 0) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """(training rows, held-out rows): the groups of lowest seeded hash are held out until about that
        share of the rows is. Stable: neither the order of the rows nor new groups move old ones much.

        With a single group, or a share of 0, nothing is held out.
        """
        sizes = Counter(example.group for example in self.examples)
        target = held_out * len(self.examples)
        held_out_groups: set[str] = set()
        count = 0
        for group in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
            # A group is held out when that brings the share nearer to the target; one group always stays.
            if len(held_out_groups) + 1 < len(sizes) and abs(count + sizes[group] - target) < abs(count - target):
                held_out_groups.add(group)
                count += sizes[group]
        train = tuple(example for example in self.examples if example.group not in held_out_groups)
        return train, tuple(example for example in self.examples if example.group in held_out_groups)

"""What a comparison found: each lever's answers and scores, a table, and a verdict in words.

Knows nothing of models or of how answers came about.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.table import Table

from server.evaluation.stats import mcnemar, wilson

SIGNIFICANCE_LEVEL = 0.05
MIN_DISCORDANT = 6  # fewer rows that only one side got right can never be significant in the exact test

_HEADINGS = ("lever", "right", "accuracy", "95% interval", "prompt tokens", "answer tokens", "latency p50", "p95")


class Lever(StrEnum):
    ZERO_SHOT = "zero-shot prompt"
    FEW_SHOT = "few-shot prompt"
    ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class LeverResult:
    """One lever on every row, in the rows' order. Tokens and seconds are of the rows that were answered;
    `failed` rows did not fit into the context and count as wrong."""

    lever: Lever
    right: tuple[bool, ...]
    texts: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    failed: int = 0

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.right) if self.right else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(sum(self.right), len(self.right))


@dataclass(frozen=True, slots=True)
class Comparison:
    domain: str
    adapter: str | None
    rows: int
    results: tuple[LeverResult, ...]

    def result_of(self, lever: Lever) -> LeverResult | None:
        return next((each for each in self.results if each.lever is lever), None)

    @property
    def best_prompt(self) -> LeverResult:
        """The better of the prompts; the plainer one on a tie."""
        prompts = [each for each in self.results if each.lever is not Lever.ADAPTER]
        return max(prompts, key=lambda each: each.accuracy)

    @property
    def p_value(self) -> float | None:
        """Exact McNemar p of the adapter against the best prompt; None without an adapter."""
        adapter = self.result_of(Lever.ADAPTER)
        return None if adapter is None else mcnemar(*_discordant_pairs(adapter, self.best_prompt))

    def verdict(self) -> str:
        """One sentence or two: better, worse, or not enough data, with the numbers it rests on."""
        adapter, prompt, p = self.result_of(Lever.ADAPTER), self.best_prompt, self.p_value
        if adapter is None or p is None:
            return f"The {prompt.lever} is the best prompt: {prompt.accuracy:.1%} of {self.rows} rows."
        gained, lost = _discordant_pairs(adapter, prompt)
        difference = (adapter.accuracy - prompt.accuracy) * 100
        facts = (
            f"against the {prompt.lever}, the adapter fixes {gained} of {self.rows} rows and breaks {lost} "
            f"({difference:+.1f} points, exact McNemar p = {_p(p)})"
        )
        if p >= SIGNIFICANCE_LEVEL:
            why = "too few rows differ" if gained + lost < MIN_DISCORDANT else "the difference may be chance"
            return f"Not enough data: {facts}; {why}. Compare on more held-out rows."
        return f"The adapter is {'better' if gained > lost else 'worse'}: {facts}."

    def table(self) -> str:
        """Markdown, the verdict below it."""
        lines = [_line(_HEADINGS), _line(["---"] + ["---:"] * (len(_HEADINGS) - 1))]
        lines += [_line(_cells(each)) for each in self.results]
        notes = [f"{each.lever}: {each.failed} rows did not fit into the context." for each in self.results
                 if each.failed]  # fmt: skip
        return "\n".join([*lines, "", *notes, self.verdict()]) + "\n"

    def rich(self) -> Table:
        """The same table for a terminal."""
        table = Table(title=f"{self.domain}: {self.rows} held-out rows", caption=self.verdict())
        for index, heading in enumerate(_HEADINGS):
            table.add_column(heading, justify="right" if index else "left")
        for each in self.results:
            table.add_row(*_cells(each))
        return table


def _cells(each: LeverResult) -> list[str]:
    low, high = each.interval
    return [
        each.lever,
        f"{sum(each.right)}/{len(each.right)}",
        f"{each.accuracy:.1%}",
        f"{low:.1%} – {high:.1%}",
        f"{_mean(each.prompt_tokens):.0f}",
        f"{_mean(each.completion_tokens):.0f}",
        f"{_percentile(each.seconds, 50):.2f} s",
        f"{_percentile(each.seconds, 95):.2f} s",
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _discordant_pairs(one: LeverResult, other: LeverResult) -> tuple[int, int]:
    """Discordant pairs: (rows that only `one` got right, rows that only `other` did)."""
    pairs = list(zip(one.right, other.right, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _mean(values: Sequence[int]) -> float:
    return statistics.fmean(values) if values else 0.0


def _percentile(values: Sequence[float], percent: int) -> float:
    """Nearest rank."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"

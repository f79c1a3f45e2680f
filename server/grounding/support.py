"""How well passages carry a sentence: words weighed by rarity, and what must not differ.

A share of words alone would let "3 years" pass for "1 year". So numbers, dates, names and a "not" are asked apart: a
passage that differs in one of them does not carry the sentence, however alike the rest is. A number must also stand
with the words that it stands with in the sentence. Pure; no model judges.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from server.grounding.claims import Claim, Evidence, held, held_by, importance
from server.grounding.clauses import Clause
from server.grounding.negation import says_otherwise
from server.grounding.quantities import Quantity
from server.words import ContentWord

LEAST_FIT: Final = 0.25       # share of the words that must stand around a number
CLEARLY_BETTER: Final = 0.05  # share of the words by which another clause must fit better to contradict a number
NEAR_COPY: Final = 0.8        # share of the words that a clause holds; from there on a "not" decides

_ADDRESS = re.compile(r"https?://[^\s)>\]]+|[\w.+-]+@[\w-]+\.[\w.-]*\w")


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def weights(claim: Claim, evidence: Sequence[Evidence]) -> list[float]:
    """Of each content word: rare among the passages weighs more, and what none of them holds weighs most."""
    found = []
    for unit in claim.units:
        holding = sum(held(unit, one.words, one.beginnings) > 0 for one in evidence)
        rarity = math.log(1 + (len(evidence) + 1) / (holding + 1))
        found.append(importance(unit, claim) * rarity)
    return found


def coverage(claim: Claim, group: Sequence[Evidence], weight: Sequence[float], count: int) -> float:
    """Share of the claim's content that the passages of the group hold together, 0 to 1. A number that the group does
    not contradict is content, too; it weighs as a word that one of `count` passages holds."""
    numbers = len(claim.firm) * math.log(1 + (count + 1) / 2)
    mass = sum(weight) + numbers
    if not mass:
        return 1.0
    got = sum(
        size * max(held(unit, one.words, one.beginnings) for one in group)
        for unit, size in zip(claim.units, weight, strict=True)
    )
    return (got + numbers) / mass


# ── what must not differ ─────────────────────────────────────────────────────────────────────────


def contradicts(claim: Claim, group: Sequence[Evidence], given: Collection[str]) -> bool:
    """A number, date, name or "not" of the claim is missing in the group, or is said of something else there. `given`
    are words that need no passage."""
    if claim.firm:
        table = _Fits(claim, group)
        if not all(table.says(quantity) for quantity in claim.firm):
            return True
    for code in claim.read.codes:
        if not any(code in one.codes for one in group):
            return True
    for name in claim.names - frozenset(given):
        unit = ContentWord(name, (name,))
        if not any(held(unit, one.words, one.beginnings) for one in group):
            return True
    for address in _ADDRESS.findall(claim.text):
        if not any(address.casefold().rstrip(".,") in one.text for one in group):
            return True
    return any(_is_denied(claim, one) for one in group)


class _Fits:
    """How much of a claim each clause of some passages says, rare words among the clauses weighing more."""

    def __init__(self, claim: Claim, group: Sequence[Evidence]) -> None:
        self._claim = claim
        self._passages = [one.clauses for one in group]
        clauses = [clause for inside in self._passages for clause in inside]
        self._held = {
            id(clause): [max(held_by(unit, clause.words), held_by(unit, one.heading)) for unit in claim.units]
            for one in group
            for clause in one.clauses
        }
        self._size = []
        for at, unit in enumerate(claim.units):
            holding = sum(self._held[id(clause)][at] > 0 for clause in clauses)
            self._size.append(importance(unit, claim) * math.log(1 + (len(clauses) + 1) / (holding + 1)))
        self._group = group

    def of(self, clauses: Sequence[Clause]) -> float:
        mass = sum(self._size)
        if not mass:
            return 0.0
        best = [max(shares) for shares in zip(*(self._held[id(clause)] for clause in clauses), strict=True)]
        return float(sum(size * share for size, share in zip(self._size, best, strict=True)) / mass)

    def says(self, quantity: Quantity) -> bool:
        """Some clause has the number, and no clause that fits the claim better has another number of that kind."""
        holding = [one for one in self._group if quantity.is_among(one.quantities)]
        if not holding:
            return False
        if not any(self._size) or any(one.script != self._claim.script for one in holding):
            return True
        here, elsewhere = -1.0, 0.0
        for inside in self._passages:
            for at, clause in enumerate(inside):
                if quantity.is_among(clause.quantities):
                    here = max(here, self.of(_around(inside, at, quantity)))
                elif any(
                    quantity.rivals(other) and not other.is_among(self._claim.read.quantities)
                    for other in clause.quantities
                ):
                    elsewhere = max(elsewhere, self.of(_around(inside, at, quantity)))
        if here < 0:  # it stands in the heading
            return True
        return here >= LEAST_FIT / len(self._group) and elsewhere <= here + CLEARLY_BETTER


def _around(clauses: Sequence[Clause], at: int, quantity: Quantity) -> list[Clause]:
    """The clause and its neighbours, as far as they speak of no other number of that kind."""
    found = [clauses[at]]
    for step in (-1, 1):
        for distance in (1, 2):
            other = at + step * distance
            if not 0 <= other < len(clauses) or not clauses[max(other, other - step)].follows:
                break
            beyond = clauses[other].start != clauses[at].start
            if (beyond and (step > 0 or distance > 1)) or any(
                q.kind == quantity.kind and q.noun == quantity.noun for q in clauses[other].quantities
            ):
                break
            found.append(clauses[other])
    return found


def _is_denied(claim: Claim, one: Evidence) -> bool:
    """Where the passage says nearly the same words, it negates one that the claim does not, or the other way round."""
    told = [unit for unit in claim.units if held(unit, one.words, ()) and not held_by(unit, one.heading)]
    if len(told) < 2:
        return False
    best: tuple[float, int] = (NEAR_COPY, 0)
    runs: list[Sequence[Clause]] = []
    for run in _runs(one.clauses):
        fit = sum(max(held_by(unit, clause.words) for clause in run) for unit in told) / len(told)
        if (fit, -len(run)) >= best:
            runs = [*runs, run] if (fit, -len(run)) == best else [run]
            best = (fit, -len(run))
    return bool(runs) and all(
        says_otherwise(claim.text, " , ".join(clause.text for clause in run)) for run in runs
    )


def _runs(clauses: Sequence[Clause]) -> Iterator[Sequence[Clause]]:
    """Neighbouring clauses of one sentence, up to four together."""
    for size in range(1, 5):
        for at in range(len(clauses) - size + 1):
            run = clauses[at : at + size]
            if run[0].start == run[-1].start and (size == 1 or run[0].follows):
                yield run


def carrying(claim: Claim, one: Evidence) -> tuple[int, int]:
    """Where in the passage's text the sentence or row stands that fits the claim best."""
    if not one.clauses:
        return 0, len(one.passage.text)
    fits = _Fits(claim, [one])
    scores = [
        fits.of([clause]) + 0.5 * sum(quantity.is_among(clause.quantities) for quantity in claim.firm)
        for clause in one.clauses
    ]
    best = one.clauses[scores.index(max(scores))]
    return best.start, best.end

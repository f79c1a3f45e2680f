"""How well passages support a sentence: words weighed by rarity, and what must not differ.

A share of words alone would let "3 years" pass for "1 year". So numbers, dates, names and a "not" are asked apart: a
passage that differs in one of them does not support the sentence, however alike the rest is. A number must also stand
with the words that it stands with in the sentence. Pure; no model judges.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from server.grounding.claims import Claim, Evidence, clause_match, importance, term_match
from server.grounding.clauses import Clause
from server.grounding.negation import negation_differs
from server.grounding.quantities import Quantity
from server.words import ContentWord

MIN_CLAUSE_SCORE: Final = 0.25  # share of the words that must be near a number
CONTRADICTION_MARGIN: Final = 0.05  # share of the words by which another clause must fit better to contradict a number
MIN_NEGATION_OVERLAP: Final = 0.8  # share of the words that a clause contains; from there on a negation decides

_ADDRESS = re.compile(r"https?://[^\s)>\]]+|[\w.+-]+@[\w-]+\.[\w.-]*\w")


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def term_weights(claim: Claim, evidence: Sequence[Evidence]) -> list[float]:
    """Of each content word: rare among the passages weighs more, and what none of them contains weighs most."""
    found = []
    for unit in claim.units:
        matching = sum(term_match(unit, one.words, one.prefixes) > 0 for one in evidence)
        rarity = math.log(1 + (len(evidence) + 1) / (matching + 1))
        found.append(importance(unit, claim) * rarity)
    return found


def coverage(claim: Claim, group: Sequence[Evidence], weights: Sequence[float], count: int) -> float:
    """Share of the claim's content that the passages of the group contain together, 0 to 1. A number that the group
    does not contradict is content, too; it weighs as a word that one of `count` passages contains."""
    numbers = len(claim.required_quantities) * math.log(1 + (count + 1) / 2)
    total = sum(weights) + numbers
    if not total:
        return 1.0
    matched = sum(
        weight * max(term_match(unit, one.words, one.prefixes) for one in group)
        for unit, weight in zip(claim.units, weights, strict=True)
    )
    return (matched + numbers) / total


# ── what must not differ ─────────────────────────────────────────────────────────────────────────


def contradicts(claim: Claim, group: Sequence[Evidence], exempt_terms: Collection[str]) -> bool:
    """A number, date, name or "not" of the claim is missing in the group, or is said of something else there.
    `exempt_terms` are words that need no passage."""
    if claim.required_quantities:
        scorer = _ClauseScorer(claim, group)
        if not all(scorer.supports(quantity) for quantity in claim.required_quantities):
            return True
    for code in claim.parsed.codes:
        if not any(code in one.codes for one in group):
            return True
    for name in claim.names - frozenset(exempt_terms):
        unit = ContentWord(name, (name,))
        if not any(term_match(unit, one.words, one.prefixes) for one in group):
            return True
    for address in _ADDRESS.findall(claim.text):
        if not any(address.casefold().rstrip(".,") in one.text for one in group):
            return True
    return any(_is_negated(claim, one) for one in group)


class _ClauseScorer:
    """How much of a claim each clause of some passages says, rare words among the clauses weighing more."""

    def __init__(self, claim: Claim, group: Sequence[Evidence]) -> None:
        self._claim = claim
        self._passages = [one.clauses for one in group]
        clauses = [clause for passage in self._passages for clause in passage]
        self._match_scores = {
            id(clause): [max(clause_match(unit, clause.words), clause_match(unit, one.heading)) for unit in claim.units]
            for one in group
            for clause in one.clauses
        }
        self._term_weights = []
        for at, unit in enumerate(claim.units):
            matching = sum(self._match_scores[id(clause)][at] > 0 for clause in clauses)
            self._term_weights.append(importance(unit, claim) * math.log(1 + (len(clauses) + 1) / (matching + 1)))
        self._group = group

    def score(self, clauses: Sequence[Clause]) -> float:
        total = sum(self._term_weights)
        if not total:
            return 0.0
        best = [max(shares) for shares in zip(*(self._match_scores[id(clause)] for clause in clauses), strict=True)]
        return float(sum(weight * share for weight, share in zip(self._term_weights, best, strict=True)) / total)

    def supports(self, quantity: Quantity) -> bool:
        """Some clause has the number, and no clause that fits the claim better has another number of that kind."""
        matching = [one for one in self._group if quantity.is_among(one.quantities)]
        if not matching:
            return False
        if not any(self._term_weights) or any(one.script != self._claim.script for one in matching):
            return True
        with_number, with_conflict = -1.0, 0.0
        for passage_clauses in self._passages:
            for at, clause in enumerate(passage_clauses):
                if quantity.is_among(clause.quantities):
                    with_number = max(with_number, self.score(_neighbours(passage_clauses, at, quantity)))
                elif any(
                    quantity.conflicts_with(other) and not other.is_among(self._claim.parsed.quantities)
                    for other in clause.quantities
                ):
                    with_conflict = max(with_conflict, self.score(_neighbours(passage_clauses, at, quantity)))
        if with_number < 0:  # the number is in the heading
            return True
        near_enough = with_number >= MIN_CLAUSE_SCORE / len(self._group)
        return near_enough and with_conflict <= with_number + CONTRADICTION_MARGIN


def _neighbours(clauses: Sequence[Clause], at: int, quantity: Quantity) -> list[Clause]:
    """The clause and its neighbours, as far as they speak of no other number of that kind."""
    found = [clauses[at]]
    for step in (-1, 1):
        for distance in (1, 2):
            other = at + step * distance
            if not 0 <= other < len(clauses) or not clauses[max(other, other - step)].continues_topic:
                break
            other_sentence = clauses[other].start != clauses[at].start
            if (other_sentence and (step > 0 or distance > 1)) or any(
                q.kind == quantity.kind and q.noun == quantity.noun for q in clauses[other].quantities
            ):
                break
            found.append(clauses[other])
    return found


def _is_negated(claim: Claim, one: Evidence) -> bool:
    """Where the passage says nearly the same words, it negates one that the claim does not, or the other way round."""
    shared = [unit for unit in claim.units if term_match(unit, one.words, ()) and not clause_match(unit, one.heading)]
    if len(shared) < 2:
        return False
    best: tuple[float, int] = (MIN_NEGATION_OVERLAP, 0)
    best_windows: list[Sequence[Clause]] = []
    for window in _clause_windows(one.clauses):
        fit = sum(max(clause_match(unit, clause.words) for clause in window) for unit in shared) / len(shared)
        if (fit, -len(window)) >= best:
            best_windows = [*best_windows, window] if (fit, -len(window)) == best else [window]
            best = (fit, -len(window))
    return bool(best_windows) and all(
        negation_differs(claim.text, " , ".join(clause.text for clause in window)) for window in best_windows
    )


def _clause_windows(clauses: Sequence[Clause]) -> Iterator[Sequence[Clause]]:
    """Neighbouring clauses of one sentence, up to four together."""
    for size in range(1, 5):
        for at in range(len(clauses) - size + 1):
            window = clauses[at : at + size]
            if window[0].start == window[-1].start and (size == 1 or window[0].continues_topic):
                yield window


def supporting_span(claim: Claim, one: Evidence) -> tuple[int, int]:
    """Where in the passage's text the sentence or row stands that fits the claim best."""
    if not one.clauses:
        return 0, len(one.passage.text)
    scorer = _ClauseScorer(claim, [one])
    scores = [
        scorer.score([clause])
        + 0.5 * sum(quantity.is_among(clause.quantities) for quantity in claim.required_quantities)
        for clause in one.clauses
    ]
    best = one.clauses[scores.index(max(scores))]
    return best.start, best.end

"""Checks each sentence of an answer against the passages that the model was given, and corrects its citations.

What the model wrote stays as it is; `shown_text` applies the corrections to it. `check_sentences` keeps
nothing, and blocks for as long as the embedder does. Knows nothing of chats, search or how an answer is shown.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from server.grounding.checks import CheckedMark, Citation, SentenceCheck, Support, Verdict
from server.grounding.claims import Claim, Evidence, parse_claim, parse_evidence
from server.grounding.sentences import Sentence, find_citation_marks, split_sentences
from server.grounding.support import contradicts, coverage, supporting_span, term_weights
from server.relations import Relation
from server.types import Embedder, Passage, TurnContext
from server.words import is_courtesy, script_number, terms

log = logging.getLogger("tailor.chat")

# Chosen on the sample shop's part of tests/grounding/citation_cases.py; docs/knowledge.md has the figures.
MIN_COVERAGE: Final = 0.5  # share of a sentence's content from which on a passage supports it, if it has a number …
MIN_COVERAGE_NO_NUMBER: Final = 0.55  # … and if not
MIN_BLENDED: Final = (
    0.6  # the same for the mean of that share and the likelihood by meaning, for a sentence with a number …
)
MIN_BLENDED_NO_NUMBER: Final = 0.66  # … and for one without
JOINT_MARGIN: Final = 0.1  # by how much both thresholds rise for several passages together
MIN_JOINT_GAIN: Final = 0.2  # share of the content for which each of them must be needed, if not for a fact
CITED_TOLERANCE: Final = 0.25  # by how much a cited passage may be worse than the best one
MAX_SENTENCES: Final = 300  # of an answer that are checked …
CHECK_SECONDS: Final = 10.0  # … and in that time
MAX_JOINT: Final = 3  # passages that support a sentence together …
MAX_JOINT_CANDIDATES: Final = 6  # … out of so many

_NO_ANSWER = re.compile(
    r"\b(?:i|we)(?:'m| am)? ?(?:could not|couldn.t|cannot|can.t|did not|didn.t|do not|don.t|unable to)\s+"
    r"(?:find|know|have|see|say|tell|answer)"
    r"|\b(?:found|find) nothing\b|\bnot sure\b|\bno (?:\w+ )?(?:information|mention|details?)\b"
    r"|\b(?:sources?|documents?|passages?|files?|information)\b[^.]{0,30}\b(?:do(?:es)? not|don.t|doesn.t)\s+"
    r"(?:say|mention|hold|contain|cover|include|provide|specify|state|tell|answer|give|have)"
    r"|\bnot (?:mentioned|stated|specified|listed|covered|available|provided|found) (?:in|by|anywhere)"
    r"|찾(?:을 수(?:가|는)? 없|지 못|아볼 수 없)|알 수(?:가|는)? 없|모르겠|모릅니다"
    r"|확인(?:할 수|되지|하지)\s?(?:없|않|못)"
    r"|(?:정보|내용|자료|언급|답변?|출처|설명)[이가은는을를도에]?\s*(?:\S+\s)?"
    r"(?:없|나와\s?있지|포함되(?:어 있)?지|언급되(?:어 있)?지)"
    r"|見つかりません|わかりません|記載(?:が|は)?(?:ありません|されていません)|找不到|没有(?:找到|提到|相关)",
    re.IGNORECASE,
)
_OFFER = re.compile(
    r"\b(?:let me know|feel free|happy to|glad to|i hope|(?:you|i)['’]?d? (?:would |'d )?like|would you|do you want"
    r"|i (?:can|could|will|would)|i['’](?:ll|d)|here (?:is|are)|you.re welcome|sorry)\b"
    r"|도와\s?드리|말씀해\s?주|문의해\s?주|알려\s?주(?:세요|시)|궁금한|도움이 (?:되|필요)|물어\s?보|죄송"
    r"|안내(?:해)?\s?드리",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"[?？][\"'”’»)*_\s]*$")
_LEAD_IN = re.compile(r"[:：][*_\s]*$")


@dataclass(frozen=True, slots=True)
class _ClaimScorer:
    """Scores how well passages support one claim. `likelihoods`, that a passage means the same, are by its
    number."""

    claim: Claim
    likelihoods: Mapping[int, float]
    evidence: Sequence[Evidence]
    term_weights: Sequence[float]
    exempt_terms: frozenset[str]

    def score(self, group: Sequence[Evidence], *, margin: float = 0.0) -> float:
        """Of passages together, 0 to 1; 0 where they say too little of it or differ in a fact. `margin`
        raises the thresholds."""
        covered = coverage(self.claim, group, self.term_weights, len(self.evidence))
        meant = max((self.likelihoods[one.n] for one in group if one.n in self.likelihoods), default=0.0)
        foreign = all(one.script != self.claim.script for one in group)  # its words cannot be the claim's
        blended = meant if foreign else (covered + meant) / 2
        counted = bool(self.claim.required_quantities)
        min_coverage = MIN_COVERAGE if counted else MIN_COVERAGE_NO_NUMBER
        min_blended = MIN_BLENDED if counted else MIN_BLENDED_NO_NUMBER
        if covered < min_coverage + margin and blended < min_blended + margin:
            return 0.0
        return 0.0 if contradicts(self.claim, group, self.exempt_terms) else max(covered, blended)

    def is_needed(self, one: Evidence, group: Sequence[Evidence]) -> bool:
        """Without it the others lack a fact or much of the content."""
        rest = [other for other in group if other.n != one.n]
        if contradicts(self.claim, rest, self.exempt_terms):
            return True
        count = len(self.evidence)
        without = coverage(self.claim, rest, self.term_weights, count)
        return coverage(self.claim, group, self.term_weights, count) - without >= MIN_JOINT_GAIN


def check_sentences(
    answer: str,
    passages: Sequence[Passage],
    embedder: Embedder | None,
    *,
    user_context: str = "",
    complete: bool = True,
) -> tuple[SentenceCheck, ...]:
    """One check for each sentence, in order. `user_context` is what else the prompt says of the user: names in it need
    no passage. `complete` is False for an answer that was cut off. Without passages only what is cited is checked.
    After `MAX_SENTENCES` or `CHECK_SECONDS` the rest is UNCHECKED."""
    if _is_json(answer):
        return ()
    found = split_sentences(answer, complete=complete)
    if not passages:
        return tuple(_sentence_check(one, Verdict.DROPPED, ()) for one in found if one.cited)
    deadline = time.monotonic() + CHECK_SECONDS
    evidence = [parse_evidence(n, passage) for n, passage in enumerate(passages, 1)]
    found, unread = found[:MAX_SENTENCES], found[MAX_SENTENCES:]
    claims = [parse_claim(one.text) for one in found]
    flags = [_is_claim(one, claim) for one, claim in zip(found, claims, strict=True)]
    likelihoods = _likelihoods(
        [claim.text for claim, flag in zip(claims, flags, strict=True) if flag], evidence, embedder
    )
    exempt_terms = frozenset(terms(user_context))
    checks = []
    for one, claim, is_claim in zip(found, claims, flags, strict=True):
        if not is_claim:
            checks.append(_as_cited(one, Verdict.NOTHING, len(passages)))
        elif time.monotonic() > deadline:
            checks.append(_as_cited(one, Verdict.UNCHECKED, len(passages)))
        else:
            checks.append(_check_claim(one, claim, evidence, likelihoods.get(claim.text, {}), exempt_terms))
    return (*checks, *(_as_cited(one, Verdict.UNCHECKED, len(passages)) for one in unread))


async def check_answer(
    answer: str, context: TurnContext, embedder: Embedder, *, complete: bool
) -> tuple[SentenceCheck, ...]:
    """`check_sentences`, off the event loop; nothing where no files were searched. An answer is not lost because its
    check broke."""
    if not context.searched:
        return ()
    user_context = " ".join(memory.text for memory in context.memories)
    try:
        return await asyncio.to_thread(
            check_sentences, answer, context.passages, embedder, user_context=user_context, complete=complete
        )
    except Exception:  # edge of the thread it ran in: whatever broke there, the answer stands
        log.exception("the citations of an answer could not be checked")
        return ()


def find_citations(
    text: str, passages: Sequence[Passage], checks: Iterable[SentenceCheck] = ()
) -> tuple[tuple[Citation, ...], tuple[int, ...]]:
    """Each passage that the shown text cites, once, in order of first mention; and the numbers that point to none."""
    written = [number for mark in find_citation_marks(text) for number in mark.numbers]
    marks = [mark for one in checks for mark in one.marks]
    ordered = sorted(marks, key=lambda mark: mark.start)
    shown = [number for mark in ordered for number in mark.shown] if marks else written
    valid = tuple(Citation(n, passages[n - 1].id) for n in dict.fromkeys(shown) if 1 <= n <= len(passages))
    return valid, tuple(n for n in dict.fromkeys(written) if not 1 <= n <= len(passages))


def shown_text(text: str, checks: Iterable[SentenceCheck]) -> str:
    """The answer with its citations as they are shown."""
    parts, at = [], 0
    for mark in sorted((mark for one in checks for mark in one.marks), key=lambda mark: mark.start):
        before = text[at : mark.start]
        parts.append(before if mark.shown else before.rstrip(" "))
        if mark.shown == mark.cited:
            parts.append(text[mark.start : mark.end])
        else:
            space = " " if mark.start == mark.end else ""
            parts.append(space * bool(mark.shown) + "".join(f"[{n}]" for n in mark.shown))
        at = mark.end
    return "".join([*parts, text[at:]])


# ── what is a claim ──────────────────────────────────────────────────────────────────────────────


def _is_json(answer: str) -> bool:
    """Domains with a schema answer so; there are no sentences in it."""
    try:
        return isinstance(json.loads(answer), dict | list)
    except (ValueError, RecursionError):
        return False


def _is_claim(sentence: Sentence, claim: Claim) -> bool:
    if sentence.is_heading or not claim.has_content or is_courtesy(sentence.text):
        return False
    if _QUESTION.search(sentence.text) or _NO_ANSWER.search(sentence.text):
        return False
    speaks_for_itself = bool(claim.required_quantities or sentence.marks)
    return speaks_for_itself or not (_LEAD_IN.search(sentence.text) or _OFFER.search(sentence.text))


def _as_cited(sentence: Sentence, verdict: Verdict, count: int) -> SentenceCheck:
    """Not held against the passages: numbers stay, as far as there is such a passage."""
    return _sentence_check(sentence, verdict, tuple(n for n in sentence.cited if 1 <= n <= count))


# ── checking a claim ─────────────────────────────────────────────────────────────────────────────


def _likelihoods(
    texts: Sequence[str], evidence: Sequence[Evidence], embedder: Embedder | None
) -> dict[str, dict[int, float]]:
    """How likely each text means what the nearest sentence of each passage does, as far as the embedder knows both."""
    if embedder is None:
        return {}
    known_texts = [text for text in dict.fromkeys(texts) if embedder.knows(text)]
    known = [one for one in evidence if embedder.knows(one.passage.text)]
    if not known_texts or not known:
        return {}
    pieces = {one.n: one.sentences for one in known}
    vectors = embedder.embed([*known_texts, *(piece for inside in pieces.values() for piece in inside)])
    cosines = vectors[: len(known_texts)] @ vectors[len(known_texts) :].T
    scripts = np.array([script_number(piece) for inside in pieces.values() for piece in inside])
    crossing = np.array([script_number(text) for text in known_texts])[:, None] != scripts[None]
    likely = embedder.likelihood(Relation.MEANING, cosines, crossing=crossing)
    bounds = np.cumsum([0, *(len(inside) for inside in pieces.values())])
    return {
        text: {
            n: float(row[start:end].max())
            for n, start, end in zip(pieces, bounds[:-1], bounds[1:], strict=True)
            if start < end
        }
        for text, row in zip(known_texts, likely, strict=True)
    }


def _check_claim(
    sentence: Sentence,
    claim: Claim,
    evidence: Sequence[Evidence],
    likelihoods: Mapping[int, float],
    exempt_terms: frozenset[str],
) -> SentenceCheck:
    cited = [n for n in sentence.cited if 1 <= n <= len(evidence)]
    comparable = [
        one for one in evidence if one.n in likelihoods or not claim.script or one.script in (claim.script, "")
    ]
    if not comparable:
        return _check_by_numbers(sentence, claim, evidence, cited)
    scorer = _ClaimScorer(claim, likelihoods, evidence, term_weights(claim, evidence), exempt_terms)
    scores = {one.n: scorer.score([one]) for one in comparable}
    supporting = {n: score for n, score in scores.items() if score}
    if not supporting:
        supporting = _joint_support(scorer, comparable, cited)
        needed = set(supporting)
    else:
        best = max(supporting.values())
        good = [n for n in cited if supporting.get(n, 0.0) >= best - CITED_TOLERANCE]
        needed = set(good) or {max(supporting, key=lambda n: (supporting[n], -n))}
    support = tuple(
        Support(one.n, round(supporting[one.n], 3), *supporting_span(claim, one))
        for one in sorted(comparable, key=lambda one: (-supporting.get(one.n, 0.0), one.n))
        if one.n in supporting
    )
    if not needed:
        return _unsupported(sentence)
    right = set(sentence.cited) == needed or not sentence.cited
    shown = tuple(n for n in cited if n in needed) + tuple(sorted(needed - set(cited)))
    return _sentence_check(sentence, Verdict.SUPPORTED if right else Verdict.CORRECTED, shown, support)


def _joint_support(scorer: _ClaimScorer, comparable: Sequence[Evidence], cited: Sequence[int]) -> dict[int, float]:
    """The fewest passages that support the claim together, cited ones first; each must be needed."""
    promising = sorted(comparable, key=lambda one: -coverage(scorer.claim, [one], scorer.term_weights, len(comparable)))
    ordered = sorted(promising[:MAX_JOINT_CANDIDATES], key=lambda one: (one.n not in cited, one.n))
    for size in range(2, MAX_JOINT + 1):
        best: tuple[float, tuple[Evidence, ...]] = (0.0, ())
        for group in combinations(ordered, size):
            score = scorer.score(group, margin=JOINT_MARGIN)
            if score > best[0] and all(scorer.is_needed(one, group) for one in group):
                best = score, group
        if best[0]:
            return {one.n: best[0] for one in best[1]}
    return {}


def _check_by_numbers(
    sentence: Sentence, claim: Claim, evidence: Sequence[Evidence], cited: Sequence[int]
) -> SentenceCheck:
    """For an answer in another language than the passages': numbers and names with numbers are the same in all."""
    facts = len(claim.required_quantities) + len(claim.parsed.codes)
    if not facts:
        return _sentence_check(sentence, Verdict.UNCHECKED, tuple(cited))
    whole = [
        one
        for one in evidence
        if all(q.is_among(one.quantities) for q in claim.required_quantities) and claim.parsed.codes <= one.codes
    ]
    if not whole:
        return _unsupported(sentence)
    good = [one.n for one in whole if one.n in cited]
    if not cited or (not good and not any(quantity.kind for quantity in claim.required_quantities)):
        return _sentence_check(sentence, Verdict.UNCHECKED, tuple(cited))
    shown = tuple(good) or (whole[0].n,)
    support = tuple(Support(one.n, MIN_COVERAGE, *supporting_span(claim, one)) for one in whole)
    verdict = Verdict.SUPPORTED if set(shown) == set(sentence.cited) else Verdict.CORRECTED
    return _sentence_check(sentence, verdict, shown, support)


def _unsupported(sentence: Sentence) -> SentenceCheck:
    """Nothing supports it. What was cut off in the middle says too little for that verdict."""
    if not sentence.is_whole:
        return _sentence_check(sentence, Verdict.NOTHING, ())
    return _sentence_check(sentence, Verdict.DROPPED if sentence.cited else Verdict.UNSUPPORTED, ())


def _sentence_check(
    sentence: Sentence, verdict: Verdict, shown: Sequence[int], support: tuple[Support, ...] = ()
) -> SentenceCheck:
    """Puts the shown numbers where the cited ones stand; new ones go to the first mark, or to the sentence's end."""
    left = [n for n in shown if n not in sentence.cited]
    marks: list[CheckedMark] = []
    for mark in sentence.marks:
        kept = tuple(n for n in mark.numbers if n in shown)
        marks.append(CheckedMark(mark.start, mark.end, mark.numbers, (*kept, *left)))
        left = []
    if left:
        stop = re.search(r"[.!?…。！？,;:|*_\s]*$", sentence.text)
        at = sentence.end - (len(stop[0]) if stop else 0)
        marks.append(CheckedMark(at, at, (), tuple(left)))
    return SentenceCheck(sentence.start, sentence.end, verdict, tuple(marks), support)

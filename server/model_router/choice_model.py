"""How likely a message belongs to each domain, or to none: a conditional logit (McFadden, 1974) over what is known.

Each domain has a utility by how much the message is like its routes, how likely its files answer it, and whether it
answered the chat's last message, which counts more for messages that go on ("and for two?"). No domain, which is the
default's part, has one by the default's routes. Fitted by `python -m bench.router`. Knows nothing of embedders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.words import content_words, is_courtesy, is_explicit_follow_up, is_follow_up

MOST_ODDS: Final = 8.0  # log odds that a likelihood counts for, either way; …
MOST_FILES_ODDS: Final = 4.0  # … and that of files

DOMAIN_COLUMNS: Final = (
    "route", "evidence", "has files", "last", "last and follow-up", "last and explicit", "last and courtesy",
    "last by words",
)  # fmt: skip
DEFAULT_COLUMNS: Final = ("constant", "route", "last", "last and follow-up")
DOMAIN_WEIGHTS: Final = (0.721, 0.625, 0.265, 0.884, 1.844, -0.414, 1.556, 2.135)
DEFAULT_WEIGHTS: Final = (1.67, 0.37, -0.089, 0.862)


@dataclass(frozen=True, slots=True)
class Message:
    """What of a message counts for every domain."""

    follow_up: bool  # it may need the one before it
    explicit: bool  # … and says so
    courtesy: bool
    words: int  # content words

    @classmethod
    def of(cls, text: str) -> Message:
        return cls(is_follow_up(text), is_explicit_follow_up(text), is_courtesy(text), len(content_words(text)))


@dataclass(frozen=True, slots=True)
class DomainEvidence:
    """`route`: likelihood that the message is about what its nearest route is. `files`: that its files answer it. Each
    is None where the domain has none."""

    route: float | None = None
    files: float | None = None


def domain_columns(message: Message, evidence: DomainEvidence, *, last: bool) -> list[float]:
    """`last`: the domain answered the message before."""
    files = evidence.files
    return [
        _odds(evidence.route),
        _odds(files, MOST_FILES_ODDS),
        float(files is not None),
        float(last),
        float(last and message.follow_up),
        float(last and message.explicit),
        float(last and message.courtesy),
        last / (1 + message.words),
    ]


def default_columns(message: Message, route: float | None, *, last: bool) -> list[float]:
    return [1.0, _odds(route), float(last), float(last and message.follow_up)]


def posterior(
    domains: Sequence[Sequence[float]],
    default: Sequence[float],
    domain_weights: Sequence[float] = DOMAIN_WEIGHTS,
    default_weights: Sequence[float] = DEFAULT_WEIGHTS,
) -> tuple[list[float], float]:
    """The likelihood of each domain by its columns, and of none. They sum to 1."""
    utilities = [_dot(columns, domain_weights) for columns in domains]
    utilities.append(_dot(default, default_weights))
    highest = max(utilities)
    shares = [math.exp(utility - highest) for utility in utilities]
    total = sum(shares)
    return [share / total for share in shares[:-1]], shares[-1] / total


def _dot(columns: Sequence[float], weights: Sequence[float]) -> float:
    return sum(column * weight for column, weight in zip(columns, weights, strict=True))


def _odds(likelihood: float | None, most: float = MOST_ODDS) -> float:
    """Log odds; even where nothing is known."""
    if likelihood is None:
        return 0.0
    inside = min(max(likelihood, 1e-9), 1 - 1e-9)
    return min(max(math.log(inside / (1 - inside)), -most), most)

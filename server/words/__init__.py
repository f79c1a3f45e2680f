"""Words of any language for lexical search and for telling what a question is about. No dictionary, no state."""

from server.words.sentences import sentences
from server.words.words import (
    Unit,
    counted,
    is_courtesy,
    is_follow_up,
    needs_subject,
    points_back,
    stem,
    terms,
    units,
    without_denied,
)

__all__ = [
    "Unit",
    "counted",
    "is_courtesy",
    "is_follow_up",
    "needs_subject",
    "points_back",
    "sentences",
    "stem",
    "terms",
    "units",
    "without_denied",
]

"""Words of any language for lexical search and for telling what a question is about. No dictionary, no state."""

from server.words.sentences import sentences
from server.words.words import (
    ContentWord,
    content_words,
    is_courtesy,
    is_explicit_follow_up,
    is_follow_up,
    needs_subject,
    stem,
    term_counts,
    terms,
    without_retracted,
)

__all__ = [
    "ContentWord",
    "content_words",
    "is_courtesy",
    "is_explicit_follow_up",
    "is_follow_up",
    "needs_subject",
    "sentences",
    "stem",
    "term_counts",
    "terms",
    "without_retracted",
]

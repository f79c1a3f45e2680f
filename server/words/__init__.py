"""Words, sentences, scripts and Markdown's lines, of any language, for whoever reads text. No dictionary, no state.

`markdown` and `numbers` are used as modules: `markdown.fenced_code`, `numbers.MONTHS`. Knows nothing of files, users
or models.
"""

from server.words import markdown, numbers
from server.words.normalization import normalize, printable
from server.words.scripts import detect_script, has_hangul, script_number, script_shares
from server.words.sentences import sentences
from server.words.words import (
    ContentWord,
    content_words,
    fold,
    is_courtesy,
    is_explicit_follow_up,
    is_follow_up,
    needs_subject,
    pairs,
    stem,
    term_counts,
    terms,
    without_retracted,
)

__all__ = [
    "ContentWord",
    "content_words",
    "detect_script",
    "fold",
    "has_hangul",
    "is_courtesy",
    "is_explicit_follow_up",
    "is_follow_up",
    "markdown",
    "needs_subject",
    "normalize",
    "numbers",
    "pairs",
    "printable",
    "script_number",
    "script_shares",
    "sentences",
    "stem",
    "term_counts",
    "terms",
    "without_retracted",
]

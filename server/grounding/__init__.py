"""An answer's sentences held against the passages it was given. Knows no chat, no storage and no search."""

from server.grounding.checks import Citation, SentenceCheck, Verdict
from server.grounding.citations import checked, find_citations, shown_text

__all__ = ["Citation", "SentenceCheck", "Verdict", "checked", "find_citations", "shown_text"]

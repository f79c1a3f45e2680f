"""Checks an answer's sentences against the passages it was given, and corrects its citations.

Knows no chat, no storage and no search.
"""

from server.grounding.checks import Citation, SentenceCheck, Verdict
from server.grounding.citations import check_answer, find_citations, shown_text

__all__ = ["Citation", "SentenceCheck", "Verdict", "check_answer", "find_citations", "shown_text"]

"""Checks an answer's sentences against the passages it was given, and corrects its citations.

Knows no chat, no storage and no search.
"""

from server.grounding.checks import Citation, SentenceCheck, Verdict
from server.grounding.citations import check_answer, find_citations, shown_text
from server.grounding.sentences import CITATION_MARK, find_citation_marks

__all__ = [
    "CITATION_MARK",
    "Citation",
    "SentenceCheck",
    "Verdict",
    "check_answer",
    "find_citation_marks",
    "find_citations",
    "shown_text",
]

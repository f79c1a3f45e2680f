"""What a text is embedded for, and what two texts have to do with each other. Data alone."""

from __future__ import annotations

from enum import StrEnum


class TextRole(StrEnum):
    """What a text is embedded for; many models mark it."""

    TEXT = "text"  # compared with texts of its own kind
    QUERY = "query"  # searches passages
    PASSAGE = "passage"  # is searched


class Relation(StrEnum):
    """Between two texts, as `Embedder.likelihood` knows it."""

    ANSWER = "answer"  # a passage answers a question
    SUBJECT = "subject"  # both are about the same thing
    MEANING = "meaning"  # both say or ask the same

"""What a text is embedded for, what two texts have to do with each other, and who reads both to tell."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


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


@runtime_checkable
class Reader(Protocol):
    """Reads a question and passages together, which some embedders can, too."""

    def answers(self, question: str, passages: Sequence[str]) -> NDArray[np.float32] | None:
        """[len(passages)], float32: log odds that each answers the question; None where it has not learned to tell.
        Takes a forward pass for each passage. Blocks: call it off the event loop."""
